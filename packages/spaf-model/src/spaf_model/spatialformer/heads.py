"""Heads that tell which cells are neighbours and which genes of a cell are co-localised, and those of the state.

Cell pairs: a model that reads two cells as one sequence has a linear map of CLS (published). One that reads each cell
alone compares their two states with `SeparatePairs`, or their cosine on the slide with `CosinePairs`.

State of a cell: `LinearPath` adds principal components of all its gene values to it, `contrast_projection` is where
contrast acts so that it need not change the state itself, and `decoder` gives the values back.

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
from torch.nn import functional

if TYPE_CHECKING:
    from spaf_model.spatialformer.config import SpatialFormerConfig

_FIRST_GAIN = 0.3  # of the layers beside the linear path


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


class CosinePairs(nn.Module):
    """The cosine of the states of two cells, each less the mean of its slide, and what it says of their probability.

    Nothing stands between the embedding and the comparison: ``slope * cosine + offset`` is the logit that two cells are
    neighbours. States are centred before they come here (`spaf_model.spatialformer.values.centred_by_slide`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((), 5.0))
        self.offset = nn.Parameter(torch.zeros(()))

    def similarity(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return the cosines (n, m) of all centred states left (n, D) with all right (m, D)."""
        return torch.matmul(functional.normalize(left, dim=-1), functional.normalize(right, dim=-1).transpose(-1, -2))

    def calibrate(self, similarity: torch.Tensor) -> torch.Tensor:
        """Return the logit of being neighbours at a cosine."""
        return self.slope * similarity + self.offset

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 2) of the pairs of centred states, (n, D) each; class 1 means neighbours."""
        neighbours = self.calibrate(functional.cosine_similarity(left, right, dim=-1))
        return torch.stack([torch.zeros_like(neighbours), neighbours], dim=-1)


class LinearPath(nn.Module):
    """Principal components of the values of all genes, beside what the layers make of a cell.

    ``state = gain * hidden + W (loadings' profile)``: the loadings are fitted once, on the training cells, and fixed; W
    begins as an isometry and the gain small, so that training begins with principal components.
    """

    loadings: torch.Tensor

    def __init__(self, n_tokens: int, rank: int, width: int) -> None:
        super().__init__()
        self.register_buffer("loadings", torch.zeros(n_tokens, rank))
        self.project = nn.Linear(rank, width, bias=False)
        self.gain = nn.Parameter(torch.full((width,), _FIRST_GAIN))

    def forward(self, hidden: torch.Tensor, profile: torch.Tensor) -> torch.Tensor:
        """Return states (B, D) of those of the layers and the profiles (B, n_tokens) of the same cells."""
        with torch.autocast(hidden.device.type, enabled=False):
            components = profile.float() @ self.loadings
            state: torch.Tensor = self.gain * hidden.float() + self.project(components)
        return state.to(hidden.dtype)


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
    if config.pair_input == "joint":
        return nn.Linear(config.width, 2, bias=False)
    return CosinePairs() if config.pair_comparison == "cosine" else SeparatePairs(config.width, config.pair_rank)


def contrast_projection(config: SpatialFormerConfig) -> nn.Module | None:
    """Make the projection that contrast alone acts on; None where it acts on that of the pair head."""
    if not config.contrast_rank:
        return None
    return nn.Sequential(
        nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, config.contrast_rank)
    )


def linear_path(config: SpatialFormerConfig) -> LinearPath | None:
    """Make the linear path of a configuration, with loadings of 0 until they are fitted; None where it has none."""
    assert config.n_tokens is not None
    return LinearPath(config.n_tokens, config.linear_path, config.width) if config.linear_path else None


def decoder(config: SpatialFormerConfig) -> nn.Module | None:
    """Make the decoder of a cell's values from its state; None where the configuration has none."""
    if not config.decoder_width:
        return None
    assert config.n_tokens is not None
    return nn.Sequential(
        nn.Linear(config.width, config.decoder_width), nn.GELU(), nn.Linear(config.decoder_width, config.n_tokens)
    )


def colocalization_head(config: SpatialFormerConfig) -> nn.Module:
    """Make the co-localisation head of a configuration."""
    if config.colocalization_head == "symmetric":
        return SymmetricColocalization(config.width, config.colocalization_rank)
    if config.colocalization_head == "bilinear":
        return BilinearColocalization(config.width, config.colocalization_rank)
    return AdditiveColocalization(config.width)
