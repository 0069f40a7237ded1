"""How well cell labels are predicted, with intervals over tissue, and what is predicted without a trained encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spaf_train.evaluation.baselines import pca_embedding
from spaf_train.evaluation.bootstrap import Tiles, interval_columns, tile_draws

N_NEIGHBORS = 15


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
        of_tile = np.zeros((tiles.n, n_classes * n_classes))
        np.add.at(of_tile, (tiles.code, labels * n_classes + predicted), 1.0)
        scores = classification_scores((draws @ of_tile).reshape(-1, n_classes, n_classes))
        rows.append({"score": name, "n": labels.size, **interval_columns(**scores._asdict())})
    return pd.DataFrame(rows)


def baseline_predictions(
    counts: Any,
    labels: NDArray[np.integer],
    fit_cells: NDArray[np.integer],
    cells: NDArray[np.integer],
    *,
    regularisation: float = 1.0,
) -> dict[str, NDArray[np.integer]]:
    """Predict classes without a trained encoder.

    Parameters
    ----------
    counts
        Cells x genes.
    labels
        Class codes of all cells; those of `fit_cells` are looked at, and no others.
    fit_cells
        Cells to fit on.
    cells
        Cells to predict.
    regularisation
        Of the logistic regression, 1 / C.

    Returns
    -------
    dict
        The most frequent class; the 15 nearest neighbours, and a logistic regression, in 30 principal components.
    """
    known = labels[fit_cells]
    pca = pca_embedding(counts, fit_cells).coordinates
    neighbors = KNeighborsClassifier(n_neighbors=min(N_NEIGHBORS, known.size)).fit(pca[fit_cells], known)
    logistic = logistic_classifier(regularisation).fit(pca[fit_cells], known)
    return {
        "most frequent class": np.full(len(cells), np.bincount(known).argmax()),
        f"PCA, {N_NEIGHBORS} neighbours": neighbors.predict(pca[cells]),
        "PCA, logistic regression": logistic.predict(pca[cells]),
    }


def logistic_classifier(regularisation: float = 1.0, *, balanced: bool = True) -> Any:
    """Return a pipeline of scaling and logistic regression; both learn from what `fit` is given and nothing else."""
    weight = "balanced" if balanced else None
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=1.0 / regularisation, max_iter=5_000, class_weight=weight)
    )
