"""Statistics of a network that training moves: once a step, by all that the step saw on all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spaf_model import StepStatistics

if TYPE_CHECKING:
    from torch import nn

    from spaf_train.trainer.distributed import Ranks


class RunningStatistics:
    """The running statistics of a network in training.

    Moved by each batch, they would forget the faster the more batches a step has on a process, and a step of eight
    batches would leave other statistics on one process than on eight. Here the batches of a step are added up, over all
    processes, and the statistics move once, as if the step had been one batch.

    Parameters
    ----------
    network
        Whose `StepStatistics`, such as batch norms, add up from now on.
    """

    def __init__(self, network: nn.Module) -> None:
        self._modules = step_statistics(network)
        for module in self._modules:
            module.gather_statistics()

    def move(self, ranks: Ranks | None = None) -> None:
        """End a step; every rank calls this.

        Parameters
        ----------
        ranks
            The processes that share the step; None where there is one.
        """
        if not self._modules:
            return
        own = [module.gathered_statistics() for module in self._modules]
        sums = torch.cat(own) if ranks is None else ranks.sum(torch.cat(own))
        for module, part in zip(self._modules, sums.split([part.numel() for part in own]), strict=True):
            module.move_statistics(part)

    def end(self) -> None:
        """Let the statistics of the network move with each batch again, as they do without this."""
        for module in self._modules:
            module.release_statistics()


def step_statistics(network: nn.Module) -> list[StepStatistics]:
    """Return the modules of a network, or of a part of it, with statistics of a step."""
    return [module for module in network.modules() if isinstance(module, StepStatistics)]
