"""What is around a cell: weights of the nearest cells of its slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from spaf_model.scgpt_spatial.config import NeighbourWeights


def neighbourhood_weights(
    places: NDArray[np.float64],
    slides: NDArray[np.int64],
    *,
    n_neighbours: int,
    weights: NeighbourWeights = "gaussian",
    width: float | None = None,
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
        Nearest cells that count.
    weights
        ``"uniform"``, or ``"gaussian"``: exp(-d^2 / 2 width^2) of the distance d.
    width
        Of the Gaussian, in the unit of the places. None: for each slide, half the median distance of the farthest
        neighbour that counts.
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
        k = min(n_neighbours + 1, others.size)  # the cell itself is found too
        if k == 0 or cells.size == 0:
            continue
        distances, found = cKDTree(places[others]).query(places[cells], k=range(1, k + 1))
        neighbours = others[found]
        kept = neighbours != cells[:, None]
        all_others = kept.all(axis=1)  # as many cells are as near as the cell is to itself, or it is none of them
        if k > n_neighbours:
            kept[all_others, -1] = False
        if not kept.any():
            continue
        weight = np.ones_like(distances)
        if weights == "gaussian":
            reach = width or 0.5 * float(np.median(np.where(kept, distances, 0.0).max(axis=1)))
            weight = np.exp(-0.5 * np.square(distances / reach)) if reach > 0 else weight
        weight = np.where(kept, weight, 0.0)
        weight /= np.maximum(weight.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        rows.append(np.broadcast_to(cells[:, None], kept.shape)[kept])
        columns.append(neighbours[kept])
        values.append(weight[kept])
    entries = (np.concatenate(values).astype(np.float32), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(entries, shape=(n_cells, n_cells))
