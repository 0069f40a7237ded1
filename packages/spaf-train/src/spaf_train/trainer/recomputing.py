"""Activation checkpointing: the activations of a layer are computed again in the backward pass instead of kept."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from torch.utils.checkpoint import checkpoint

from spaf_train.trainer.running_statistics import step_statistics

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spaf_model import Network


def recompute_layers(network: Network[Any]) -> None:
    """Have each block of a network keep its input alone, and compute the rest again when gradients need it.

    Gradients are those of the network as it was, dropout included, at the price of a second forward pass; names of
    parameters and states do not change.
    """
    for layer in network.blocks():
        # On the instance, so that nothing is renamed; hooks of the module stand around it as before.
        layer.forward = functools.partial(_recomputed, layer.forward, layer)


def _recomputed(forward: Callable[..., Tensor], layer: nn.Module, x: Tensor, *arguments: Any) -> Tensor:
    result: Tensor = checkpoint(
        forward,
        x,
        *arguments,
        use_reentrant=False,
        context_fn=lambda: (contextlib.nullcontext(), _statistics_kept(layer)),
    )
    return result


@contextlib.contextmanager
def _statistics_kept(layer: nn.Module) -> Iterator[None]:
    """Count nothing for the running statistics: the first forward pass was counted."""
    modules = step_statistics(layer)
    for module in modules:
        module.counts = False
    try:
        yield
    finally:
        for module in modules:
            module.counts = True
