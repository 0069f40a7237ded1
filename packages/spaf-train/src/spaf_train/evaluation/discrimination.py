"""AUROC and AUPRC under many weightings of the same items at once."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Discrimination(NamedTuple):
    """One value per weighting; NaN where a weighting leaves a class empty."""

    auroc: NDArray[np.float64]
    auprc: NDArray[np.float64]

    def minus(self, other: "Discrimination") -> "Discrimination":
        """Return the differences, weighting by weighting."""
        return Discrimination(self.auroc - other.auroc, self.auprc - other.auprc)


def discrimination(
    labels: NDArray[np.bool_], scores: NDArray[np.floating], weights: NDArray[np.floating], *, balanced: bool = True
) -> Discrimination:
    """How well scores rank positive items above negative ones, for each row of weights.

    Parameters
    ----------
    labels
        Items; True for positives.
    scores
        Items; higher means more likely positive. Equal scores share their rank.
    weights
        Weightings x items, not negative. A row of ones gives the plain value.
    balanced
        Scale the two classes to equal total weight in each row, so that chance is 0.5 for both measures whatever the
        resampling did to the classes. Without it, chance is the share of positives for AUPRC; AUROC is the same.

    Returns
    -------
    Discrimination
        AUROC (the probability that a positive outranks a negative, ties one half) and AUPRC (average precision, the
        step-wise sum that scikit-learn's `average_precision_score` uses), each with one value per row.

    Notes
    -----
    The items are sorted once and every row costs a few cumulative sums, which is what makes a bootstrap of a thousand
    replicates cheap.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    is_positive = np.asarray(labels, dtype=bool)[order]
    sorted_weights = np.asarray(weights, dtype=np.float64)[:, order]

    # Weight of each class in each group of equal scores, groups in ascending score.
    positive = np.add.reduceat(np.where(is_positive, sorted_weights, 0.0), starts, axis=1)
    negative = np.add.reduceat(np.where(is_positive, 0.0, sorted_weights), starts, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        n_positive, n_negative = positive.sum(axis=1, keepdims=True), negative.sum(axis=1, keepdims=True)
        positive /= n_positive
        negative /= n_negative
        below = np.cumsum(negative, axis=1) - negative
        auroc = (positive * (below + negative / 2)).sum(axis=1)
        true_positive = np.cumsum(positive[:, ::-1], axis=1)
        false_positive = np.cumsum(negative[:, ::-1], axis=1)
        called = true_positive + (false_positive if balanced else false_positive * (n_negative / n_positive))
        precision = np.where(called > 0, true_positive / called, 0.0)
        auprc = (positive[:, ::-1] * precision).sum(axis=1)
    auprc[np.isnan(auroc)] = np.nan
    return Discrimination(auroc=auroc, auprc=auprc)
