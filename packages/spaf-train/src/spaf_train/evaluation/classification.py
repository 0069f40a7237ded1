"""How well cell labels are predicted, with intervals over tissue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_train.evaluation.bootstrap import Interval, Tiles, interval_columns, tile_draws, verdict


class ClassificationScores(NamedTuple):
    """One value for each confusion matrix."""

    macro_f1: NDArray[np.float64]  # mean F1 of the classes that occur among the labels or the predictions
    balanced_accuracy: NDArray[np.float64]  # mean recall of the classes that occur among the labels
    accuracy: NDArray[np.float64]


def classification_scores(confusion: NDArray[np.floating]) -> ClassificationScores:
    """Return scores of confusion matrices, (..., n_classes, n_classes): rows are labels, columns predictions.

    The same as `f1_score(average="macro")`, `balanced_accuracy_score` and `accuracy_score` of scikit-learn.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    of_label, of_prediction = confusion.sum(axis=-1), confusion.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(of_label + of_prediction > 0, 2 * right / (of_label + of_prediction), 0.0)
        recall = np.where(of_label > 0, right / of_label, 0.0)
        return ClassificationScores(
            f1.sum(axis=-1) / (of_label + of_prediction > 0).sum(axis=-1),
            recall.sum(axis=-1) / (of_label > 0).sum(axis=-1),
            right.sum(axis=-1) / of_label.sum(axis=-1),
        )


def evaluate_predictions(
    labels: NDArray[np.integer],
    predictions: Mapping[str, NDArray[np.integer]],
    n_classes: int,
    tiles: Tiles,
    *,
    n_replicates: int,
    seed: int,
) -> pd.DataFrame:
    """Judge predicted classes.

    Parameters
    ----------
    labels
        Class codes of the cells.
    predictions
        Class codes of the same cells, by name of who predicts.
    n_classes
        Number of classes.
    tiles
        The tile of each cell.
    n_replicates
        Number of resampled tissues behind each interval.
    seed
        Of the resampling.

    Returns
    -------
    pandas.DataFrame
        A row for each name: `score, n, macro_f1, macro_f1_low, macro_f1_high, balanced_accuracy, ..., accuracy, ...`.
    """
    draws = np.vstack([np.ones(tiles.n), tile_draws(tiles, n_replicates=n_replicates, seed=seed)])
    rows = []
    for name, predicted in predictions.items():
        scores = _drawn_scores(labels, predicted, n_classes, tiles, draws)
        rows.append({"score": name, "n": labels.size, **interval_columns(**scores._asdict())})
    return pd.DataFrame(rows)


def prediction_differences(
    labels: NDArray[np.integer],
    predictions: Mapping[str, NDArray[np.integer]],
    n_classes: int,
    tiles: Tiles,
    *,
    n_replicates: int,
    seed: int,
) -> pd.DataFrame:
    """Compare the first prediction with every other one, on the same resampled tissues.

    The parameters are those of `evaluate_predictions`.

    Returns
    -------
    pandas.DataFrame
        A row for each other name: `score, baseline, n_tiles`, then `macro_f1` (first minus other) with its bounds and
        the same for the other measures, and `verdict`, of macro-F1 (see `verdict`).
    """
    draws = np.vstack([np.ones(tiles.n), tile_draws(tiles, n_replicates=n_replicates, seed=seed)])
    scores = {name: _drawn_scores(labels, one, n_classes, tiles, draws) for name, one in predictions.items()}
    first = next(iter(predictions))
    rows = []
    for name in list(predictions)[1:]:
        minus = {measure: value - getattr(scores[name], measure) for measure, value in scores[first]._asdict().items()}
        columns = interval_columns(**minus)
        found = Interval(columns["macro_f1"], columns["macro_f1_low"], columns["macro_f1_high"])
        rows.append(
            {"score": first, "baseline": name, "n_tiles": tiles.n, **columns, "verdict": verdict(found, tiles.n)}
        )
    return pd.DataFrame(rows)


def _drawn_scores(
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    n_classes: int,
    tiles: Tiles,
    draws: NDArray[np.float64],
) -> ClassificationScores:
    of_tile = np.zeros((tiles.n, n_classes * n_classes))
    np.add.at(of_tile, (tiles.code, labels * n_classes + predicted), 1.0)
    return classification_scores((draws @ of_tile).reshape(-1, n_classes, n_classes))
