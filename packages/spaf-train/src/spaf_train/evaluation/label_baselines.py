"""What labels are predicted without a trained encoder, every regression with its penalty chosen in the same way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from spaf_train.evaluation.baselines import pca_embedding
from spaf_train.evaluation.probing import Block, ProbeSettings, choose_probe, fit_probe

N_NEIGHBORS = 15
MAJORITY, NEAREST = "most frequent class", f"PCA, {N_NEIGHBORS} neighbours"
PCA_LOGISTIC, COUNTS_LOGISTIC = "PCA, logistic regression", "log counts, logistic regression"


def baseline_predictions(
    counts: Any,
    labels: NDArray[np.integer],
    fit_cells: NDArray[np.integer],
    cells: NDArray[np.integer],
    folds: NDArray[np.integer],
    settings: ProbeSettings = ProbeSettings(),
    *,
    log_counts: NDArray[np.float32] | None = None,
    of_log_counts: ProbeSettings | None = None,
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
    folds
        Of `fit_cells`, on which penalties are chosen (`inner_folds`).
    settings
        What is not chosen there.
    log_counts
        Of all cells (`LogCounts`), for a regression on them; None leaves it out.
    of_log_counts
        What was chosen for that before, not to choose it again.

    Returns
    -------
    dict
        The most frequent class; the 15 nearest neighbours, and a logistic regression, in 30 principal components; a
        logistic regression on log counts.
    """
    known = labels[fit_cells]
    pca = pca_embedding(counts, fit_cells).coordinates.astype(np.float32)
    neighbors = KNeighborsClassifier(n_neighbors=min(N_NEIGHBORS, known.size)).fit(pca[fit_cells], known)
    predictions = {
        MAJORITY: np.full(len(cells), np.bincount(known).argmax()),
        NEAREST: neighbors.predict(pca[cells]),
        PCA_LOGISTIC: predicted_by_probe([Block(pca)], labels, fit_cells, cells, folds, settings),
    }
    if log_counts is not None:
        predictions[COUNTS_LOGISTIC] = predicted_by_probe(
            [Block(log_counts)], labels, fit_cells, cells, folds, of_log_counts or settings
        )
    return predictions


def predicted_by_probe(
    blocks: list[Block],
    labels: NDArray[np.integer],
    fit_cells: NDArray[np.integer],
    cells: NDArray[np.integer],
    folds: NDArray[np.integer],
    settings: ProbeSettings = ProbeSettings(),
) -> NDArray[np.int64]:
    """Choose a probe on folds, fit it and predict; the parameters are those of `baseline_predictions`."""
    penalty, balanced = settings.penalty, settings.balanced
    if penalty is None or balanced is None:
        chosen = choose_probe(blocks, labels, fit_cells, folds, settings)
        penalty, balanced = chosen.penalty, chosen.balanced
    n_classes = int(labels[fit_cells].max()) + 1
    fitted = fit_probe(
        blocks, labels, fit_cells, n_classes, penalty=penalty, balanced=balanced
    )  # fmt: skip
    return fitted.predict(blocks, cells)
