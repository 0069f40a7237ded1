"""Self-attention with a symmetric ALiBi bias over the ranks."""

from __future__ import annotations

import torch
from torch import nn

from spaf_model.config import SpatialFormerConfig
from spaf_model.kernels import attend, attention_weights
from spaf_model.spatialformer.sequences import SequenceContext


class SelfAttention(nn.Module):
    """Self-attention whose qkv rows are laid out as [q|k|v][head][dim].

    Shapes: B sequences, L positions, H heads, K dimensions a head, D = H K.
    """

    def __init__(self, config: SpatialFormerConfig) -> None:
        super().__init__()
        assert config.attention_scale is not None
        self.n_heads = config.n_heads
        self.scale = config.attention_scale
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.project = nn.Linear(config.width, config.width)

    def _split(self, x_BLD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        n_cells, length, width = x_BLD.shape
        qkv = self.qkv(x_BLD).view(n_cells, length, 3, self.n_heads, width // self.n_heads)
        q_BHLK, k_BHLK, v_BHLK = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q_BHLK, k_BHLK, v_BHLK

    def forward(self, x_BLD: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """Attend within each sequence."""
        q_BHLK, k_BHLK, v_BHLK = self._split(x_BLD)
        y_BHLK = attend(
            context.kernel.name,
            q_BHLK,
            k_BHLK,
            v_BHLK,
            context.bias,
            scale=self.scale,
            dropout=self.dropout if self.training else 0.0,
        )
        y_BLD = self.project(y_BHLK.transpose(1, 2).reshape(x_BLD.shape))
        assert isinstance(y_BLD, torch.Tensor)
        return y_BLD

    def weights(self, x_BLD: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """Return the attention weights (B, H, L, L); 0 towards padding."""
        q_BHLK, k_BHLK, _ = self._split(x_BLD)
        return attention_weights(q_BHLK, k_BHLK, context.bias, scale=self.scale)
