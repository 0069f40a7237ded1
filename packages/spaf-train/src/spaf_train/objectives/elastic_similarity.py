"""Elastic similarity: states of cells are driven to be alike or apart, away from a threshold. Off, as published."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from spaf_train._checks import require
from spaf_train.objectives.base import Column, Loss, Objective, ObjectiveConfig, Scores, Total

if TYPE_CHECKING:
    from spaf_model import Network
    from spaf_train.stream.window import Draw


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElasticSimilarityConfig(ObjectiveConfig):
    """Which similarity cells are driven away from, and the weight of it."""

    threshold: float = 0.8  # cosine

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0.0 <= self.threshold <= 1.0, f"threshold must be from 0 to 1, not {self.threshold}.")


@dataclasses.dataclass(frozen=True)
class PairsOfCells:
    """The cells of a batch that are compared."""

    rows: Tensor  # int64 (n,)

    @property
    def weight(self) -> float:
        """What the summed loss of this batch is divided by: the pairs of two different cells."""
        return float(self.rows.numel() * (self.rows.numel() - 1))

    def to(self, device: torch.device) -> PairsOfCells:
        """Return the same on another device."""
        return PairsOfCells(self.rows.to(device))


class _Scores(Scores):
    def add(self, loss: Loss, targets: PairsOfCells) -> None:
        pass

    def parts(self) -> None:
        return None


@dataclasses.dataclass(frozen=True)
class _NoVerdict:
    learnt: bool = True

    def sentence(self) -> str:
        return ""


class ElasticSimilarityObjective(Objective):
    """The mean over pairs of cells of ``1 - (max(cos, 0) - threshold)^2``.

    A term that shapes states and learns nothing that could be judged: it has no baseline and no verdict.
    """

    name = "elastic_similarity"
    title = "elastic similarity"
    columns = (Column("loss_elastic_similarity", "Elastic similarity of cells, loss", "Elastic similarity", "loss"),)
    Config = ElasticSimilarityConfig

    def targets(self, draw: Draw) -> PairsOfCells:
        """Return the cells that are asked."""
        return PairsOfCells(torch.from_numpy(np.flatnonzero(draw.inputs.asked)))

    def loss(self, network: Network[Any], hidden: Tensor, targets: PairsOfCells, batch: Any) -> Loss:
        """Return the sum over ordered pairs of different cells."""
        states = functional.normalize(network.pool(hidden, batch, "cls")[targets.rows].float(), dim=1)
        cosines = (states @ states.t()).relu()
        terms = 1.0 - (cosines - self.config.threshold).square()
        return Loss(terms.sum() - terms.diagonal().sum(), targets.weight, cosines.detach())

    def new_scores(self) -> Scores:
        """Return nothing to add up."""
        return _Scores()

    def judge(self, total: Total, parts: Sequence[Any]) -> tuple[dict[str, float], _NoVerdict]:
        """Return no column beside the loss."""
        return {}, _NoVerdict()
