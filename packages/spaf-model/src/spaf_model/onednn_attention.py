"""Attention without a bias by the matrix products of oneDNN, one head of one cell at a time.

Fused attention of torch multiplies by its default library, which on some processors leaves AVX-512 unused, and so do
batched products in single precision: 75 to 90 GFLOP/s of a core where oneDNN reaches 240 (AMD EPYC). The one way from
torch to oneDNN in single precision is its linear map, of two matrices. A cell is cut to its real positions, so padding
takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from spaf_model.attention_bias import BiasKind

_MIN_HEAD_DIM = 32  # 16 take 1.1 of the time of fused attention, at 301 positions
_MIN_LENGTH = 256  # 150 positions take 1.1 of it, 301 take 0.8, 1,001 take 0.65
_MAX_THREADS = 2  # what was measured: products of one head are too small for many
_MOST_SCORES = 2**20  # held at a time


def onednn_attention_obstacle(bias: BiasKind, *, dropout: bool) -> str | None:
    """Say what is asked that this attention does not do, or None."""
    if bias != "none":
        return "'onednn' knows no bias"
    if dropout:
        return "'onednn' has no dropout"
    return "'onednn' has no gradients" if torch.is_grad_enabled() else None


def onednn_attention_pays(head_dim: int, length: int) -> bool:
    """Say whether it is faster than fused attention of torch, where it can be used."""
    has_avx512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    few = torch.get_num_threads() <= _MAX_THREADS
    return has_avx512 and few and head_dim >= _MIN_HEAD_DIM and length >= _MIN_LENGTH


def onednn_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: list[int] | None, scale: float
) -> torch.Tensor:
    """Return outputs (B, H, Q, K) in single precision of a CPU; no gradients, and zeros at padding.

    Parameters
    ----------
    q
        Of the first positions, (B, H, Q, K).
    k, v
        (B, H, L, K).
    lengths
        Real positions of each cell; None: all are real.
    scale
        What scores are multiplied with.
    """
    n_cells, n_heads, n_queries, head_dim = q.shape
    out_BQHK = q.new_zeros((n_cells, n_queries, n_heads, head_dim))
    for cell in range(n_cells):
        length = k.shape[2] if lengths is None else lengths[cell]
        n = min(n_queries, length)
        # Products of strided matrices take hundreds of times as long.
        q_HQK = q[cell, :, :n].contiguous() * scale
        k_HLK = k[cell, :, :length].contiguous()
        v_HKL = v[cell, :, :length].transpose(1, 2).contiguous()
        step = max(_MOST_SCORES // length, 1)
        for head in range(n_heads):
            for start in range(0, n, step):
                rows = slice(start, min(start + step, n))
                weights = _product(q_HQK[head, rows], k_HLK[head])
                torch.softmax(weights, dim=-1, out=weights)
                out_BQHK[cell, rows, head] = _product(weights, v_HKL[head])
    return out_BQHK.transpose(1, 2)


def _product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return x W^T."""
    y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return y
