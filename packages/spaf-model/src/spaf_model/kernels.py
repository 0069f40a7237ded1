"""Attention kernels, and the one function that chooses among them.

All kernels compute softmax(scale q.k + bias) v with a bias (`attention_bias`: none, ALiBi, or any matrix) and with
padded keys left out. They agree to rounding, so the choice is one of speed and memory:

- ``explicit`` builds the weights (B, H, L, L): the reference, the only one that can return them, and for training with
  dropout on them the fastest on a CPU.
- ``sdpa`` is `torch.nn.functional.scaled_dot_product_attention` with the bias as an additive mask.
- ``flex`` is FlexAttention compiled for a GPU, which computes the bias inside the kernel, so that no (H, L, L) exists.
- ``onednn`` multiplies by oneDNN on a CPU with AVX-512, head by head, without gradients (`onednn_attention`).
- ``flash`` is the variable-length kernel of flash-attn (https://github.com/Dao-AILab/flash-attention), where that is
  installed: half precision on a GPU, ALiBi inside the kernel or no bias, and no time for padding.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F

from spaf_model.attention_bias import BIAS_KINDS, AlibiBias, AttentionBias, BiasKind
from spaf_model.dropout import draws_fast
from spaf_model.errors import InputError
from spaf_model.explicit_attention import explicit_attention
from spaf_model.onednn_attention import onednn_attention, onednn_attention_obstacle, onednn_attention_pays

KernelName = Literal["explicit", "sdpa", "flex", "flash", "onednn"]
KERNELS: tuple[KernelName, ...] = get_args(KernelName)
MatmulName = Literal["torch", "onednn"]
ConvolutionName = Literal["native", "single"]

_FLEX_MIN_HEAD_DIM = 16  # FlexAttention on CUDA refuses smaller heads
_FLEX_MIN_LENGTH = 1024  # below it, the bias tensor costs less than compiling
_FLASH_VECTOR = 8  # flash-attn wants heads of a multiple of it
_FLASH_MAX_HEAD_DIM = 256
_CPU_HEAD_DIM = 16  # least head size at which fused attention on a CPU is worth its overhead
_REPORTED = ((8, 100), (8, 1000), (64, 100), (64, 2000))  # (head_dim, length) that `kernel_report` asks about
_CPU_VECTOR = 8  # single-precision numbers in a vector of AVX2


@dataclasses.dataclass(frozen=True)
class KernelChoice:
    """A kernel and why it was chosen."""

    name: KernelName
    reason: str


@dataclasses.dataclass(frozen=True)
class MatmulChoice:
    """A matmul path of inference and why it was chosen."""

    name: MatmulName
    reason: str


@dataclasses.dataclass(frozen=True)
class ConvolutionChoice:
    """How the depthwise convolution is computed, and why."""

    name: ConvolutionName
    reason: str


def select_kernel(
    device: torch.device | str,
    dtype: torch.dtype,
    head_dim: int,
    length: int,
    need_weights: bool = False,
    *,
    bias: BiasKind = "alibi",
    dropout: bool = False,
    forced: KernelName | None = None,
) -> KernelChoice:
    """Choose an attention kernel.

    Parameters
    ----------
    device, dtype
        Where and in which precision attention runs.
    head_dim
        Dimensions of one head.
    length
        Positions of the padded sequences.
    need_weights
        Whether the attention weights are wanted.
    bias
        Kind of the bias: none, alibi or matrix.
    dropout
        Whether dropout is drawn on the attention weights.
    forced
        A kernel to use whatever the rules say.

    Raises
    ------
    InputError
        If the forced kernel does not exist or cannot do what is asked; the sentence says why.
    """
    device = torch.device(device)
    obstacles = {
        "flex": _flex_obstacle(device, dtype, head_dim, dropout=dropout),
        "flash": _flash_obstacle(device, dtype, head_dim, bias),
        "onednn": onednn_attention_obstacle(bias, dropout=dropout) or _onednn_obstacle(device, dtype),
    }
    if bias not in BIAS_KINDS:
        raise InputError(f"There is no attention bias {bias!r}; the kinds are: {', '.join(BIAS_KINDS)}.")
    if forced is not None:
        if forced not in KERNELS:
            raise InputError(f"There is no kernel {forced!r}; the kernels are: {', '.join(KERNELS)}.")
        if need_weights and forced != "explicit":
            raise InputError(f"The kernel {forced!r} cannot return attention weights; 'explicit' can.")
        if obstacles.get(forced) is not None:
            raise InputError(f"The kernel {forced!r} cannot be used: {obstacles[forced]}.")
        return KernelChoice(forced, "asked for by name")
    if need_weights:
        return KernelChoice("explicit", "attention weights are wanted")
    if dropout and device.type == "cpu":
        return KernelChoice("explicit", "no fused kernel of a CPU drops attention weights")
    if obstacles["flash"] is None:
        return KernelChoice("flash", "flash-attn is installed: no time for padding, the bias inside the kernel")
    if obstacles["onednn"] is None and onednn_attention_pays(head_dim, length):
        return KernelChoice("onednn", f"{length} positions, and AVX-512, which torch's library does not always use")
    if bias == "none":
        return KernelChoice("sdpa", "fused attention; without a bias no kernel has to hold one")
    if obstacles["flex"] is None and length >= _FLEX_MIN_LENGTH:
        return KernelChoice("flex", f"{length} positions on {device.type}: the bias is computed inside the kernel")
    why_not = obstacles["flex"] or f"'flex' pays from {_FLEX_MIN_LENGTH} positions"
    return KernelChoice("sdpa", f"fused attention with the bias as a mask; {why_not}")


def select_matmul(device: torch.device | str, dtype: torch.dtype, *, forced: MatmulName | None = None) -> MatmulChoice:
    """Choose how inference multiplies matrices; training always does it torch's way.

    ``onednn`` keeps the weights in the blocked layout of oneDNN, and puts gates and residual sums into the product. It
    is chosen where the processor has AVX-512, which torch's default library does not use on every processor that has
    it. With AVX2 alone both multiply equally fast, and packing costs a few tenths of a second.

    Raises
    ------
    InputError
        If the forced path does not exist or cannot be used; the sentence says why.
    """
    obstacle = _onednn_obstacle(torch.device(device), dtype)
    if forced is not None:
        if forced not in get_args(MatmulName):
            raise InputError(f"There is no matmul path {forced!r}; there are: {', '.join(get_args(MatmulName))}.")
        if forced == "onednn" and obstacle is not None:
            raise InputError(f"The matmul path 'onednn' cannot be used: {obstacle}.")
        return MatmulChoice(forced, "asked for by name")
    if obstacle is not None:
        return MatmulChoice("torch", obstacle)
    vectors = torch.backends.cpu.get_cpu_capability()
    if vectors.startswith("AVX512"):
        return MatmulChoice("onednn", f"{vectors}: oneDNN uses it on every processor, torch's default library not")
    return MatmulChoice("torch", f"'onednn' is no faster with {vectors}")


def select_convolution(device: torch.device | str, dtype: torch.dtype) -> ConvolutionChoice:
    """Choose how the depthwise convolution is computed.

    ``single`` converts what is in half precision to single and back. On a CPU it is the rule: oneDNN's generator of
    bf16 kernels (``brdgmm``) never returns for some small shapes on processors with AVX-512 and bf16, such as one cell
    of 66 positions and 32 channels on two threads (`benchmarks/bf16_shapes.py` finds them). It costs up to three times
    bf16's own convolution, a tenth of the first product of the same block at published sizes, and every other
    formulation that was tried costs 2 to 80 times as much (`benchmarks/depthwise_convolution.py`).
    """
    if torch.device(device).type == "cpu" and dtype in (torch.bfloat16, torch.float16):
        return ConvolutionChoice(
            "single",
            "oneDNN's bf16 convolution never returns for some small shapes, and single costs little",
        )
    return ConvolutionChoice("native", "computed in the dtype of its input")


def _onednn_obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Say why oneDNN's packed weights cannot be used, or None where they can."""
    if device.type != "cpu":
        return f"'onednn' needs a CPU, not {device.type}"
    if dtype != torch.float32:
        return f"'onednn' is used in float32, not {str(dtype).removeprefix('torch.')}"
    operators = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(operators, "_linear_pointwise")):
        return "this torch has no oneDNN with packed weights"
    return None


