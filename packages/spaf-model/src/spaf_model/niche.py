"""The state of a cell with its surroundings, at two scales and without training, whatever model gave the states."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from spaf_model.context import SPATIAL
from spaf_model.errors import InputError
from spaf_model.joint import Rows, unit
from spaf_model.spacing import lie_on_grid

NICHE = "niche"  # the part of an embedding
N_CELLS, N_SPOTS = 15, 18  # neighbours that a mean is taken over, beside the cell itself


def niche_states(
    states: Rows, coordinates: NDArray[np.float64], slides: NDArray[np.int64], *, n_threads: int = 1
) -> Rows:
    """Return the state of each cell together with its surroundings, (n_cells, 2 D), from states of the cells alone.

    On each slide by itself: the states, centred there, averaged over the cell and its 15 nearest ones (18 where they
    are spots on a grid), and averaged so once more; each of the two scales centred and of mean squared norm 1.

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
    n = len(coordinates)
    k = min(k, n - 1)
    nearest = np.asarray(cKDTree(coordinates).query(coordinates, k=k + 1, workers=n_threads)[1])
    weights = sparse.csr_array(
        (
            np.full(nearest.size, 1 / (k + 1), dtype=np.float32),
            nearest.ravel().astype(np.int32),
            np.arange(n + 1) * (k + 1),
        ),
        shape=(n, n),
    )
    once = np.asarray(weights @ states, dtype=np.float32)
    twice = np.asarray(weights @ once, dtype=np.float32)
    return np.concatenate([unit(once), unit(twice)], axis=1)


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
