"""Whether probabilities mean what they say, and what a threshold on them does."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

N_BINS = 10


def operating_point(
    labels: NDArray[np.bool_],
    probabilities: NDArray[np.floating],
    weights: NDArray[np.floating],
    *,
    threshold: float = 0.5,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sensitivity and specificity at a threshold, one value for each row of weights (weightings x items)."""
    called = probabilities >= threshold
    with np.errstate(invalid="ignore"):
        sensitivity = weights[:, labels & called].sum(axis=1) / weights[:, labels].sum(axis=1)
        specificity = weights[:, ~labels & ~called].sum(axis=1) / weights[:, ~labels].sum(axis=1)
    return sensitivity, specificity


def calibration_error(
    labels: NDArray[np.bool_], probabilities: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the expected calibration error for each row of weights.

    Over ten bins of equal width, the mean of |mean probability - share of positives|, each bin by its weight (Guo et
    al. 2017, "On calibration of modern neural networks", equation 3). The classes are scaled to equal weight in each
    row, so that a model trained on balanced classes is asked what it was trained for.

    Parameters
    ----------
    labels
        Items; True for positives.
    probabilities
        Items.
    weights
        Weightings x items, not negative.
    """
    weights = _balanced(labels, weights)
    in_bin = _bins(probabilities)[:, None] == np.arange(N_BINS)
    gap = (np.asarray(probabilities, dtype=np.float64) - labels)[:, None] * in_bin
    return np.asarray(np.abs(weights @ gap).sum(axis=1))


def reliability_table(
    labels: NDArray[np.bool_], probabilities: NDArray[np.floating], weights: NDArray[np.floating]
) -> pd.DataFrame:
    """Return the bins of `calibration_error` for one weighting of the items, (n_items,).

    Columns: `low, high` of the bin, `n` items, `weight` (share of all), `probability` (mean) and `observed` (share of
    positives); NaN in empty bins.
    """
    share = _balanced(labels, np.asarray(weights, dtype=np.float64)[None])[0]
    bins = _bins(probabilities)
    weight = np.bincount(bins, weights=share, minlength=N_BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bins, weights=share * probabilities, minlength=N_BINS) / weight
        observed = np.bincount(bins, weights=share * labels, minlength=N_BINS) / weight
    edges = np.arange(N_BINS + 1) / N_BINS
    n = np.bincount(bins, minlength=N_BINS)
    return pd.DataFrame(
        {"low": edges[:-1], "high": edges[1:], "n": n, "weight": weight, "probability": mean, "observed": observed}
    )


def _bins(probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    # In double precision, since 0.3 as a float times ten is 3.0000001.
    return np.minimum((np.asarray(probabilities, dtype=np.float64) * N_BINS).astype(np.int64), N_BINS - 1)


def _balanced(labels: NDArray[np.bool_], weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale each row of weights so that either class weighs one half; NaN where a class has no weight."""
    weights = np.asarray(weights, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        positive = 0.5 / weights[:, labels].sum(axis=1, keepdims=True)
        negative = 0.5 / weights[:, ~labels].sum(axis=1, keepdims=True)
        balanced: NDArray[np.float64] = np.where(labels, positive, negative) * weights
    return balanced
