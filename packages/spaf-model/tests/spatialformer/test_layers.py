import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from spaf_model.attention_bias import AlibiBias
from spaf_model.kernels import KernelChoice
from spaf_model.spatialformer.layers import DropPath, MaskedBatchNorm, SequenceContext, depthwise_convolution


def test_depthwise_convolution_agrees_with_conv1d_and_its_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = []
    for fast in (True, False):
        generator.manual_seed(0)
        x = torch.randn(3, 11, 6, generator=generator, requires_grad=True)
        weight = torch.randn(6, 5, generator=generator, requires_grad=True)
        bias = torch.randn(6, generator=generator, requires_grad=True)
        if fast:
            y = depthwise_convolution(x, weight, bias)
        else:
            y = F.conv1d(x.transpose(1, 2), weight.unsqueeze(1), bias, padding=2, groups=6).transpose(1, 2)
        y.square().sum().backward()
        gradients.append((y.detach(), x.grad, weight.grad, bias.grad))
    for fast_tensor, slow_tensor in zip(*gradients, strict=True):
        torch.testing.assert_close(fast_tensor, slow_tensor, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_is_convolved_in_single(autocast: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 11, 6, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(6, 5, generator=generator, requires_grad=True)
    bias = torch.randn(6, generator=generator, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y = depthwise_convolution(x, weight, bias)
    with torch.no_grad():
        expected = F.conv1d(x.float().transpose(1, 2), weight.unsqueeze(1), bias, padding=2, groups=6).transpose(1, 2)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected.bfloat16())
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[:, 2], x.detach().float().sum((0, 1)))


def test_small_shapes_come_back_in_half_precision() -> None:
    # On processors with AVX-512 and bf16, oneDNN's own convolution in bf16 never returns from the first three.
    shapes = [(1, 66, 32), (1, 70, 32), (1, 130, 32), (1, 66, 64), (6, 66, 32), (1, 1, 16), (8, 200, 512)]
    script = f"""
import torch
from spaf_model.spatialformer.layers import depthwise_convolution
torch.set_num_threads(2)
for n_cells, length, width in {shapes}:
    x, weight = torch.randn(n_cells, length, width, requires_grad=True), torch.randn(width, 17, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = depthwise_convolution(x, weight, torch.zeros(width))
    y.sum().backward()
"""
    path = str(Path(__file__).parents[2] / "src")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r}){script}"]
    subprocess.run(command, check=True, timeout=120)


def test_batch_norm_sees_real_positions_only() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 3, generator=generator)
    mask = torch.arange(6) < torch.tensor([[6], [2]])
    x[~mask] = 1e6
    bias = AlibiBias(1, 6, mask, device=torch.device("cpu"))
    positions = mask.reshape(-1).nonzero().squeeze(1)
    context = SequenceContext(
        mask=mask, positions=positions, shape=(2, 6), bias=bias, kernel=KernelChoice("explicit", "test")
    )
    norm = MaskedBatchNorm(3, eps=1e-5, momentum=0.05)
    normed = norm(x, context)
    real = x[mask]
    expected = (real - real.mean(0)) / torch.sqrt(real.var(0, unbiased=False) + 1e-5)
    torch.testing.assert_close(normed[mask], expected)
    torch.testing.assert_close(norm.running_mean, 0.05 * real.mean(0))
    torch.testing.assert_close(norm.running_var, 0.95 + 0.05 * real.var(0, unbiased=True))
    scale, shift = norm.affine()
    by_torch = F.batch_norm(real, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, 1e-5)
    torch.testing.assert_close(real * scale + shift, by_torch)


def context_of(x: torch.Tensor) -> SequenceContext:
    bias = AlibiBias(1, x.shape[1], None, device=torch.device("cpu"))
    return SequenceContext(
        mask=None, positions=None, shape=(x.shape[0], x.shape[1]), bias=bias, kernel=KernelChoice("explicit", "test")
    )


