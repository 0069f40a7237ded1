"""The state of a cell with its surroundings, at two scales and without training, whatever model gave the states."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from spaf_model.context import SPATIAL
from spaf_model.errors import InputError
from spaf_model.joint import Rows, unit
from spaf_model.spacing import MAX_FOUND, RING, SPREAD, are_spots, lie_on_grid, nearest_elsewhere

NICHE = "niche"  # the part of an embedding
N_CELLS, N_SPOTS = 15, 18  # neighbours that a mean is taken over, beside the cell itself
_SAME = 1 + 1e-6  # of distances that are the same but for rounding, of cells that lie anywhere


def niche_states(
    states: Rows, coordinates: NDArray[np.float64], slides: NDArray[np.int64], *, n_threads: int = 1
) -> Rows:
    """Return the state of each cell together with its surroundings, (n_cells, 2 D), from states of the cells alone.

    On each slide by itself: the states, centred there, averaged over the cell and its 15 nearest ones (whole rings
    of spots on a grid: 18, or 20 of a square one), and
    averaged so once more; each of the two scales centred and of mean squared norm 1.

    Parameters
    ----------
    states
        Embedding of the cells, (n_cells, D). Cells with NaN are in nobody's surroundings and get NaN.
    coordinates
        (n_cells, 2 or 3), of one unit on a slide.
    slides
        Number of the slide of each cell.
    n_threads
        Of the search for neighbours.

    Notes
    -----
    Dimensions stay those of the embedding, so that slides can be compared as far as it compares them.
    """
    result = np.full((len(states), 2 * states.shape[1]), np.nan, dtype=np.float32)
    has_state = np.isfinite(states).all(axis=1)
    for slide in np.unique(slides):
        cells = np.flatnonzero((slides == slide) & has_state)
        if cells.size:
            places = coordinates[cells]
            k = N_SPOTS if lie_on_grid(places) else N_CELLS
            result[cells] = surroundings(unit(states[cells]), places, k, n_threads=n_threads)
    return result


def surroundings(states: Rows, coordinates: NDArray[np.float64], k: int, *, n_threads: int = 1) -> Rows:
    """Return states of one slide averaged once and twice over each cell and its k nearest, each as `unit`, (n, 2 D)."""
    weights = averaging_weights(coordinates, n_neighbors=k, n_threads=n_threads)
    once = np.asarray(weights @ states, dtype=np.float32)
    twice = np.asarray(weights @ once, dtype=np.float32)
    return np.concatenate([unit(once), unit(twice)], axis=1)


def averaging_weights(
    coordinates: NDArray[np.floating],
    *,
    n_neighbors: int = N_CELLS,
    radius: float | None = None,
    n_threads: int = 1,
) -> sparse.csr_array:
    """Mean over a cell and its nearest ones on one slide, whatever the order of the cells.

    Parameters
    ----------
    coordinates
        Cells x 2 or 3, in any unit.
    n_neighbors
        Nearest cells that count, beside the cell itself, and all that are as far as the last of them. Of spots on a
        grid whole rings, within one radius for all: of 15, the 18 of a hexagonal grid and the 20 of a square one.
    radius
        Cells further away than this (in the unit of the coordinates) do not count; None: however far they are.
    n_threads
        Of the search.

    Returns
    -------
    scipy.sparse.csr_array
        Cells x cells; the weights of a row are equal and add up to 1, and the cell itself is always among them.
    """
    n = len(coordinates)
    tree = cKDTree(coordinates)
    k = min(n_neighbors + RING, n - 1)
    while True:
        distance, found = tree.query(coordinates, k=k + 1, workers=n_threads)
        distance, found = np.reshape(distance, (n, k + 1)), np.reshape(found, (n, k + 1)).astype(np.int32)
        reach = _reach(distance, n_neighbors)
        if k in (n - 1, MAX_FOUND * n_neighbors + RING) or not (distance[:, -1] <= reach).any():
            break
        k = min(2 * k, n - 1, MAX_FOUND * n_neighbors + RING)  # more are as far as the last one than were found
    kept = distance <= (reach if radius is None else np.minimum(reach, radius))[:, None]
    itself = found == np.arange(n, dtype=np.int32)[:, None]
    # Of many cells at one place the cell itself may not be among the nearest.
    lost = np.flatnonzero(~itself.any(axis=1))
    found[lost, 0], kept[lost, 0] = lost, True
    degree = kept.sum(axis=1)
    indptr = np.concatenate([[0], np.cumsum(degree)])
    return sparse.csr_array(((1 / np.repeat(degree, degree)).astype(np.float32), found[kept], indptr), shape=(n, n))


def _reach(distance: NDArray[np.float64], n_neighbors: int) -> NDArray[np.float64]:
    """Return how far neighbours of each cell are, by sorted distances of which the first is that to itself."""
    if distance.shape[1] <= n_neighbors + 1:
        return np.full(len(distance), np.inf)
    reach = distance[:, n_neighbors]
    if distance.any() and are_spots(nearest_elsewhere(distance)):
        return np.full(len(distance), np.median(reach) * SPREAD)
    farthest: NDArray[np.float64] = reach * _SAME
    return farthest


def check_places(places: NDArray[np.float64] | None, names: list[str]) -> NDArray[np.float64]:
    """Return the places of the cells of a table, where niche states can be had.

    Raises
    ------
    InputError
        If there are none, or one is not finite; the sentence names the cell.
    """
    if places is None:
        raise InputError(
            f"The niche state is that of a cell with those around it, and the table has no coordinates in "
            f"obsm[{SPATIAL!r}]."
        )
    bad = np.flatnonzero(~np.isfinite(places).all(axis=1))
    if bad.size:
        raise InputError(
            f"obsm[{SPATIAL!r}] is not finite for {bad.size} of {len(places)} cells, first for cell "
            f"{names[bad[0]]!r}; the niche state needs the places of all: drop those cells first."
        )
    return places
