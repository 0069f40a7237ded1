"""The plain way to tell a pattern: nucleus fraction and quantiles of the distance from the centre, by regression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaf_analysis.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

LEAST_GENES = 3  # with and without the pattern, to learn it from others


def location_baseline(summary: pd.DataFrame, has_pattern: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Score each gene by a logistic regression that has learnt the pattern from all other genes.

    Parameters
    ----------
    summary
        What `spaf_data.location_summary` gives: a row a gene. Columns without values are left out, as is the number of
        transcripts.
    has_pattern
        Whether each gene has the pattern: this baseline, unlike a permutation, must be told of some.

    Returns
    -------
    numpy.ndarray
        By gene, the log-odds that the other genes give it; NaN for genes without transcripts.

    Raises
    ------
    InputError
        If fewer than 3 genes with transcripts have the pattern, or fewer than 3 have it not.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = summary.drop(columns="n_transcripts").dropna(axis=1, how="all")
    rows = np.flatnonzero(features.notna().all(axis=1).to_numpy())
    x, y = features.to_numpy(dtype=np.float64)[rows], np.asarray(has_pattern, dtype=bool)[rows]
    if min(y.sum(), (~y).sum()) < LEAST_GENES:
        raise InputError(
            f"{int(y.sum())} genes with transcripts have the pattern and {int((~y).sum())} have it not; the regression "
            f"needs {LEAST_GENES} of each."
        )
    scores = np.full(len(summary), np.nan)
    for i, row in enumerate(rows):
        others = np.arange(len(rows)) != i
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1_000))
        scores[row] = model.fit(x[others], y[others]).decision_function(x[i : i + 1])[0]
    return scores
