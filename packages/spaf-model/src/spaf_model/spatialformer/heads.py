"""Heads that tell which genes of a cell are co-localised.

``symmetric`` (for new models) has one projection P and a weight w for each of its dimensions,
``logit[i, j] = sum_r w_r (P h_i)_r (P h_j)_r + b``: as symmetric as its target, able to be negative on the diagonal,
and with a bias, because co-localised pairs are rare. ``bilinear`` (published v2) has two projections,
``(P h_i) . (Q h_j)``.
``additive`` (published v1) is a linear map of [h_i ; h_j], which is a sum of a term of i and a term of j.
"""

from __future__ import annotations

import torch
from torch import nn

from spaf_model.config import SpatialFormerConfig


class SymmetricColocalization(nn.Module):
    """Weighted inner product under one shared projection, plus a bias."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, rank, bias=False)
        # Weights of both signs: with positive ones alone a gene would always look co-localised with itself.
        signs = 1.0 - 2.0 * (torch.arange(rank) % 2)
        self.weight = nn.Parameter(signs * rank**-0.5)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits (B, L, L) of hidden (B, L, D)."""
        p = self.project(hidden)
        return torch.matmul(p * self.weight, p.transpose(-1, -2)) + self.bias


class BilinearColocalization(nn.Module):
    """Inner product of two projections."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.project_i = nn.Linear(width, rank, bias=False)
        self.project_j = nn.Linear(width, rank, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits (B, L, L) of hidden (B, L, D)."""
        return torch.matmul(self.project_i(hidden), self.project_j(hidden).transpose(-1, -2))


class AdditiveColocalization(nn.Module):
    """Linear map of the concatenation of two positions, without building the concatenations."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * width, 1, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits (B, L, L) of hidden (B, L, D)."""
        weight_i, weight_j = self.project.weight[0].chunk(2)
        return (hidden @ weight_i).unsqueeze(-1) + (hidden @ weight_j).unsqueeze(-2)


def colocalization_head(config: SpatialFormerConfig) -> nn.Module:
    """Make the co-localisation head of a configuration."""
    if config.colocalization_head == "symmetric":
        return SymmetricColocalization(config.width, config.colocalization_rank)
    if config.colocalization_head == "bilinear":
        return BilinearColocalization(config.width, config.colocalization_rank)
    return AdditiveColocalization(config.width)