def available_kernels(device: torch.device | str) -> dict[str, str]:
    """Say of each kernel whether it can be used on a device, or why not."""
    device = torch.device(device)
    flex = _flex_obstacle(device, torch.float32, _FLEX_MIN_HEAD_DIM, dropout=False)
    return {
        "explicit": "available; returns attention weights",
        "sdpa": "available",
        "flex": flex or f"available for heads of at least {_FLEX_MIN_HEAD_DIM} dimensions",
        "flash": _flash_obstacle(device, torch.bfloat16, _FLASH_VECTOR, "alibi") or "available in half precision",
        "onednn": _onednn_obstacle(device, torch.float32) or "available without bias or gradients",
    }


def kernel_report(device: torch.device) -> dict[str, Any]:
    """Say which kernels and matrix products work on a device, which would be chosen, and why."""
    matmul = select_matmul(device, torch.float32)
    convolution = select_convolution(device, torch.bfloat16)
    choices = [(*case, select_kernel(device, torch.float32, *case)) for case in _REPORTED]
    return {
        "device": str(device),
        "matmul": {"path": matmul.name, "reason": matmul.reason},
        "convolution": {"path": convolution.name, "reason": convolution.reason},
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": available_kernels(device),
        "choices": [
            {"head_dim": head_dim, "length": length, "kernel": choice.name, "reason": choice.reason}
            for head_dim, length, choice in choices
        ],
    }


