"""The state of a cell with its surroundings, at two scales and without training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from spaf_model.tissue.components import principal_components
from spaf_model.tissue.joint import unit

if TYPE_CHECKING:
    from spaf_model.tissue.standardise import PearsonResiduals, Rows, ZScores

N_CELLS, N_SPOTS = 15, 18  # neighbours that a mean is taken over, beside the cell itself
_COMPONENTS = 30


def niche_state(
    pearson: PearsonResiduals,
    zscores: ZScores,
    coordinates: NDArray[np.float64],
    *,
    k: int = N_CELLS,
    seed: int = 0,
    n_threads: int = 1,
) -> Rows:
    """Return the state of each cell of one slide together with its surroundings, (n_cells, at most 120).

    Principal components of the z-scores and of the Pearson residuals, averaged once and twice over the cell and its k
    nearest ones.
    """
    n, k = len(coordinates), min(k, len(coordinates) - 1)
    parts = [
        unit(slide.project(principal_components([slide], _COMPONENTS, seed=seed)[0])) for slide in (zscores, pearson)
    ]
    nearest = cKDTree(coordinates).query(coordinates, k=k + 1, workers=n_threads)[1]
    weights = sparse.csr_array(
        (
            np.full(nearest.size, 1 / (k + 1), dtype=np.float32),
            nearest.ravel().astype(np.int32),
            np.arange(n + 1) * (k + 1),
        ),
        shape=(n, n),
    )
    once = np.asarray(weights @ np.concatenate(parts, axis=1), dtype=np.float32)
    twice = np.asarray(weights @ once, dtype=np.float32)
    return np.concatenate([unit(once), unit(twice)], axis=1)
