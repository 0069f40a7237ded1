"""A batch of a family with what each objective asks of it, and what gives batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from spaf_model import TrainableBatch
from spaf_train.objectives.base import Targets

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class Batch:
    """Inputs of one forward pass and the targets of the enabled objectives."""

    name: str  # where in the corpus and the run it is, for messages
    seed: int  # of whatever the network draws (dropout): a function of the run's seed and the place of the batch
    unmasked: TrainableBatch
    masked: TrainableBatch  # the same as `unmasked` where nothing is hidden
    targets: Mapping[str, Targets]  # by the name of the objective
    parts: tuple[int, ...] = ()  # rows that pass the network at once, one part after the other; none: all rows

    def weights(self) -> dict[str, float]:
        """Return what the summed loss of each objective is divided by."""
        return {name: target.weight for name, target in self.targets.items()}

    @property
    def n_tokens(self) -> int:
        """Number of tokens, padding not counted."""
        return self.unmasked.n_tokens

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        if device.type == "cpu":
            return self
        return dataclasses.replace(
            self,
            unmasked=self.unmasked.to(device),
            masked=self.masked.to(device),
            targets={name: target.to(device) for name, target in self.targets.items()},
        )


class Stream(Protocol):
    """Batches of a split, step after step: `BatchStream`, or what a task of its own makes of its cells."""

    @property
    def batches_per_step(self) -> int:
        """Batches of a step over all processes."""

    @property
    def within_budget(self) -> bool:
        """Whether every batch passes the network at once."""

    def next_step(self) -> list[Batch]:
        """Return this process's batches of the next step."""

    def skip_step(self) -> None:
        """Pass over the next step."""

    def one_epoch(self, epoch: int = 0, *, max_inputs: int | None = None) -> Iterator[Batch]:
        """Yield this process's batches of one epoch, from its beginning."""

    def state_dict(self) -> dict[str, int]:
        """Return the place of the next batch."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a place that `state_dict` gave."""