def _flex_obstacle(device: torch.device, dtype: torch.dtype, head_dim: int, *, dropout: bool) -> str | None:
    """Say why FlexAttention cannot be used, or None where it can."""
    if device.type != "cuda":
        return f"'flex' needs a CUDA device, not {device.type}"
    if importlib.util.find_spec("torch.nn.attention.flex_attention") is None:
        return "this torch has no torch.nn.attention.flex_attention"
    if dropout:
        return "'flex' has no dropout"
    if dtype == torch.float64:
        return "'flex' does not compute in float64"
    if head_dim < _FLEX_MIN_HEAD_DIM:
        return f"'flex' needs heads of at least {_FLEX_MIN_HEAD_DIM} dimensions, not {head_dim}"
    return None


def _flash_obstacle(device: torch.device, dtype: torch.dtype, head_dim: int, bias: BiasKind) -> str | None:
    """Say why the kernel of flash-attn cannot be used, or None where it can."""
    if device.type != "cuda":
        return f"'flash' needs a CUDA device, not {device.type}"
    if importlib.util.find_spec("flash_attn") is None:
        return "the library flash-attn is not installed"
    if bias == "matrix":
        return "'flash' knows no bias but ALiBi"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"'flash' computes in half precision, not {str(dtype).removeprefix('torch.')}"
    if head_dim % _FLASH_VECTOR or head_dim > _FLASH_MAX_HEAD_DIM:
        return f"'flash' needs heads of {_FLASH_VECTOR}, {2 * _FLASH_VECTOR} ... {_FLASH_MAX_HEAD_DIM} dimensions"
    return None


