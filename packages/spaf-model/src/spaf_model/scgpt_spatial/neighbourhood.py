"""What is around a cell: weights of the nearest cells of its slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from spaf_model.spacing import MAX_FOUND, RING, TIE

if TYPE_CHECKING:
    from spaf_model.scgpt_spatial.config import NeighbourWeights


N_SPACING = 6  # nearest cells whose mean distance is the unit of width: the ring of a hexagonal lattice


def relative_distances(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return distances of the neighbours of cells in the mean distance of the six nearest; infinite where none is.

    Parameters
    ----------
    distances
        As for `distance_weights`.
    """
    if not distances.size:
        return distances
    there = np.isfinite(distances)
    nearest = np.sort(distances, axis=1)[:, :N_SPACING]
    known = np.isfinite(nearest)
    spacing = np.where(known, nearest, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    relative = np.where(there, distances, 0.0) / np.maximum(spacing, np.finfo(np.float64).tiny)[:, None]
    return np.where(there, relative, np.inf)


def distance_weights(
    distances: NDArray[np.float64], *, weights: NeighbourWeights, width: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weights of the neighbours of cells, adding up to 1; 0 where there is none.

    Parameters
    ----------
    distances
        Of the neighbours of each cell, infinite where there is none, (n_cells, K), in any order.
    weights, width
        As for `neighbourhood_weights`.

    Examples
    --------
    >>> distance_weights(np.array([[1.0, 1.0, np.inf]]), weights="gaussian", width=1.0)
    array([[0.5, 0.5, 0. ]])
    """
    there = np.isfinite(distances)
    weight = there.astype(np.float64)
    if weights == "gaussian" and distances.size:
        relative = np.where(there, relative_distances(distances), 0.0)
        weight *= np.exp(-0.5 * np.square(relative / np.reshape(width, (-1, 1))))
    total = weight.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    return shares


def neighbourhood_weights(
    places: NDArray[np.float64],
    slides: NDArray[np.int64],
    *,
    n_neighbours: int,
    weights: NeighbourWeights = "gaussian",
    width: float | NDArray[np.float64] = 1.3,
    among: NDArray[np.bool_] | None = None,
) -> sparse.csr_array:
    """Return the weights of neighbours, so that a product with states is the mean around each cell, without itself.

    Parameters
    ----------
    places
        Of the cells, (n_cells, 2 or 3). A cell whose place is not finite has no neighbours and is none.
    slides
        Number of the slide of each cell: cells of other slides are no neighbours.
    n_neighbours
        Nearest cells that count, and all that are as far as the last of them (within 0.1 %), as those of a ring of
        spots on a grid are: whatever the order of the cells.
    weights
        ``"uniform"``, or ``"gaussian"``: by distance.
    width
        Standard deviation of the Gaussian, in the mean distance of the six nearest cells: one number serves cells that
        touch and spots that are far apart. An array has that of each cell.
    among
        Which cells may be neighbours; None: all.

    Returns
    -------
    array
        CSR (n_cells, n_cells), float32; each row adds up to 1, or to 0 where there is no neighbour.

    Examples
    --------
    >>> line = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    >>> neighbourhood_weights(line, np.zeros(3, dtype=np.int64), n_neighbours=2, weights="uniform").toarray()
    array([[0. , 0.5, 0.5],
           [0.5, 0. , 0.5],
           [0.5, 0.5, 0. ]], dtype=float32)
    """
    n_cells = slides.size
    placed = np.isfinite(places).all(axis=1)
    there = placed if among is None else placed & among
    rows, columns, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for slide in np.unique(slides):
        cells, others = np.flatnonzero((slides == slide) & placed), np.flatnonzero((slides == slide) & there)
        if cells.size == 0 or others.size == 0:
            continue
        distances, found = _nearest(places[cells], places[others], n_neighbours)
        neighbours = others[found]
        kept = neighbours != cells[:, None]
        among_nearest = kept & (np.cumsum(kept, axis=1) <= n_neighbours)
        reach = np.where(among_nearest, distances, 0.0).max(axis=1)
        kept &= distances <= TIE * reach[:, None]
        if not kept.any():
            continue
        own_width = width if isinstance(width, float) else np.broadcast_to(width, n_cells)[cells]
        weight = distance_weights(np.where(kept, distances, np.inf), weights=weights, width=own_width)
        rows.append(np.broadcast_to(cells[:, None], kept.shape)[kept])
        columns.append(neighbours[kept])
        values.append(weight[kept])
    entries = (np.concatenate(values).astype(np.float32), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(entries, shape=(n_cells, n_cells))


def _nearest(
    cells: NDArray[np.float64], others: NDArray[np.float64], n_neighbours: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return distances and positions of the nearest others of each cell, enough for all that are as far as the last."""
    tree = cKDTree(others)
    most = min(MAX_FOUND * n_neighbours + RING, len(others))
    k = min(n_neighbours + 1 + RING, most)  # the cell itself is found too
    while True:
        distances, found = (np.asarray(part) for part in tree.query(cells, k=range(1, k + 1)))
        if k == most or not (distances[:, -1] <= TIE * distances[:, n_neighbours]).any():
            return distances, found
        k = min(2 * k, most)
