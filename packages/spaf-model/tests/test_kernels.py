import importlib.util
import math
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from spaf_model import InputError, select_kernel
from spaf_model.attention_bias import AlibiBias, AttentionBias, MatrixBias, NoBias, alibi_slopes
from spaf_model.kernels import (
    KERNELS,
    attend,
    attention_weights,
    available_kernels,
    select_matmul,
)


def random_qkv(n_cells: int, n_heads: int, length: int, head_dim: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, n_cells, n_heads, length, head_dim, generator=generator).unbind(0)


def bias_of(kind: str, n_heads: int, length: int, mask: torch.Tensor | None) -> tuple[AttentionBias, torch.Tensor]:
    """A bias of a kind, and its numbers (H, L, L) worked out one by one."""
    if kind == "none":
        return NoBias(mask, device=torch.device("cpu")), torch.zeros(n_heads, length, length)
    if kind == "matrix":
        shape = (1 if n_heads % 2 == 0 else n_heads, length, length)
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        matrix[:, 1:, 0] = -math.inf  # nobody but itself sees the first position
        return MatrixBias(matrix, mask), matrix.expand(n_heads, length, length)
    numbers = [[[-slope * abs(i - j) for j in range(length)] for i in range(length)] for slope in alibi_slopes(n_heads)]
    return AlibiBias(n_heads, length, mask, device=torch.device("cpu")), torch.tensor(numbers)


def slow_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: list[int], scale: float, bias: torch.Tensor
) -> torch.Tensor:
    """One query of one head of one cell at a time, in double precision."""
    out = torch.full(q.shape, math.nan, dtype=torch.float64)
    for cell, n in enumerate(lengths):
        for head in range(q.shape[1]):
            for i in range(n):
                scores = torch.stack(
                    [
                        q[cell, head, i].double() @ k[cell, head, j].double() * scale + bias[head, i, j].double()
                        for j in range(n)
                    ]
                )
                out[cell, head, i] = scores.softmax(0) @ v[cell, head, :n].double()
    return out


@pytest.mark.parametrize("lengths", [[9, 9], [9, 4, 1]])
@pytest.mark.parametrize("name", ["explicit", "sdpa"])
@pytest.mark.parametrize("head_dim", [4, 15, 16])
@pytest.mark.parametrize("kind", ["none", "alibi", "matrix"])
def test_kernels_agree_with_slow_attention(kind: str, name: str, lengths: list[int], head_dim: int) -> None:
    q, k, v = random_qkv(len(lengths), 3, 9, head_dim)
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    bias, numbers = bias_of(kind, 3, 9, None if mask.all() else mask)
    assert bias.kind == kind
    out = attend(name, q, k, v, bias, scale=0.3)  # type: ignore[arg-type]
    expected = slow_attention(q, k, v, lengths, 0.3, numbers)
    for cell, n in enumerate(lengths):
        torch.testing.assert_close(out[cell, :, :n].double(), expected[cell, :, :n], atol=1e-5, rtol=1e-5)
    first = attend(name, q[:, :, :2], k, v, bias, scale=0.3)  # type: ignore[arg-type]
    torch.testing.assert_close(first[:, :, :1], out[:, :, :1], atol=1e-6, rtol=1e-6)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
