"""Running statistics of batch norms: they move once a step, by all that the step saw on all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spaf_model import MaskedBatchNorm, SpatialFormerNetwork

if TYPE_CHECKING:
    from spaf_train.trainer.distributed import Ranks


class RunningStatistics:
    """The running statistics of a network in training.

    Moved by each batch, they would forget the faster the more batches a step has on a process, and a step of eight
    batches would leave other statistics on one process than on eight. Here the batches of a step are added up, over all
    processes, and the statistics move once, as if the step had been one batch.

    Parameters
    ----------
    network
        Whose batch norms add up from now on.
    """

    def __init__(self, network: SpatialFormerNetwork) -> None:
        self._norms = batch_norms(network)
        for norm in self._norms:
            norm.gather_statistics()

    def move(self, ranks: Ranks | None = None) -> None:
        """End a step; every rank calls this.

        Parameters
        ----------
        ranks
            The processes that share the step; None where there is one.
        """
        if not self._norms:
            return
        sums = torch.stack([norm.gathered_statistics() for norm in self._norms])
        for norm, own in zip(self._norms, sums if ranks is None else ranks.sum(sums), strict=True):
            norm.move_statistics(own)

    def end(self) -> None:
        """Let the statistics of the network move with each batch again, as they do without this."""
        for norm in self._norms:
            norm.release_statistics()


def batch_norms(network: torch.nn.Module) -> list[MaskedBatchNorm]:
    """Return the batch norms of a network or of a part of it."""
    return [module for module in network.modules() if isinstance(module, MaskedBatchNorm)]
