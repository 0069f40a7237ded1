"""From token ids and types to vectors."""

from __future__ import annotations

import torch
from torch import nn

from spaf_model.config import SpatialFormerConfig
from spaf_model.dropout import Dropout

N_TYPES = 3  # padding, first cell, second cell


class TokenEmbedding(nn.Module):
    """Sum of the tables over tokens, types and (optionally) pre-trained gene vectors; dropout; LayerNorm."""

    def __init__(self, config: SpatialFormerConfig) -> None:
        super().__init__()
        assert config.n_tokens is not None
        self.tokens = nn.Embedding(config.n_tokens, config.width)
        self.types = nn.Embedding(N_TYPES, config.width)
        self.types.weight.requires_grad_(config.train_type_embedding)
        self.gene_spatial = nn.Embedding(config.n_tokens, config.width) if config.gene_spatial_embedding else None
        self.dropout = Dropout(config.embedding_dropout)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, ids: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """Embed ids and types (B, L) as (B, L, D)."""
        x = self.tokens(ids) + self.types(types)
        if self.gene_spatial is not None:
            x = x + self.gene_spatial(ids)
        x = self.norm(self.dropout(x))
        assert isinstance(x, torch.Tensor)
        return x
