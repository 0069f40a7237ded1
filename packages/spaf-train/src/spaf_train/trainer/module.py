"""The network with its objectives: from a batch to the total loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spaf_train.objectives import OBJECTIVES, Objective, ObjectiveSet, ObjectiveWeighting

if TYPE_CHECKING:
    from spaf_model import Network, TrainableBatch
    from spaf_train.stream.batch import Batch


class TrainingModule(nn.Module):
    """A network, its objectives and the learned scales between them.

    Parameters
    ----------
    network
        What is trained.
    objectives
        What it is trained for.
    """

    def __init__(self, network: Network[Any], objectives: ObjectiveSet) -> None:
        super().__init__()
        self.network = network
        self.objectives = objectives.make()
        self.weighting = ObjectiveWeighting(objectives.enabled, objectives.weighting.method)

    @property
    def counted(self) -> list[tuple[str, str]]:
        """Objective and column of what `forward` counts beside the losses, in its order."""
        return [(name, column) for name, objective in self.objectives.items() for column in objective.counted]

    @property
    def all_used(self) -> bool:
        """Whether every part that is trained has a gradient: the head of an objective that is switched off has none."""
        heads = {head for head in _heads(OBJECTIVES.values()) if getattr(self.network, head, None) is not None}
        return heads <= _heads(self.objectives.values())

    def forward(
        self, batch: Batch, weights: Mapping[str, float], factors: Mapping[str, float], share: float
    ) -> tuple[Tensor, Tensor]:
        """Return what a batch adds to the total loss of its step.

        Parameters
        ----------
        batch
            One batch of the step, on the device of the network.
        weights
            What the summed loss of each objective is divided by: `Batch.weights`, summed over the whole step.
        factors
            Weight and schedule of each objective.
        share
            Part of the step that this batch is, for terms that belong to the step as a whole.

        Returns
        -------
        tuple
            The total to differentiate, and a detached vector: the summed loss of each enabled objective, then what
            is `counted`.
        """
        hidden = encode(self.network, batch.masked, batch.parts)
        losses = {
            name: objective.loss(self.network, hidden, batch.targets[name], batch.masked)
            for name, objective in self.objectives.items()
        }
        parts = {name: loss.sum / max(weights[name], 1.0) for name, loss in losses.items()}
        total = self.weighting(parts, factors, share)
        noted = [loss.sum for loss in losses.values()] + [one for loss in losses.values() for one in loss.counted]
        return total, torch.stack([value.detach().to(torch.float32) for value in noted])


def _heads(objectives: Iterable[Objective | type[Objective]]) -> set[str]:
    """Return the parts of a network that objectives train alone."""
    return {part for objective in objectives for part in objective.trains}


def encode(network: Network[Any], batch: TrainableBatch, parts: Sequence[int] = ()) -> Tensor:
    """Return the hidden states of a batch; those at padding mean nothing.

    Parameters
    ----------
    network
        The network.
    batch
        Of its family, on its device.
    parts
        Rows that pass the network at once, each part with no more padding than it needs; none: all rows.
    """
    if not parts:
        return network.encode(batch)
    return batch.joined([network.encode(part) for part in batch.split(parts)])
