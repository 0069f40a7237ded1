"""Scores of answers that rank two classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaf_train.objectives.base import Loss, Scores
from spaf_train.objectives.score_summary import ScoreSummary, auroc_of

if TYPE_CHECKING:
    from torch import Tensor

RankedParts = tuple[float, tuple[NDArray[np.float32], NDArray[np.int64]]]


class RankedScores(Scores):
    """Scores of positives and negatives, for any number of them.

    Parameters
    ----------
    labels
        Which attribute of the targets says what is positive; a ``positive_weight`` is looked at too.
    """

    def __init__(self, labels: str = "labels") -> None:
        self._labels = labels
        self.positive_weight = 1.0
        self._summary = ScoreSummary()

    def add(self, loss: Loss, targets: Any) -> None:
        """Add the answers to a batch."""
        self.positive_weight = getattr(targets, "positive_weight", 1.0)
        self.rank(loss.answer, getattr(targets, self._labels))

    def rank(self, scores: Tensor, labels: Tensor) -> None:
        """Add scores, and labels that are above 0 for positives."""
        self._summary.add(scores.float().cpu().numpy(), labels.cpu().numpy())

    def parts(self) -> RankedParts:
        """Return the weight of a positive and the `ScoreSummary.parts`."""
        return self.positive_weight, self._summary.parts()


def ranked(parts: Sequence[RankedParts]) -> tuple[float, int, int, float]:
    """Return AUROC, numbers of negatives and positives, and the weight of a positive, over all processes."""
    weights, summaries = zip(*parts, strict=True)
    return *auroc_of(summaries), max(weights)
