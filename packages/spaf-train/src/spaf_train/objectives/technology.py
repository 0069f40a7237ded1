"""The technology adversary: states of cells are to say nothing of the instrument. Off, as published."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spaf_train._checks import require, require_at_least
from spaf_train.objectives.base import Column, Loss, Objective, ObjectiveConfig, Scores, Total
from spaf_train.objectives.counts import require_known_technology

if TYPE_CHECKING:
    from spaf_model import ScGPTSpatialNetwork, ValueBatch
    from spaf_train.stream.samplers import SamplingConfig
    from spaf_train.stream.window import Draw


@dataclasses.dataclass(frozen=True, kw_only=True)
class TechnologyConfig(ObjectiveConfig):
    """How hard the states are driven away from what tells technologies."""

    reversal: float = 1.0  # factor of the reversed gradient on its way into the states

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("reversal", self.reversal, 0.0)


class _Reversed(torch.autograd.Function):
    """The same forward; the gradient times a negative factor backward (Ganin and Lempitsky 2015, arXiv:1409.7495)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradients[0], None


@dataclasses.dataclass(frozen=True)
class Technologies:
    """The technologies of the cells that are asked."""

    rows: Tensor  # int64 (n,)
    labels: Tensor  # int64 (n,)

    @property
    def weight(self) -> float:
        """What the summed loss of this batch is divided by: the number of cells."""
        return float(self.rows.numel())

    def to(self, device: torch.device) -> Technologies:
        """Return the same on another device."""
        return Technologies(self.rows.to(device), self.labels.to(device))


class _Scores(Scores):
    def __init__(self) -> None:
        self.right = 0.0
        self.cells = np.zeros(0)  # of each technology

    def add(self, loss: Loss, targets: Technologies) -> None:
        self.right += float((loss.answer.argmax(dim=1) == targets.labels).sum())
        counts = np.bincount(targets.labels.cpu().numpy(), minlength=loss.answer.shape[1])
        self.cells = self.cells + counts if self.cells.size else counts.astype(np.float64)

    def parts(self) -> tuple[float, NDArray[np.float64]]:
        return self.right, self.cells


@dataclasses.dataclass(frozen=True)
class _Hidden:
    """Whether the discriminator still tells technologies: what is to be learnt is that it does not."""

    accuracy: float
    commonest: float

    @property
    def learnt(self) -> bool:
        return self.accuracy < 0.5 * (1.0 + self.commonest)

    def sentence(self) -> str:
        return (
            f"States still tell the technology: on the validation split the discriminator is right for "
            f"{self.accuracy:.3f} of the cells, and naming the commonest technology for {self.commonest:.3f}."
        )


class TechnologyObjective(Objective):
    """Tell the technology from the state of a cell, while the states learn not to say it.

    The head learns by cross-entropy; into the encoder its gradient goes reversed.
    """

    name = "technology"
    title = "hiding the technology"
    columns = (
        Column(
            "loss_technology", "Technology from the cell, cross-entropy (nats)", "Technology", "cross-entropy (nat)"
        ),
        Column("accuracy_technology", "Technology from the cell, accuracy (low is wanted)", "Technology", "share"),
    )
    Config = TechnologyConfig
    asks = ("technology_logits", "discriminator")
    trains = ("discriminator",)

    def check(self, model: Any, sampling: SamplingConfig) -> None:
        """Refuse a model without the head."""
        require_known_technology(self.name, model, sampling)
        require(bool(getattr(model, "discriminator", True)), "objectives.technology needs model.discriminator = true.")

    def targets(self, draw: Draw) -> Technologies:
        """Return the technologies of the cells that are asked."""
        rows = torch.from_numpy(np.flatnonzero(draw.inputs.asked))
        return Technologies(rows, draw.tokens.technologies[rows])

    def loss(self, network: ScGPTSpatialNetwork, hidden: Tensor, targets: Technologies, batch: ValueBatch) -> Loss:
        """Return the cross-entropy, with the gradient of the states reversed."""
        states = network.pool(hidden, batch, "cls")[targets.rows]
        reversed_states: Tensor = _Reversed.apply(states, self.config.reversal)
        logits = network.technology_logits(reversed_states).float()
        return Loss(functional.cross_entropy(logits, targets.labels, reduction="sum"), targets.weight, logits)

    def new_scores(self) -> Scores:
        """Return what counts right answers."""
        return _Scores()

    def judge(self, total: Total, parts: Sequence[Any]) -> tuple[dict[str, float], _Hidden]:
        """Return the accuracy, beside that of naming the commonest technology."""
        right, cells = zip(*parts, strict=True)
        counted = np.sum([own for own in cells if own.size], axis=0)
        accuracy = sum(right) / total.weight
        return {"accuracy_technology": accuracy}, _Hidden(accuracy, float(counted.max() / counted.sum()))
