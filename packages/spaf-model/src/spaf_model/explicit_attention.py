"""Attention by weights that exist, (B, H, L, L), with dropout on them: its value and its gradient.

Fused kernels of a CPU have no dropout on the weights, and torch then differentiates through every step of the formula.
Here the gradient is written out. With P the weights after softmax, M those of them that are kept over their chance,
O = (P M) V and G the gradient of O:

    dV = (P M)^T G,   dP = M (G V^T),   dS = P (dP - D),   D_i = sum_k G_ik O_ik,   dQ = s dS K,   dK = s dS^T Q

where D is the sum of P dP over the keys, by way of the outputs (Dao et al. 2022, https://arxiv.org/abs/2205.14135,
appendix B). Products with few dimensions of a head are taken with the long side last, which a CPU does twice as fast.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from spaf_model.dropout import draw_mask


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        bias_HQL: torch.Tensor,
        padding_BL: torch.Tensor | None,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        weights_BHQL = q.new_empty((*q.shape[:3], k.shape[2]))
        mask_BHQL = q.new_empty(weights_BHQL.shape if dropout > 0.0 else 0, dtype=torch.uint8)
        kept = 1.0
        y_BHKQ = q.new_empty(*q.shape[:2], q.shape[3], q.shape[2])
        # A cell at a time, so that what one product writes is still in the cache for the next.
        for cell, weights_HQL in enumerate(weights_BHQL):
            scores_HQL = torch.baddbmm(bias_HQL, q[cell], k[cell].transpose(-1, -2), alpha=scale)
            if padding_BL is not None:
                scores_HQL.masked_fill_(padding_BL[cell], -math.inf)
            torch.softmax(scores_HQL, dim=-1, out=weights_HQL)
            if dropout > 0.0:
                kept = draw_mask(mask_BHQL[cell], dropout)
                weights_HQL = torch.mul(weights_HQL, mask_BHQL[cell], out=scores_HQL)
            torch.bmm(v[cell].transpose(-1, -2), weights_HQL.transpose(-1, -2), out=y_BHKQ[cell])
        if kept < 1.0:
            y_BHKQ.mul_(1.0 / kept)
        ctx.save_for_backward(q, k, v, weights_BHQL, mask_BHQL, y_BHKQ)
        ctx.scale, ctx.kept = scale, kept
        return y_BHKQ.transpose(-1, -2)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, weights_BHQL, mask_BHQL, y_BHKQ = ctx.saved_tensors
        mean_BHQ = (grad.transpose(-1, -2) * y_BHKQ).sum(dim=2)
        grad = grad * (1.0 / ctx.kept)
        shape = (*q.shape[:2], q.shape[3])
        dq_BHKQ, dk_BHKL, dv_BHKL = (q.new_empty(*shape, x.shape[2]) for x in (q, k, v))
        for cell, weights_HQL in enumerate(weights_BHQL):
            kept_HQL = weights_HQL * mask_BHQL[cell] if mask_BHQL.numel() else weights_HQL
            torch.bmm(grad[cell].transpose(-1, -2), kept_HQL, out=dv_BHKL[cell])
            # M P dP: what was dropped is 0 in M P, and the chance to be kept is in the gradient.
            ds_HQL = torch.bmm(grad[cell], v[cell].transpose(-1, -2)).mul_(kept_HQL)
            ds_HQL.addcmul_(weights_HQL, mean_BHQ[cell].unsqueeze(-1), value=-1.0)
            torch.bmm(k[cell].transpose(-1, -2), ds_HQL.transpose(-1, -2), out=dq_BHKQ[cell])
            torch.bmm(q[cell].transpose(-1, -2), ds_HQL, out=dk_BHKL[cell])
        shaped = (x.transpose(-1, -2) for x in (dq_BHKQ.mul_(ctx.scale), dk_BHKL.mul_(ctx.scale), dv_BHKL))
        return (*shaped, None, None, None, None)


def explicit_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scale: float,
    dropout: float,
) -> torch.Tensor:
    """Return attention outputs (B, H, Q, K) on a CPU, with gradients towards queries, keys and values.

    Parameters
    ----------
    q, k, v
        Queries (B, H, Q, K), keys and values (B, H, L, K), of one dtype.
    bias
        Added to the scaled scores of every cell, (H, Q, L); no gradient is computed for it.
    mask
        Which keys are real, bool (B, L); None where all are.
    scale
        Of the scores.
    dropout
        Chance of a weight to be dropped; 0 outside training.
    """
    y: torch.Tensor = _Attention.apply(q, k, v, bias, None if mask is None else ~mask, scale, dropout)
    return y
