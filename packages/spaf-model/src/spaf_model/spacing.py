"""How far apart the cells of a slide lie, and whether they are spots on a grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

SPREAD = 1.05  # of the distances to the nearest on a grid, their 90th percentile over their 10th
TIE = 1.001  # of distances that count as the same
RING = 9  # more cells than asked for that are looked for, so that those of a whole ring are found
MAX_FOUND = 4  # times as many at most, where more are as far as the last one
_NEAREST = 6  # that are looked at for one at another place


def nearest_elsewhere(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each cell the distance to the nearest one at another place, where that is among those found."""
    found = np.where(distances > 0, distances, np.inf).min(axis=1)
    found = found[np.isfinite(found)]
    return found if found.size else np.ones(1)


def are_spots(nearest: NDArray[np.float64]) -> bool:
    """Whether cells are spots on a grid, by their distances to the nearest at another place."""
    low, high = np.percentile(nearest, [10, 90])
    return bool(high <= low * SPREAD)


def lie_on_grid(coordinates: NDArray[np.float64]) -> bool:
    """Whether the cells of one slide are spots on a grid; False where all have one place."""
    n = len(coordinates)
    if n < 2 or not np.ptp(coordinates, axis=0).any():
        return False
    distances = np.asarray(cKDTree(coordinates).query(coordinates, k=min(n, _NEAREST + 1))[0])
    return are_spots(nearest_elsewhere(distances))