def attend(
    name: KernelName,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: AttentionBias,
    *,
    scale: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Return attention outputs (B, H, Q, K) of queries (B, H, Q, K), keys and values (B, H, L, K); any at padding.

    The queries are those of the first Q positions.
    `dropout` is drawn on the attention weights; give 0 outside training.
    """
    return _KERNELS[name](q, k, v, bias, scale, dropout)


def attention_weights(q: torch.Tensor, k: torch.Tensor, bias: AttentionBias, *, scale: float) -> torch.Tensor:
    """Return the attention weights (B, H, L, L) of queries and keys (B, H, L, K)."""
    whole = bias.dense(padded=True, dtype=torch.float32)
    scores = torch.matmul(q, k.transpose(-1, -2)) * scale + whole[:, :, : q.shape[2]]
    return scores.softmax(dim=-1)


def _explicit(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: AttentionBias, scale: float, dropout: float
) -> torch.Tensor:
    if draws_fast(q) and q.dtype == v.dtype and not torch.is_autocast_enabled("cpu"):
        whole = bias.dense(padded=False, dtype=q.dtype)
        return explicit_attention(q, k, v, whole[0, :, : q.shape[2]], bias.mask, scale=scale, dropout=dropout)
    weights = attention_weights(q, k, bias, scale=scale)
    return torch.matmul(F.dropout(weights, dropout, training=dropout > 0).to(v.dtype), v)


def _sdpa(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: AttentionBias, scale: float, dropout: float
) -> torch.Tensor:
    n_queries, head_dim = q.shape[2:]
    on_cpu = q.device.type == "cpu"
    # Without a bias the padding is one row a cell, which costs a CPU nothing: 4 cells of 301 positions and heads of 64
    # take 0.6 of the time of wider heads.
    padding_alone = bias.kind == "none"
    added: torch.Tensor | None = None
    if not padding_alone or bias.mask is not None:
        added = bias.dense(padded=padding_alone or not on_cpu, dtype=q.dtype)[:, :, :n_queries]
    if on_cpu:
        q, k, v = _widened(q, k, v, None if padding_alone else bias.mask)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=added, dropout_p=dropout, scale=scale)
    return out[..., :head_dim]


def _widened(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries, keys and values with dimensions that change no output, for the sake of a CPU.

    Below 16 dimensions the products of a head leave most of a vector unit idle: 8 widened to 16 take 0.6 of the time.
    One of the new dimensions holds out padded keys, so that the bias needs no copy for each cell.
    """
    head_dim = q.shape[-1]
    width = max(head_dim if mask is None else head_dim + 1, _CPU_HEAD_DIM)
    width += -width % _CPU_VECTOR
    if width == head_dim:
        return q, k, v
    q, k, v = (F.pad(tensor, (0, width - head_dim)) for tensor in (q, k, v))
    if mask is not None:
        q[..., head_dim] = 1.0
        never = torch.finfo(k.dtype).min / 2
        k[..., head_dim] = torch.zeros_like(mask, dtype=k.dtype).masked_fill(~mask, never).unsqueeze(1)
    return q, k, v


@functools.cache
def _flex_attention() -> Callable[..., Any]:
    # Imported when used: it brings torch's compiler, which takes seconds to load.
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def _flex(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: AttentionBias, scale: float, dropout: float
) -> torch.Tensor:
    assert dropout == 0.0
    attention = _flex_attention()
    biased = bias.score()
    real = None if bias.mask is None else bias.mask.sum(dim=1)

    def score(value: Any, cell: Any, head: Any, query: Any, key: Any) -> Any:
        value = biased(value, head, query, key)
        return value if real is None else torch.where(key < real[cell], value, -math.inf)

    out: torch.Tensor = attention(q, k, v, score_mod=score, scale=scale)
    return out


def _flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: AttentionBias, scale: float, dropout: float
) -> torch.Tensor:
    n_cells, _, length, _ = k.shape
    if q.shape[2] < length:
        # The library aligns the last query with the last key, and ours are the first.
        return _sdpa(q, k, v, bias, scale, dropout)
    from flash_attn import flash_attn_varlen_func

    if bias.mask is None:
        mask = torch.ones(n_cells, length, dtype=torch.bool, device=q.device)
    else:
        mask = bias.mask
    assert bias.kind != "matrix"
    slopes = bias.slopes if isinstance(bias, AlibiBias) else None
    lengths = mask.sum(dim=1, dtype=torch.int32)
    starts = F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    packed = (tensor.transpose(1, 2)[mask] for tensor in (q, k, v))  # (real positions, H, K)
    found = flash_attn_varlen_func(
        *packed, starts, starts, length, length, dropout_p=dropout, softmax_scale=scale, alibi_slopes=slopes
    )
    out = torch.zeros_like(q.transpose(1, 2))
    out[mask] = found
    return out.transpose(1, 2)


def _onednn(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: AttentionBias, scale: float, dropout: float
) -> torch.Tensor:
    assert bias.kind == "none"
    assert dropout == 0.0
    return onednn_attention(q, k, v, None if bias.mask is None else bias.mask.sum(dim=1).tolist(), scale)


_KERNELS: dict[str, Callable[..., torch.Tensor]] = {
    "explicit": _explicit,
    "sdpa": _sdpa,
    "flex": _flex,
    "flash": _flash,
    "onednn": _onednn,
}
