"""The gate of the convolution and of the MLP, and the MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from spaf_model.config import SpatialFormerConfig
from spaf_model.dropout import Dropout


def gate(x: torch.Tensor) -> torch.Tensor:
    """Return the first half of the last dimension times SiLU of the second."""
    value, control = x.chunk(2, dim=-1)
    if torch.is_grad_enabled():
        return value * F.silu(control)
    # Without gradients nothing needs the SiLU afterwards, so its memory, the widest there is, is used again.
    return F.silu(control).mul_(value)


class GatedMLP(nn.Module):
    """Linear, gate, dropout, linear."""

    def __init__(self, config: SpatialFormerConfig) -> None:
        super().__init__()
        hidden = config.mlp_expansion * config.width
        self.expand = nn.Linear(config.width, hidden)
        self.dropout = Dropout(config.mlp_dropout)
        self.project = nn.Linear(hidden // 2, config.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform each position of x (..., D)."""
        x = self.project(self.dropout(gate(self.expand(x))))
        assert isinstance(x, torch.Tensor)
        return x
