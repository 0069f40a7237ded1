"""Heads that tell which cells are neighbours and which genes of a cell are co-localised.

Cell pairs: a model that reads two cells as one sequence has a linear map of CLS (published). One that reads each cell
alone compares their two states with `SeparatePairs`.

Gene pairs: three heads.

``symmetric`` (for new models) has one projection P and a weight w for each of its dimensions,
``logit[i, j] = sum_r w_r (P h_i)_r (P h_j)_r + b``: as symmetric as its target, able to be negative on the diagonal,
and with a bias, because co-localised pairs are rare. ``bilinear`` (published v2) has two projections,
``(P h_i) . (Q h_j)``.
``additive`` (published v1) is a linear map of [h_i ; h_j], which is a sum of a term of i and a term of j.

Shapes are named as in `layers`; R is the rank of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from spaf_model.spatialformer.config import SpatialFormerConfig


class SeparatePairs(nn.Module):
    """Compare the states of two cells that were read apart, symmetrically.

    With z = P h, the logit that two cells are neighbours is ``slope * sum_r w_r z_r z'_r + offset``. The sum alone is
    what contrastive training ranks cells by; slope and offset make a probability of it.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, rank)
        self.weight = nn.Parameter(torch.full((rank,), rank**-0.5))
        self.slope = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.zeros(()))

    def similarity(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return the weighted inner products (n, m) of all states left (n, D) with all states right (m, D)."""
        return torch.matmul(self.project(left) * self.weight, self.project(right).transpose(-1, -2))

    def calibrate(self, similarity: torch.Tensor) -> torch.Tensor:
        """Return the logit of being neighbours at a similarity."""
        return self.slope * similarity + self.offset

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 2) of the pairs of states left (n, D) and right (n, D); class 1 means neighbours."""
        similarity = (self.project(left) * self.project(right) * self.weight).sum(dim=-1)
        neighbours = self.calibrate(similarity)
        return torch.stack([torch.zeros_like(neighbours), neighbours], dim=-1)


class SymmetricColocalization(nn.Module):
    """Weighted inner product under one shared projection, plus a bias."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, rank, bias=False)
        # Weights of both signs: with positive ones alone a gene would always look co-localised with itself.
        signs = 1.0 - 2.0 * (torch.arange(rank) % 2)
        self.weight = nn.Parameter(signs * rank**-0.5)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """Return logits (B, L, L) of hidden states."""
        p_BLR = self.project(x_BLD)
        return torch.matmul(p_BLR * self.weight, p_BLR.transpose(-1, -2)) + self.bias


class BilinearColocalization(nn.Module):
    """Inner product of two projections."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.project_i = nn.Linear(width, rank, bias=False)
        self.project_j = nn.Linear(width, rank, bias=False)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """Return logits (B, L, L) of hidden states."""
        return torch.matmul(self.project_i(x_BLD), self.project_j(x_BLD).transpose(-1, -2))


class AdditiveColocalization(nn.Module):
    """Linear map of the concatenation of two positions, without building the concatenations."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * width, 1, bias=False)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """Return logits (B, L, L) of hidden states."""
        weight_i, weight_j = self.project.weight[0].chunk(2)
        return (x_BLD @ weight_i).unsqueeze(-1) + (x_BLD @ weight_j).unsqueeze(-2)


def pair_head(config: SpatialFormerConfig) -> nn.Module:
    """Make the cell-pair head of a configuration."""
    if config.pair_input == "separate":
        return SeparatePairs(config.width, config.pair_rank)
    return nn.Linear(config.width, 2, bias=False)


def colocalization_head(config: SpatialFormerConfig) -> nn.Module:
    """Make the co-localisation head of a configuration."""
    if config.colocalization_head == "symmetric":
        return SymmetricColocalization(config.width, config.colocalization_rank)
    if config.colocalization_head == "bilinear":
        return BilinearColocalization(config.width, config.colocalization_rank)
    return AdditiveColocalization(config.width)
