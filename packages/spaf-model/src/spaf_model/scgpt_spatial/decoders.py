"""Decoders that ask the state of a cell for genes, and outputs as counts. Shapes are named as in `layers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from spaf_model.scgpt_spatial.config import ScGPTSpatialConfig


class CellDecoder(nn.Module):
    """A number for a gene and a cell: the product of a query of the gene with the state of the cell.

    The query is the sigmoid of a linear map of the gene's vector; `match` takes it to the width of the state and its
    technology. Read from the other side, `match` takes the state to the width of the query, once a cell: that is how it
    is computed, so that many genes cost little.
    """

    def __init__(self, config: ScGPTSpatialConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.width, config.width)
        self.match = nn.Linear(config.width, config.decoder_width, bias=False)

    def queries(self, gene_vectors: torch.Tensor) -> torch.Tensor:
        """Return the queries (..., D) of genes from their vectors (..., D)."""
        return torch.sigmoid(self.query(gene_vectors))

    def keys(self, states_BD: torch.Tensor, technology_states_BD: torch.Tensor | None) -> torch.Tensor:
        """Return what queries are multiplied with, (B, D), of the states of cells."""
        if technology_states_BD is not None:
            states_BD = torch.cat([states_BD, technology_states_BD], dim=1)
        return F.linear(states_BD, self.match.weight.t())

    def forward(
        self, states_BD: torch.Tensor, gene_vectors: torch.Tensor, technology_states_BD: torch.Tensor | None
    ) -> torch.Tensor:
        """Return numbers (B, G).

        Parameters
        ----------
        states_BD
            Of the cells.
        gene_vectors
            (G, D) for the same genes in every cell, or (B, G, D) for other genes in each.
        technology_states_BD
            Of the cells; None where the model has no technologies.
        """
        keys_BD = self.keys(states_BD, technology_states_BD)
        queries = self.queries(gene_vectors)
        if queries.ndim == 2:
            return keys_BD @ queries.t()
        return (queries @ keys_BD.unsqueeze(-1)).squeeze(-1)


class Discriminator(nn.Module):
    """Logits of technologies from the state of a cell: two hidden layers of width D with ReLU and LayerNorm."""

    def __init__(self, config: ScGPTSpatialConfig) -> None:
        super().__init__()
        assert config.n_technologies
        hidden = [[nn.Linear(config.width, config.width), nn.ReLU(), nn.LayerNorm(config.width)] for _ in range(2)]
        self.layers = nn.Sequential(*hidden[0], *hidden[1], nn.Linear(config.width, config.n_technologies))

    def forward(self, states_BD: torch.Tensor) -> torch.Tensor:
        """Return logits (B, T)."""
        logits: torch.Tensor = self.layers(states_BD)
        return logits


class CountOutput(nn.Module):
    """Counts of genes as negative binomials around what a decoder says.

    The mean of gene g in cell c is

        N_c exp(x_cg + b_g + s_t)

    with N_c the counts over the measured genes of the cell, x the number of a decoder, b_g a rate of the gene and s_t a
    scale of the technology; the variance is mean + mean^2 exp(-r_g), with a dispersion of the gene. A gene that is not
    measured takes part in neither N_c nor a likelihood.
    """

    def __init__(self, config: ScGPTSpatialConfig) -> None:
        super().__init__()
        assert config.n_tokens is not None
        self.log_rate = nn.Parameter(torch.zeros(config.n_tokens))
        self.log_inverse_dispersion = nn.Parameter(torch.zeros(config.n_tokens))
        self.technology_scale = nn.Parameter(torch.zeros(config.n_technologies)) if config.n_technologies else None

    @torch.no_grad()
    def start_from(self, rates: torch.Tensor) -> None:
        """Set the rates of genes to shares of the counts, (n_tokens,), above 0 where known."""
        known = rates > 0
        self.log_rate[known] = rates[known].log().to(self.log_rate)

    def log_means(
        self, numbers: torch.Tensor, ids: torch.Tensor, totals_B: torch.Tensor, technologies_B: torch.Tensor
    ) -> torch.Tensor:
        """Return logarithms of means, of numbers (B, G), token ids (G,) or (B, G), and the counts of the cells."""
        scale_B1 = totals_B.clamp(min=1.0).log().unsqueeze(-1)
        return numbers.float() + self.log_shares(ids, technologies_B) + scale_B1

    def log_shares(self, ids: torch.Tensor, technologies_B: torch.Tensor) -> torch.Tensor:
        """Return logarithms of the shares of genes (G,) or (B, G) before any cell is looked at, (B, G)."""
        shares = self.log_rate[ids]
        if self.technology_scale is not None:
            return shares + self.technology_scale[technologies_B].unsqueeze(-1)
        return shares.expand(technologies_B.numel(), ids.shape[-1])

    def loss(self, log_means: torch.Tensor, ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Return the negative logarithm of the likelihood of counts, element by element, in nats."""
        inverse = self.log_inverse_dispersion[ids].clamp(-10.0, 10.0)
        # log(r + m) - log r, where r is the inverse dispersion, without the difference of two large numbers.
        excess = F.softplus(log_means - inverse)
        r = inverse.exp()
        combinations = torch.lgamma(counts + r) - torch.lgamma(r) - torch.lgamma(counts + 1.0)
        return r * excess - counts * (log_means - inverse - excess) - combinations
