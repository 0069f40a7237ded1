"""The weights that new networks of tokens begin with."""

from __future__ import annotations

from torch import nn


def initialise(module: nn.Module) -> None:
    """Draw the weights of a linear map or a table; for `torch.nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        # The scale is lost in the LayerNorm that follows; a small one lets the tables learn at the pace of the rest.
        nn.init.normal_(module.weight, std=0.02)
