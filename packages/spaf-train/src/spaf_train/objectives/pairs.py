"""Pairs: whether the two cells of an input are neighbours in the tissue."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from spaf_train._checks import require
from spaf_train.objectives.base import Column, Loss, ObjectiveConfig, Scores, Total
from spaf_train.objectives.chance import Judgement, auroc_error, entropy
from spaf_train.objectives.pair_baseline import NAME, BesideComponents, cosines
from spaf_train.objectives.scores import RankedParts, RankedScores, ranked

if TYPE_CHECKING:
    from spaf_model import SpatialFormerNetwork, TokenBatch
    from spaf_train.stream.samplers import SamplingConfig
    from spaf_train.stream.window import Draw


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsConfig(ObjectiveConfig):
    """The weight of telling neighbours from strangers."""

    enabled: bool = True  # False: the pair head is not trained


@dataclasses.dataclass(frozen=True)
class PairLabels:
    """Labels of the pairs of a batch."""

    labels: Tensor  # int64 (B,): 1 for neighbours, 0 otherwise
    positive_weight: float  # weight of a positive where a negative has 1: negatives drawn for each positive
    baseline: Tensor | None = None  # float32 (B,): what ranks them without training, in validation

    @property
    def weight(self) -> float:
        """What the summed loss of this batch is divided by: the sum of the weights of its pairs."""
        positives = float(self.labels.sum())
        return positives * self.positive_weight + (self.labels.numel() - positives)

    def to(self, device: torch.device) -> PairLabels:
        """Return the same on another device."""
        baseline = None if self.baseline is None else self.baseline.to(device)
        return PairLabels(self.labels.to(device), self.positive_weight, baseline)


def pairs_loss(logits: Tensor, labels: PairLabels) -> Tensor:
    """Return the weighted, summed cross-entropy of pair logits (B, 2)."""
    weights = torch.tensor([1.0, labels.positive_weight], device=logits.device)
    return functional.cross_entropy(logits.float(), labels.labels, weight=weights, reduction="sum")


class _Scores(Scores):
    """What ranks the pairs: the network and, where there is one, the baseline."""

    def __init__(self) -> None:
        self.network, self.baseline = RankedScores(), RankedScores()

    def add(self, loss: Loss, targets: PairLabels) -> None:
        self.network.add(loss, targets)
        if targets.baseline is not None:
            self.baseline.rank(targets.baseline, targets.labels)

    def parts(self) -> tuple[RankedParts, RankedParts]:
        return self.network.parts(), self.baseline.parts()


class PairsObjective(BesideComponents):
    """Tell whether the two cells of an input are neighbours."""

    name = "pairs"
    title = "cell pairs"
    columns = (
        Column("loss_pairs", "Cell pairs, weighted cross-entropy (nats)", "Cell pairs", "cross-entropy (nat)"),
        Column("auroc_pairs", "Cell pairs, AUROC of neighbours against hard and easy negatives", "cell pairs", "AUROC"),
    )
    Config = PairsConfig
    asks = ("pair_logits",)
    trains = ("pair_head",)

    def check(self, model: Any, sampling: SamplingConfig) -> None:
        """Refuse inputs of single cells, and models that read the two cells apart."""
        require(
            sampling.input == "pairs",
            "objectives.pairs needs sampling.input = pairs; for other inputs set objectives.pairs.enabled to false.",
        )
        require(
            getattr(model, "pair_input", "joint") == "joint",
            "objectives.pairs needs model.pair_input = joint; cells that are read apart are trained by "
            "objectives.contrast (see the preset starter), or without that objective (enabled = false).",
        )

    def targets(self, draw: Draw) -> PairLabels:
        """Return which inputs are neighbours."""
        beside = None
        if self._baseline is not None:
            left, right = (
                self._baseline.states(draw.cells.take(side)) for side in (draw.inputs.left, draw.inputs.right)
            )
            beside = cosines(left, right)
        return PairLabels(torch.from_numpy(draw.inputs.label), draw.inputs.positive_weight, beside)

    def loss(self, network: SpatialFormerNetwork, hidden: Tensor, targets: PairLabels, batch: TokenBatch) -> Loss:
        """Return the weighted cross-entropy."""
        logits = network.pair_logits(hidden).float()
        return Loss(pairs_loss(logits, targets), targets.weight, logits[:, 1] - logits[:, 0])

    def new_scores(self) -> Scores:
        """Return what ranks pairs of cells."""
        return _Scores()

    def judge(self, total: Total, parts: Sequence[Any]) -> tuple[dict[str, float], Judgement]:
        """Return the AUROC, and the loss beside that of a probability that is the same always.

        Pairs that are ranked well count as learnt where their probabilities are off.
        """
        own, beside = zip(*parts, strict=True)
        auroc, n_negative, n_positive, weight = ranked(own)
        constant = entropy(np.array([n_positive * weight, n_negative]))
        error = auroc_error(auroc, n_negative, n_positive)
        judgement = Judgement(
            self.name, total.loss, total.error, constant, auroc, error, title=self.title, by_rank=True,
            baseline=NAME, baseline_auroc=ranked(beside)[0],
        )  # fmt: skip
        return {"auroc_pairs": auroc}, judgement

    def card_notes(self, sampling: SamplingConfig) -> list[str]:
        """Say which negatives there were."""
        return [
            f"Negatives for each pair of neighbours: {sampling.hard_negatives} at {sampling.hard_min:g} to "
            f"{sampling.hard_max:g} um, {sampling.easy_negatives} beyond {sampling.easy_min:g} um"
        ]
