"""The network with its objectives: from a batch to the total loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaf_model import SpatialFormerNetwork, TokenBatch
from spaf_train.objectives import ObjectiveSet, ObjectiveWeighting

if TYPE_CHECKING:
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

    def __init__(self, network: SpatialFormerNetwork, objectives: ObjectiveSet) -> None:
        super().__init__()
        self.network = network
        self.objectives = objectives.make()
        self.weighting = ObjectiveWeighting(objectives.enabled, objectives.weighting.method)

    @property
    def counted(self) -> list[tuple[str, str]]:
        """Objective and column of what `forward` counts beside the losses, in its order."""
        return [(name, column) for name, objective in self.objectives.items() for column in objective.counted]

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
            name: objective.loss(self.network, hidden, batch.targets[name])
            for name, objective in self.objectives.items()
        }
        parts = {name: loss.sum / max(weights[name], 1.0) for name, loss in losses.items()}
        total = self.weighting(parts, factors, share)
        noted = [loss.sum for loss in losses.values()] + [one for loss in losses.values() for one in loss.counted]
        return total, torch.stack([value.detach().to(torch.float32) for value in noted])


def encode(network: SpatialFormerNetwork, tokens: TokenBatch, parts: Sequence[int] = ()) -> Tensor:
    """Return the hidden states (B, L, D) of a batch; those at padding mean nothing.

    Parameters
    ----------
    network
        The network.
    tokens
        The batch, on its device.
    parts
        Rows that pass the network at once, each part with no more padding than it needs; none: all rows.
    """
    if not parts:
        return network.encode(tokens)
    width = tokens.ids.shape[1]
    states = []
    for ids, types, lengths in zip(*(tensor.split(list(parts)) for tensor in _tensors(tokens)), strict=True):
        longest = int(lengths.sum(dim=1).max())
        hidden = network.encode(TokenBatch(ids=ids[:, :longest], types=types[:, :longest], lengths=lengths))
        states.append(functional.pad(hidden, (0, 0, 0, width - longest)))
    return torch.cat(states)


def _tensors(tokens: TokenBatch) -> tuple[Tensor, Tensor, Tensor]:
    return tokens.ids, tokens.types, tokens.lengths
