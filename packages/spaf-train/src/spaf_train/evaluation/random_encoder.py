"""A model of the same shape with random weights: what architecture and input alone are worth."""

from __future__ import annotations

import copy
from typing import Any

import torch

from spaf_model import InputError, Model


def random_twin(model: Model[Any, Any], seed: int = 0) -> Model[Any, Any]:
    """Return a model of the same family, configuration and vocabulary with random weights, on the same device.

    Where a family can make a network, it makes one from another seed. Of one whose weights are fitted in closed form,
    each matrix is drawn from a normal distribution with the standard deviation of its own; vectors stay.
    """
    try:
        twin = type(model)(model.config, model.vocabulary, seed=seed)
    except InputError:
        twin = _redrawn(model, seed)
    twin.source = f"random weights in the shape of {model.source}"
    twin.network.eval()
    return twin.to(model.network.device)


def _redrawn(model: Model[Any, Any], seed: int) -> Model[Any, Any]:
    twin = copy.copy(model)
    twin.network = copy.deepcopy(model.network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in twin.network.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim > 1 and tensor.numel() > 1:
                drawn = torch.randn(tensor.shape, generator=generator) * float(tensor.float().std())
                tensor.copy_(drawn.to(tensor))
    return twin