@pytest.mark.parametrize("lengths", [[9, 9], [9, 4, 1]])
@pytest.mark.parametrize("most_scores", [2**20, 20])
def test_onednn_agrees_with_slow_attention(
    lengths: list[int], most_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the scores of a head are held a few queries at a time, and for keys at padding of any numbers."""
    monkeypatch.setattr("spaf_model.onednn_attention._MOST_SCORES", most_scores)
    q, k, v = random_qkv(len(lengths), 3, 9, 32)
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    bias, numbers = bias_of("none", 3, 9, None if mask.all() else mask)
    for part in (k, v):
        part.masked_fill_(~mask[:, None, :, None], math.nan)
    with torch.inference_mode():
        out = attend("onednn", q, k, v, bias, scale=0.3)
        first = attend("onednn", q[:, :, :2], k, v, bias, scale=0.3)
    expected = slow_attention(q, k, v, lengths, 0.3, numbers)
    for cell, n in enumerate(lengths):
        torch.testing.assert_close(out[cell, :, :n].double(), expected[cell, :, :n], atol=1e-5, rtol=1e-5)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(first, out[:, :, :2], atol=1e-6, rtol=1e-6)


def test_onednn_is_chosen_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    monkeypatch.setattr("spaf_model.kernels._onednn_obstacle", lambda device, dtype: None)

    def chosen(head_dim: int = 64, length: int = 301, **options: object) -> str:
        asked = {"bias": "none"} | options
        return select_kernel("cpu", torch.float32, head_dim, length, **asked).name  # type: ignore[arg-type]

    assert chosen() == "sdpa"  # with gradients
    with pytest.raises(InputError, match="'onednn' cannot be used: 'onednn' has no gradients"):
        chosen(forced="onednn")
    with torch.no_grad():
        assert chosen() == "onednn"
        assert chosen(length=100) == chosen(head_dim=8) == chosen(bias="alibi") == "sdpa"
        assert chosen(length=100, forced="onednn") == "onednn"
        with pytest.raises(InputError, match="'onednn' cannot be used: 'onednn' knows no bias"):
            chosen(bias="matrix", forced="onednn")
        monkeypatch.setattr("torch.get_num_threads", lambda: 16)
        assert chosen() == "sdpa"
        monkeypatch.setattr("torch.get_num_threads", lambda: 1)
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
        assert chosen() == "sdpa"


def test_padded_keys_weigh_nothing_however_far_off_the_values() -> None:
    q, k, v = random_qkv(2, 3, 9, 8)
    mask = torch.arange(9) < torch.tensor([[9], [3]])
    bias = AlibiBias(3, 9, mask, device=torch.device("cpu"))
    before = attend("sdpa", q, k, v, bias, scale=0.01)
    k[1, :, 3:] *= 1e4
    v[1, :, 3:] = 1e30
    assert torch.equal(attend("sdpa", q, k, v, bias, scale=0.01)[1, :, :3], before[1, :, :3])


def test_gradients_agree_between_kernels() -> None:
    gradients = {}
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    for name in ("explicit", "sdpa"):
        q, k, v = (tensor.requires_grad_() for tensor in random_qkv(2, 4, 9, 8))
        bias = AlibiBias(4, 9, mask, device=torch.device("cpu"))
        out = attend(name, q, k, v, bias, scale=0.3)  # type: ignore[arg-type]
        (out * mask[:, None, :, None]).square().sum().backward()
        gradients[name] = torch.stack([q.grad, k.grad, v.grad])  # type: ignore[list-item]
    torch.testing.assert_close(gradients["explicit"], gradients["sdpa"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["none", "alibi", "matrix"])
def test_some_cells_of_a_bias_are_those_of_their_own(kind: str) -> None:
    mask = torch.arange(9) < torch.tensor([[9], [3], [5]])
    cells = torch.tensor([2, 0])
    taken = bias_of(kind, 4, 9, mask)[0].take(cells)
    alone = bias_of(kind, 4, 9, mask[cells])[0]
    assert type(taken) is type(alone)
    for padded in (False, True):
        assert torch.equal(*(bias.dense(padded=padded, dtype=torch.float32) for bias in (taken, alone)))
    whole = bias_of(kind, 4, 9, None)[0]
    assert whole.take(cells) is whole


@pytest.mark.parametrize("kind", ["none", "alibi", "matrix"])
@pytest.mark.parametrize("n_heads", [3, 4])
def test_a_bias_as_a_function_of_one_score_is_its_matrix(kind: str, n_heads: int) -> None:
    bias, numbers = bias_of(kind, n_heads, 5, None)
    score = bias.score()
    places = [torch.tensor(place) for place in (n_heads - 1, 3, 1)]
    assert float(score(torch.tensor(2.0), *places)) == pytest.approx(2.0 + float(numbers[n_heads - 1, 3, 1]))


def test_the_kind_of_a_bias_decides_among_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    asked = (torch.device("cuda"), torch.bfloat16, 64, 4096)
    chosen = {kind: select_kernel(*asked, bias=kind).name for kind in ("none", "alibi", "matrix")}  # type: ignore[arg-type]
    assert chosen == {"none": "flash", "alibi": "flash", "matrix": "flex"}
    with pytest.raises(InputError, match="'flash' knows no bias but ALiBi"):
        select_kernel(*asked, bias="matrix", forced="flash")
    with pytest.raises(InputError, match="no attention bias 'rope'; the kinds are: none, alibi, matrix"):
        select_kernel(*asked, bias="rope")  # type: ignore[arg-type]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "flash_attn" else object())
    assert select_kernel(*asked, bias="none").name == "sdpa"
    assert select_kernel(*asked, bias="alibi").name == "flex"


@pytest.mark.parametrize("lengths", [[9, 9], [9, 4]])
@pytest.mark.parametrize("kind", ["none", "alibi", "matrix"])
def test_flex_agrees_with_explicit_uncompiled(kind: str, lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    monkeypatch.setattr("spaf_model.kernels._flex_attention", lambda: flex.flex_attention)
    q, k, v = random_qkv(2, 4, 9, 16)
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    bias, _ = bias_of(kind, 4, 9, None if mask.all() else mask)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*flex_attention.* called without torch.compile")
        out = attend("flex", q, k, v, bias, scale=0.3)
    expected = attend("explicit", q, k, v, bias, scale=0.3)
    for cell, n in enumerate(lengths):
        torch.testing.assert_close(out[cell, :, :n], expected[cell, :, :n], atol=1e-5, rtol=1e-5)


def stand_in_for_flash(  # the call and the bias that flash-attn documents, one sequence after another
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_starts: torch.Tensor,
    key_starts: torch.Tensor,
    longest_query: int,
    longest_key: int,
    *,
    dropout_p: float,
    softmax_scale: float,
    alibi_slopes: torch.Tensor | None,
) -> torch.Tensor:
    slopes = torch.zeros(q.shape[1]) if alibi_slopes is None else alibi_slopes
    assert dropout_p == 0.0
    assert query_starts.dtype == key_starts.dtype == torch.int32
    assert longest_query == longest_key == 9
    out = torch.empty_like(q)
    for a, b in zip(query_starts[:-1].tolist(), query_starts[1:].tolist(), strict=True):
        position = torch.arange(b - a, dtype=torch.float32)
        bias = -slopes[:, None, None] * (position[:, None] - position[None, :]).abs()
        scores = torch.einsum("ihd,jhd->hij", q[a:b], k[a:b]) * softmax_scale + bias
        out[a:b] = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v[a:b])
    assert b == len(q)
    return out


@pytest.mark.parametrize("lengths", [[9, 9], [9, 4, 1]])
@pytest.mark.parametrize("kind", ["none", "alibi"])
def test_flash_agrees_with_explicit_through_a_stand_in(
    kind: str, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=stand_in_for_flash))
    q, k, v = random_qkv(len(lengths), 4, 9, 8)
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    bias, _ = bias_of(kind, 4, 9, None if mask.all() else mask)
    out = attend("flash", q, k, v, bias, scale=0.3)
    expected = attend("explicit", q, k, v, bias, scale=0.3)
    for cell, n in enumerate(lengths):
        torch.testing.assert_close(out[cell, :, :n], expected[cell, :, :n], atol=1e-5, rtol=1e-5)
    first = attend("flash", q[:, :, :1], k, v, bias, scale=0.3)
    torch.testing.assert_close(first, expected[:, :, :1], atol=1e-5, rtol=1e-5)


def test_flash_is_chosen_where_its_library_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    missing = {"flash_attn"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else found("math"))
    assert select_kernel("cuda", torch.bfloat16, 8, 100).name == "sdpa"
    with pytest.raises(InputError, match="flash-attn is not installed"):
        select_kernel("cuda", torch.bfloat16, 8, 100, forced="flash")
    missing.clear()
    assert select_kernel("cuda", torch.bfloat16, 8, 100).name == "flash"
    assert select_kernel("cuda", torch.bfloat16, 8, 100, need_weights=True).name == "explicit"
    assert select_kernel("cuda", torch.float32, 8, 100).name == "sdpa"
    assert select_kernel("cuda", torch.bfloat16, 12, 100).name == "sdpa"
    for device, dtype, head_dim, why in (
        ("cpu", torch.bfloat16, 8, "needs a CUDA device"),
        ("cuda", torch.float32, 8, "half precision, not float32"),
        ("cuda", torch.bfloat16, 12, "heads of 8, 16"),
    ):
        with pytest.raises(InputError, match=why):
            select_kernel(device, dtype, head_dim, 100, forced="flash")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_flash_agrees_on_a_gpu() -> None:
    pytest.importorskip("flash_attn")
    lengths = [300, 17, 120]
    q, k, v = (tensor.cuda().bfloat16() for tensor in random_qkv(3, 4, 300, 32))
    mask = (torch.arange(300) < torch.tensor(lengths)[:, None]).cuda()
    bias = AlibiBias(4, 300, mask, device=q.device)
    out = attend("flash", q, k, v, bias, scale=0.3)
    expected = attend("explicit", q.float(), k.float(), v.float(), bias, scale=0.3)
    for cell, n in enumerate(lengths):
        torch.testing.assert_close(out[cell, :, :n].float(), expected[cell, :, :n], atol=2e-2, rtol=2e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["sdpa", "flex"])
def test_kernels_agree_on_a_gpu(name: str) -> None:
    lengths = [300, 17, 120]
    q, k, v = (tensor.cuda() for tensor in random_qkv(3, 4, 300, 32))
    mask = (torch.arange(300) < torch.tensor(lengths)[:, None]).cuda()
    bias = AlibiBias(4, 300, mask, device=q.device)
    out = attend(name, q, k, v, bias, scale=0.3)  # type: ignore[arg-type]
    expected = attend("explicit", q, k, v, bias, scale=0.3)
    for cell, n in enumerate(lengths):
        torch.testing.assert_close(out[cell, :, :n], expected[cell, :, :n], atol=1e-4, rtol=1e-4)


def test_weights_sum_to_one_over_real_keys() -> None:
    q, k, _ = random_qkv(2, 4, 7, 8)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    weights = attention_weights(q, k, AlibiBias(4, 7, mask, device=torch.device("cpu")), scale=1.0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 7))
    assert (weights[1, :, :, 3:] == 0).all()


@pytest.mark.parametrize("n_heads", [1, 2, 8, 64])
def test_slopes_of_a_power_of_two(n_heads: int) -> None:
    slopes = alibi_slopes(n_heads)
    assert slopes == pytest.approx([2 ** (-8 * (head + 1) / n_heads) for head in range(n_heads)])


def test_slopes_of_other_numbers_interleave_the_next_power() -> None:
    # 6 heads: those of 4, then the 1st and 3rd of 8.
    assert alibi_slopes(6) == pytest.approx([2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3])
    assert len(alibi_slopes(12)) == 12


def test_selection_on_cpu_says_why() -> None:
    choice = select_kernel("cpu", torch.float32, 8, 100)
    assert choice.name == "sdpa"
    assert "cpu" in choice.reason
    assert select_kernel("cpu", torch.float32, 8, 100, need_weights=True).name == "explicit"
    assert select_kernel("cpu", torch.float32, 8, 100, forced="explicit").name == "explicit"
    assert select_kernel("cpu", torch.float32, 8, 100, dropout=True).name == "explicit"


def test_selection_on_cuda_needs_no_gpu() -> None:
    assert select_kernel("cuda", torch.float32, 64, 4000).name == "flex"
    assert select_kernel("cuda", torch.float32, 64, 100).name == "sdpa"
    assert "16" in select_kernel("cuda", torch.float32, 8, 4000).reason
    assert select_kernel("cuda", torch.float32, 64, 4000, dropout=True).name == "sdpa"
    assert "float64" in select_kernel("cuda", torch.float64, 64, 4000).reason


@pytest.mark.parametrize(("capability", "expected"), [("AVX512", "onednn"), ("AVX2", "torch")])
def test_matmul_selection_goes_by_the_vector_units(
    capability: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    choice = select_matmul("cpu", torch.float32)
    assert choice.name == expected
    assert capability in choice.reason


def test_matmul_selection_says_why() -> None:
    assert "bfloat16" in select_matmul("cpu", torch.bfloat16).reason
    assert "cuda" in select_matmul("cuda", torch.float32).reason
    assert select_matmul("cpu", torch.float32, forced="torch").name == "torch"
    with pytest.raises(InputError, match="torch, onednn"):
        select_matmul("cpu", torch.float32, forced="mkl")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'onednn' cannot be used: .*float64"):
        select_matmul("cpu", torch.float64, forced="onednn")


def test_impossible_wishes_are_refused() -> None:
    with pytest.raises(InputError, match="explicit, sdpa, flex"):
        select_kernel("cpu", torch.float32, 8, 10, forced="flush")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot return attention weights"):
        select_kernel("cpu", torch.float32, 8, 10, True, forced="sdpa")
    with pytest.raises(InputError, match="'flex' cannot be used: .*CUDA"):
        select_kernel("cpu", torch.float32, 64, 10, forced="flex")


def test_available_kernels_lists_all() -> None:
    available = available_kernels("cpu")
    assert tuple(available) == KERNELS
    assert "CUDA" in available["flex"]
