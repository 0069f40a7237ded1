"""Who lies beside whom, and the closed form: what of a cell its neighbours tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from spaf_model.spacing import are_spots, nearest_elsewhere
from spaf_model.tissue.components import principal_components, signs

if TYPE_CHECKING:
    from spaf_model.tissue.standardise import Rows, Standardised

RADIUS = 30.0  # um
N_NEAREST = 10  # neighbours where the unit of the coordinates is not known
_LATTICE_REACH = 1.05  # of the spacing of spots
_FEW, _MANY = 2.0, 200.0  # neighbours of the median cell within 30, if the unit is um
_PATCH_RANK = 6  # neighbour whose median distance stands for a radius where there is none
_CELLS_AT_A_TIME = 1 << 16


@dataclasses.dataclass(frozen=True)
class Reach:
    """How far the neighbours of a cell of one slide are."""

    radius: float  # in the unit of the coordinates
    nearest: int | None  # take so many nearest cells instead of those within the radius
    is_lattice: bool  # spots on a grid
    reason: str  # part of a sentence


def reach_of(coordinates: NDArray[np.float64], radius: float | None = None) -> Reach | None:
    """Choose how far neighbours are, by the places of the cells of one slide.

    Spots on a grid have those one spacing away. Cells whose coordinates are plausibly um have those within 30 um; of
    others, such as pixels of a size that is not known, the 10 nearest are taken, which does as well.

    Parameters
    ----------
    coordinates
        (n_cells, 2 or 3).
    radius
        Given by the user; None chooses.

    Returns
    -------
    Reach
        None where all cells have one place, or there is one cell.
    """
    n = len(coordinates)
    if n < 2 or not np.ptp(coordinates, axis=0).any():
        return None
    tree = cKDTree(coordinates)
    distances = np.asarray(tree.query(coordinates, k=min(n, _PATCH_RANK + 1))[0])
    nearest = nearest_elsewhere(distances)
    spacing = float(np.median(nearest))
    is_lattice = are_spots(nearest)
    if radius is not None:
        return Reach(radius, None, is_lattice, f"within {radius:g}, as given")
    if is_lattice and spacing > RADIUS:
        return Reach(spacing * _LATTICE_REACH, None, True, f"one spacing of the spots away ({spacing:.4g})")
    sample = coordinates[np.linspace(0, n - 1, min(n, 2_000)).astype(np.int64)]
    around = float(np.median(tree.query_ball_point(sample, RADIUS, return_length=True))) - 1.0
    if _FEW <= around <= _MANY:
        return Reach(RADIUS, None, is_lattice, f"within {RADIUS:g} um ({around:.0f} around the median cell)")
    if is_lattice:
        return Reach(spacing * _LATTICE_REACH, None, True, f"one spacing of the spots away ({spacing:.4g})")
    patch = float(np.median(distances[:, -1])) or spacing
    return Reach(
        patch, N_NEAREST, False, f"the {N_NEAREST} nearest ({around:.0f} lie within 30, so the unit is hardly um)"
    )


def neighbour_graph(
    coordinates: NDArray[np.float64], reach: Reach | None, *, at_most: int = 30, n_threads: int = 1
) -> sparse.csr_array:
    """Return who is a neighbour of whom on one slide, without the cell itself: CSR of ones, (n_cells, n_cells).

    Within a radius the nearest `at_most` count, so the graph need not be symmetric.
    """
    n = len(coordinates)
    if reach is None:
        return no_neighbours(n)
    k = min(n - 1, reach.nearest or at_most) + 1
    bound = np.inf if reach.nearest else reach.radius * 1.001  # so that rounding parts no spots of a grid
    tree = cKDTree(coordinates)
    degrees: list[NDArray[Any]] = []
    columns: list[NDArray[np.int32]] = []
    for start in range(0, n, _CELLS_AT_A_TIME):
        cells = np.arange(start, min(start + _CELLS_AT_A_TIME, n))
        distances, found = map(
            np.asarray, tree.query(coordinates[cells], k=k, distance_upper_bound=bound, workers=n_threads)
        )
        kept = np.isfinite(distances) & (found != cells[:, None])
        kept[kept.all(axis=1), -1] = False  # among cells at one place the cell itself may not be found
        degrees.append(kept.sum(axis=1))
        columns.append(found[kept].astype(np.int32))
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(degrees))])
    indices = np.concatenate(columns)
    return sparse.csr_array((np.ones(indices.size, dtype=np.float32), indices, indptr), shape=(n, n))


def no_neighbours(n: int) -> sparse.csr_array:
    """Return the graph of n cells without neighbours."""
    nobody = np.zeros(0, dtype=np.int32)
    return sparse.csr_array((nobody.astype(np.float32), nobody, np.zeros(n + 1, dtype=np.int32)), shape=(n, n))


def has_neighbour(graph: sparse.csr_array) -> NDArray[np.bool_]:
    """Return which cells have a neighbour, (n_cells,)."""
    return np.diff(graph.indptr) > 0


def neighbour_mean(graph: sparse.csr_array, values: Rows) -> Rows:
    """Return the mean over the neighbours of each cell, (n_cells, k); 0 where there are none."""
    degree = np.maximum(np.diff(graph.indptr), 1).astype(np.float32)
    return np.asarray(graph @ values, dtype=np.float32) / degree[:, None]


def closed_form(
    slides: Sequence[Standardised],
    graphs: Sequence[sparse.csr_array],
    *,
    n_components: int = 100,
    n_place: int = 30,
    ridge: float = 0.5,
    seed: int = 0,
    weights: Sequence[float] | None = None,
) -> Rows:
    """Return loadings (n_genes, at most n_place) of what a cell has in common with the mean of its neighbours.

    Principal components are whitened with a ridge, C is their covariance with the neighbours' mean of them, made
    symmetric, and the loadings are its leading eigenvectors times the square roots of the eigenvalues; where these are
    not positive there is nothing in common, and the dimension is left out. The scores of the training cells have mean
    square 1. Neighbours have equal weights, cells those of their slide (None: all 1), and cells without neighbours are
    left out.
    """
    weights = [1.0] * len(slides) if weights is None else weights
    vectors, deviations = principal_components(slides, n_components, seed=seed, weights=weights)
    variances = deviations.astype(np.float64) ** 2
    whitening = (vectors / np.sqrt(variances + ridge * variances.mean())).astype(np.float32)
    size = whitening.shape[1]
    shared, total = np.zeros((size, size)), 0.0
    for slide, graph, weight in zip(slides, graphs, weights, strict=True):
        states = slide.project(whitening)
        kept = np.flatnonzero(has_neighbour(graph))
        shared += weight * (states[kept].T @ neighbour_mean(graph, states)[kept])
        total += weight * kept.size
    shared /= max(total, 1e-12)
    values, eigenvectors = np.linalg.eigh((shared + shared.T) / 2)
    order = np.argsort(values)[::-1][:n_place]
    order = order[values[order] > 0]
    loadings: Rows = (whitening @ (eigenvectors[:, order] * np.sqrt(values[order]))).astype(np.float32)
    if not order.size:
        return loadings
    loadings *= signs(loadings)
    square = sum(float(np.square(slide.project(loadings), dtype=np.float64).sum()) for slide in slides)
    n_values = sum(slide.shape[0] for slide in slides) * loadings.shape[1]
    loadings /= np.float32(np.sqrt(square / n_values + 1e-12))
    return loadings