def test_gathered_statistics_of_parts_move_as_those_of_the_whole() -> None:
    x = 3.0 + 2.0 * torch.randn(9, 5, 4, generator=torch.Generator().manual_seed(0))
    whole, parts = (MaskedBatchNorm(4, eps=1e-5, momentum=0.05) for _ in range(2))
    parts.gather_statistics()
    for _ in range(2):  # steps
        whole(x, context_of(x))
        for part in x.split([1, 6, 2]):
            own, before = MaskedBatchNorm(4, eps=1e-5, momentum=0.05), parts.running_mean.clone()
            torch.testing.assert_close(parts(part, context_of(part)), own(part, context_of(part)))
            torch.testing.assert_close(parts.running_mean, before)
        parts.move_statistics(parts.gathered_statistics())
        torch.testing.assert_close(parts.running_mean, whole.running_mean)
        torch.testing.assert_close(parts.running_var, whole.running_var)
    before = parts.running_mean.clone()
    parts.counts = False
    parts(x, context_of(x))
    parts.move_statistics(parts.gathered_statistics())  # of nothing
    torch.testing.assert_close(parts.running_mean, before)


LENGTHS = [4, 2, 3, 4, 1, 4, 4, 3]


def masked_context(mask: torch.Tensor | None, n_cells: int) -> SequenceContext:
    positions = None if mask is None else mask.reshape(-1).nonzero().squeeze(1)
    bias = AlibiBias(2, 4, mask, device=torch.device("cpu"))
    return SequenceContext(mask, positions, (n_cells, 4), bias, KernelChoice("explicit", "test"))


def cell_means(x: torch.Tensor, cells: torch.Tensor | None) -> torch.Tensor:
    """A branch that reads each cell by itself, its real positions alone."""
    lengths = torch.tensor(LENGTHS)
    lengths = lengths if cells is None else lengths[cells]
    mask = torch.arange(4) < lengths[:, None]
    return x * ((x * mask.unsqueeze(-1)).sum(dim=1) / lengths[:, None]).unsqueeze(1)


@pytest.mark.parametrize("by_cell", [False, True])
def test_branches_are_left_out_for_whole_cells_and_scaled_up_for_the_others(by_cell: bool) -> None:
    x = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expected = cell_means(x, None) / 0.6
    toward = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(expected, x, toward, retain_graph=True)
    drop_path = DropPath(0.4).train()
    n_kept = 0
    for seed in range(40):
        torch.manual_seed(seed)
        y = drop_path(x, cell_means, by_cell=by_cell)
        kept = y.detach().flatten(1).abs().sum(dim=1) > 0
        n_kept += int(kept.sum())
        torch.testing.assert_close(y[kept], expected[kept])
        assert not bool(y[~kept].any())
        (found,) = torch.autograd.grad(y, x, toward)
        torch.testing.assert_close(found, gradient * kept[:, None, None])
    assert abs(n_kept / 320 - 0.6) < 0.11  # four standard deviations


def test_what_is_left_out_is_not_computed() -> None:
    seen = []

    def branch(x: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        seen.append(x.shape[0])
        return x

    torch.manual_seed(0)
    for _ in range(20):
        DropPath(0.9).train()(torch.ones(4, 4, 3), branch, by_cell=True)
    assert min(seen) == 0
    assert max(seen) < 4


def test_nothing_is_left_out_in_evaluation() -> None:
    x = torch.ones(4, 4, 3)
    assert DropPath(0.9).eval()(x, lambda x, _: x, by_cell=True) is x


def test_some_cells_of_a_context_are_a_batch_of_their_own() -> None:
    mask = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
    cells = torch.tensor([1, 3, 4])
    taken = masked_context(mask, 8).take(cells)
    alone = masked_context(mask[cells], 3)
    assert taken.shape == alone.shape
    assert torch.equal(taken.mask, alone.mask)  # type: ignore[arg-type]
    assert torch.equal(taken.positions, alone.positions)  # type: ignore[arg-type]
    for padded in (False, True):
        one, other = (c.bias.dense(padded=padded, dtype=torch.float32) for c in (taken, alone))
        assert torch.equal(one, other)
