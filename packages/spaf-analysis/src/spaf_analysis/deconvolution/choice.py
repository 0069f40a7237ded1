"""Which method holds up where the spots are of another technology than the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_analysis.deconvolution.methods import FUNCTIONS, METHODS, Method, proportions
from spaf_analysis.deconvolution.signatures import signatures
from spaf_analysis.deconvolution.spots import spots_of_cells

if TYPE_CHECKING:
    from scipy import sparse

N_SPOTS, N_REPEATS = 200, 3
# Natural logarithms: a gene is seen 1.6 times more or less by another technology, and 1.2 times in one type.
GENE_EFFECT, TYPE_EFFECT = 0.5, 0.2
_FEWEST_CELLS = 4  # of a type that can be divided between signatures and spots
_SMALLEST_SPOT = 10.0  # counts


def judge_methods(
    counts: sparse.csr_matrix, labels: NDArray[np.str_], depth: float, *, seed: int = 0
) -> pd.DataFrame | None:
    """Judge every method on spots made of half of the reference by signatures of the other half.

    Parameters
    ----------
    counts, labels
        The reference, over the genes that it shares with the spots.
    depth
        Median counts of the spots, which those that are made have as well.
    seed
        Of the halves and the spots.

    Returns
    -------
    pandas.DataFrame or None
        A row a method: root mean squared error of proportions and mean correlation over types (over those that vary),
        averaged over three divisions, least error first. None where fewer than two types have four cells.
    """
    names, n_cells = np.unique(labels[labels != ""], return_counts=True)
    divided = names[n_cells >= _FEWEST_CELLS]
    if divided.size < 2:
        return None
    rows: dict[Method, list[tuple[float, float]]] = {method: [] for method in METHODS}
    for repeat in range(N_REPEATS):
        rng = np.random.default_rng([seed, repeat])
        half = np.zeros(labels.size, dtype=bool)
        for name in divided:
            own = rng.permutation(np.flatnonzero(labels == name))
            half[own[: own.size // 2]] = True
        rest = np.isin(labels, divided) & ~half
        known = signatures(counts[half], labels[half])
        per_cell = float(np.asarray(counts[rest].sum(axis=1)).mean())
        cells = min(max(round(depth / max(per_cell, 1.0)), 2), 20)
        spots = spots_of_cells(
            counts[rest], labels[rest], n_spots=N_SPOTS, cells=cells,
            depth=max(depth, _SMALLEST_SPOT) / max(per_cell * cells, 1.0), gene_effect=GENE_EFFECT,
            type_effect=TYPE_EFFECT, seed=seed + repeat,
        )  # fmt: skip
        for method in METHODS:
            found = proportions(FUNCTIONS[method](spots.counts, known))
            rows[method].append(accuracy(found, spots.proportions))
    table = pd.DataFrame(
        [(method, *np.mean(scores, axis=0)) for method, scores in rows.items()], columns=["method", "rmse", "pearson"]
    )
    return table.sort_values("rmse", kind="stable", ignore_index=True)


def accuracy(found: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float]:
    """Return the root mean squared error of proportions, and their correlation averaged over types that vary.

    Spots without counts count as if every type were as frequent. A type that is found equally everywhere correlates 0.
    """
    found = np.where(np.isfinite(found), found, 1.0 / found.shape[1])
    correlations = [
        np.corrcoef(mine, true)[0, 1] if mine.std() > 0.0 else 0.0
        for mine, true in zip(found.T, truth.T, strict=True)
        if true.std() > 0.0
    ]
    return float(np.sqrt(((found - truth) ** 2).mean())), float(np.mean(correlations)) if correlations else 0.0
