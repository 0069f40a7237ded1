"""What the neighbours of a cell were seen to have, joined with what the decoder of neighbourhoods says.

Of gene g in cell c, with weights w_cj of the neighbours j (a Gaussian of the distance, whose width is learnt or given),
their counts n_jg and totals N_j, and the share p_g of the gene on the slide without the cell:

    o_cg  =  (e s_cg + k p_g) / (e + k),      s_cg = sum_j w_cj n_jg / sum_j w_cj N_j,      e = 1 / sum_j w_cj^2
    log share of g in c  =  log p_g + a_g (log o_cg - log p_g) + (1 - a_g) x_cg

`e` is how many neighbours the weights amount to, and k how many the mean of the slide is worth beside them. x is what
the decoder adds, of states less the mean state of the slide and without a technology, and the gate a is learnt by gene,
with a shift of the technology. So the level of a gene is that of the slide, which a decoder cannot know of a slide that
it has not seen. A gene that the slide does not measure has the rate that the model knows, and what the decoder adds to
that.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from spaf_model.scgpt_spatial.config import ScGPTSpatialConfig

FIRST_GATE = 1.0  # logit: what was seen begins with a weight of .73
# A step of Adam moves a number by about the learning rate, whatever its gradient. These few have far to go, and are
# kept divided by this, so that they go as much faster than the weights of matrices.
PACE = 5.0
FIRST_PRIOR = 1.0  # neighbours


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """Counts around some cells (n) and on their slides, for some genes (G)."""

    counts: torch.Tensor  # float32 (n, G), of the neighbours, weighted; weights add up to 1
    totals: torch.Tensor  # float32 (n,), counts of all measured genes of the model in them, weighted alike
    n_effective: torch.Tensor  # float32 (n,), 1 / sum of the squared weights; 0 where there is no neighbour
    of_slide: torch.Tensor  # float32 (n, G), counts on the slide without the cell
    slide_totals: torch.Tensor  # float32 (n,), of all measured genes of the model
    measured: torch.Tensor  # bool (G,) or (n, G), whether the slide measures the gene

    @classmethod
    def of_weights(
        cls,
        weights: torch.Tensor,
        counts: torch.Tensor,
        totals: torch.Tensor,
        of_slide: torch.Tensor,
        slide_totals: torch.Tensor,
        measured: torch.Tensor,
    ) -> Surroundings:
        """Return what is around cells, of weights (n, U) of other cells with counts (U, G) and totals (U,)."""
        squares = weights.square().sum(dim=1)
        n_effective = (squares > 0) / squares.clamp(min=torch.finfo(torch.float32).tiny)
        return cls(weights @ counts, weights @ totals, n_effective, of_slide, slide_totals, measured)


class NeighbourMix(nn.Module):
    """The gate between what is seen around a cell and what the decoder says, and the width of what is seen."""

    log_width: torch.Tensor

    def __init__(self, config: ScGPTSpatialConfig) -> None:
        super().__init__()
        assert config.n_tokens is not None
        n_technologies = max(config.n_technologies or 0, 1)
        log_width = torch.full((n_technologies,), math.log(config.neighbour_width) / PACE)
        if config.neighbour_mix == "learnt":
            self.log_width = nn.Parameter(log_width)
        else:
            self.register_buffer("log_width", log_width)
        self.log_prior = nn.Parameter(torch.full((n_technologies,), math.log(FIRST_PRIOR) / PACE))
        self.gate = nn.Parameter(torch.full((config.n_tokens,), FIRST_GATE / PACE))
        self.technology_gate = nn.Parameter(torch.zeros(n_technologies))

    def widths(self, technologies_N: torch.Tensor) -> torch.Tensor:
        """Return the width of each cell, (N,), in mean distances of its six nearest."""
        return (PACE * self.log_width).exp()[self._rows(technologies_N)]

    def weights(self, distances_NK: torch.Tensor, technologies_N: torch.Tensor) -> torch.Tensor:
        """Return weights (N, K) that add up to 1, or are all 0 where a cell has no neighbour.

        Parameters
        ----------
        distances_NK
            Of the neighbours, in the mean distance of the six nearest; infinite where there is none.
        technologies_N
            Rows of the technology table.
        """
        there = distances_NK.isfinite()
        relative = distances_NK.masked_fill(~there, 0.0) / self.widths(technologies_N).unsqueeze(1)
        exponents = -0.5 * relative.square()
        # However narrow the width, the nearest neighbour has a weight.
        nearest = exponents.masked_fill(~there, -math.inf).amax(dim=1, keepdim=True)
        exponents = exponents - nearest.masked_fill(~nearest.isfinite(), 0.0)
        weights = exponents.clamp(max=0.0).exp() * there
        return weights / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)

    def forward(
        self,
        numbers_NG: torch.Tensor,
        around: Surroundings,
        ids: torch.Tensor,
        technologies_N: torch.Tensor,
        log_rates_NG: torch.Tensor,
    ) -> torch.Tensor:
        """Return numbers (N, G) beside the rate of the gene, as those of a decoder alone are.

        Parameters
        ----------
        numbers_NG
            Of the decoder.
        around
            What is around the cells.
        ids
            Token ids of the genes, (G,) or (N, G).
        technologies_N
            Rows of the technology table.
        log_rates_NG
            The shares of genes that the model knows, as logarithms.
        """
        rows = self._rows(technologies_N)
        prior_N1 = (PACE * self.log_prior).exp()[rows].unsqueeze(1)
        # One count of the known rates, so that a gene that the rest of the slide does not have is no impossible one.
        share_NG = (around.of_slide + log_rates_NG.exp()) / (around.slide_totals + 1.0).unsqueeze(1)
        around_NG = around.counts / around.totals.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1)
        n_N1 = (around.n_effective * (around.totals > 0)).unsqueeze(1)
        seen_NG = (n_N1 * around_NG + prior_N1 * share_NG) / (n_N1 + prior_N1)
        gate_NG = torch.sigmoid(PACE * (self.gate[ids] + self.technology_gate[rows].unsqueeze(1)))
        log_share_NG = share_NG.log()
        mixed_NG = log_share_NG + gate_NG * (seen_NG.log() - log_share_NG) + (1.0 - gate_NG) * numbers_NG.float()
        return torch.where(around.measured, mixed_NG - log_rates_NG, numbers_NG.float())

    def _rows(self, technologies_N: torch.Tensor) -> torch.Tensor:
        return technologies_N if self.log_width.numel() > 1 else torch.zeros_like(technologies_N)
