"""Distillation: a model learns the similarities of small networks that know the tissue already."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spaf_model import SeparatePairs
from spaf_train.objectives.base import Column, Loss, Objective, Scores, Total
from spaf_train.objectives.chance import Judgement
from spaf_train.objectives.contrast import cell_states, require_separate, separate_head
from spaf_train.objectives.towers import Standardised, TowersConfig, states_beside, tower_states, train_tower

if TYPE_CHECKING:
    from spaf_model import SpatialFormerNetwork, TokenBatch
    from spaf_train.stream.loader import BatchStream
    from spaf_train.stream.samplers import SamplingConfig
    from spaf_train.stream.window import Draw
    from spaf_train.trainer.signals import StopRequest


@dataclasses.dataclass(frozen=True)
class TeacherStates:
    """The states of the cells of a batch as towers see them."""

    states: Tensor  # (B, rank)

    @property
    def weight(self) -> float:
        """What the squared distance is divided by: the spread of the states of the batch."""
        return float((self.states - self.states.mean(dim=0)).square().sum())

    def to(self, device: torch.device) -> TeacherStates:
        """Return the same on another device."""
        return TeacherStates(self.states.to(device))


class _Scores(Scores):
    def add(self, loss: Loss, targets: TeacherStates) -> None:
        pass

    def parts(self) -> None:
        return None


class DistillationObjective(Objective):
    """Be like towers: the projected states of the pair head become theirs, so that similarities do.

    The loss is the share of the variance of the towers' states that the model leaves unexplained.
    """

    name = "distillation"
    title = "the towers"
    columns = (
        Column("loss_distillation", "States of the towers, share unexplained", "Like the towers", "share unexplained"),
    )
    Config = TowersConfig
    asks = ("pair_head", "pair_logits_of_cells")

    def __init__(self, config: TowersConfig) -> None:
        super().__init__(config)
        self._states: Tensor | None = None

    def check(self, model: Any, sampling: SamplingConfig) -> None:
        """Refuse models that read two cells as one, and samplers that hold a part of the split at a time."""
        from spaf_train._checks import require
        from spaf_train.stream.samplers import SAMPLERS

        require_separate(self.name, model, sampling)
        require(
            getattr(model, "pair_comparison", "projection") == "projection",
            f"objectives.{self.name} needs model.pair_comparison = projection, which learns the towers' states.",
        )
        require(
            SAMPLERS[sampling.input].whole,
            f"objectives.{self.name} needs a sampler that holds the whole split, such as sampling.input = patches.",
        )

    def prepare(self, train: BatchStream, validation: BatchStream | None, stop: StopRequest) -> dict[str, Any]:
        """Train the towers, and return the states of the cells of both splits."""
        cells = train.all_cells()
        standardise = Standardised(cells, train.vocabulary.n_tokens)
        expression = standardise(cells)
        towers = []
        for number in range(self.config.towers):
            seed = train.seed * 1_000_003 + number
            towers.append(train_tower(train, expression, self.config, seed=seed, stop=stop))
            if stop.received:
                return {}
        found = tower_states(towers, expression, self.config.rank)
        prepared = {"signs": found.signs, "train": _by_number(train, found.states)}
        if validation is not None:
            others = states_beside(towers, standardise(validation.all_cells()), found)
            prepared["validation"] = _by_number(validation, others)
        return prepared

    def take(self, prepared: Mapping[str, Any], split: str) -> None:
        """Take over the states of the cells of a split."""
        self._states = prepared[split]

    def begin(self, network: SpatialFormerNetwork, prepared: Mapping[str, Any]) -> None:
        """Begin the pair head where the similarity of the towers is: a signed inner product."""
        weight = _projecting_head(network).weight
        signs = prepared["signs"][: weight.numel()]
        with torch.no_grad():
            weight.zero_()[: signs.numel()] = signs.to(weight.device)

    def targets(self, draw: Draw) -> TeacherStates:
        """Look up the states of the cells of the batch."""
        assert self._states is not None, "taken before the first batch"
        return TeacherStates(self._states[torch.from_numpy(draw.cells.number[draw.inputs.left])])

    def loss(self, network: SpatialFormerNetwork, hidden: Tensor, targets: TeacherStates, batch: TokenBatch) -> Loss:
        """Return the squared distance of the projected states to those of the towers."""
        with torch.autocast(hidden.device.type, enabled=False):
            projected = _projecting_head(network).project(cell_states(network, hidden, batch))
        n = min(projected.shape[1], targets.states.shape[1])
        distance = (projected[:, :n] - targets.states[:, :n]).square().sum()
        return Loss(distance, targets.weight, projected)

    def new_scores(self) -> Scores:
        """Return nothing: the loss says it all."""
        return _Scores()

    def judge(self, total: Total, parts: Sequence[Any]) -> tuple[dict[str, float], Judgement]:
        """Return the loss beside 1, that of the mean of the states."""
        return {}, Judgement(self.name, total.loss, total.error, 1.0, title=self.title)

    def card_notes(self, sampling: SamplingConfig) -> list[str]:
        """Say how many towers there were."""
        return [f"{self.config.towers} towers on log counts were trained first, which the model learnt to be like"]


def _projecting_head(network: SpatialFormerNetwork) -> SeparatePairs:
    """Return the pair head, which has a projection."""
    head = separate_head(network)
    assert isinstance(head, SeparatePairs), "checked by `check`"
    return head


def _by_number(stream: BatchStream, states: Tensor) -> Tensor:
    """Return the states of `all_cells` in the order of the split, zeros for cells in shards that are left out."""
    every = torch.zeros(stream.n_cells, states.shape[1])
    every[torch.from_numpy(np.asarray(stream.all_cells().number))] = states
    return every
