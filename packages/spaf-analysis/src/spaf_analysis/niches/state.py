"""The state of a cell with its neighbours', at several scales: sparse products on arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import normalize

from spaf_analysis.defaults import N_NEIGHBORS, NICHE_SCALES
from spaf_analysis.metrics import log_normalize, pearson_embedding
from spaf_model import averaging_weights

N_COMPONENTS = 30
MAX_GENES = 2_000
MAX_FITTED = 50_000  # cells that components of expression are fitted on
_CHUNK = 8_000_000  # dense values at a time
_CLIP = 10.0


def niche_state(
    states: Sequence[NDArray[np.floating]],
    coordinates: NDArray[np.floating],
    slide: NDArray[np.generic],
    *,
    n_neighbors: int = N_NEIGHBORS,
    radius: float | None = None,
    scales: Sequence[int] = NICHE_SCALES,
    centre_slides: bool = True,
    n_threads: int = 1,
) -> NDArray[np.float32]:
    """State of each cell together with its neighbours', at several scales.

    Parameters
    ----------
    states
        Embeddings of the same cells (cells x dimensions, finite), which get the same weight.
    coordinates
        Cells x 2, in um.
    slide
        The slide of each cell: cells of two slides are never neighbours.
    n_neighbors, radius
        Who counts, as for `spaf_model.averaging_weights`.
    scales
        How many times the mean over a cell and its neighbours is taken, for each scale; 0 is the cell itself.
    centre_slides
        Subtract the mean of each slide, and not that of all cells. It takes the differences between slides as a whole
        away: those of technology, and of what a slide is made of.
    n_threads
        Of the search for neighbours.

    Returns
    -------
    numpy.ndarray
        Cells x (dimensions x scales). At each scale the rows have length 1, so that no scale outweighs another, and
        Euclidean distances order cells as the cosine does.

    Notes
    -----
    Time and memory grow with cells x dimensions x scales; there is no matrix of cells by cells beside the sparse one of
    a slide's neighbours.
    """
    width = sum(state.shape[1] for state in states)
    result = np.empty((len(slide), width * len(scales)), dtype=np.float32)
    whole = [_spread(state) for state in states]
    for cells in slides(slide):
        # A state's share is that of its spread over all slides, so that a slide that is all alike is not blown up.
        parts = [
            (np.asarray(state[cells], dtype=np.float32) - np.float32(mean)) / np.float32(deviation)
            for state, (mean, deviation) in zip(states, whole, strict=True)
        ]
        mean_of = np.concatenate(parts, axis=1)
        if centre_slides:
            mean_of -= mean_of.mean(axis=0, dtype=np.float64).astype(np.float32)
        weights = averaging_weights(coordinates[cells], n_neighbors=n_neighbors, radius=radius, n_threads=n_threads)
        times = 0
        for position, scale in sorted(enumerate(scales), key=lambda item: item[1]):
            for _ in range(times, scale):
                mean_of = np.asarray(weights @ mean_of, dtype=np.float32)
            times = scale
            result[cells, position * width : (position + 1) * width] = normalize(mean_of)
    return result


def expression_components(
    counts: sparse.csr_matrix, slide: NDArray[np.generic], *, n_components: int = N_COMPONENTS, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Principal components of the counts, each slide against its own cells: of z-scored logarithms and of residuals.

    Parameters
    ----------
    counts
        Cells x genes.
    slide
        The slide of each cell.
    n_components
        Of each; fewer where there are not so many genes.
    seed
        Of the cells that components are fitted on, where there are more than 50,000.

    Returns
    -------
    tuple of numpy.ndarray
        Cells x components of the z-scores (clipped at 10) and of analytic Pearson residuals (`pearson_embedding`).
    """
    n = counts.shape[0]
    fitted = np.arange(n)
    if n > MAX_FITTED:
        fitted = np.sort(np.random.default_rng(seed).choice(n, MAX_FITTED, replace=False))
    residuals = pearson_embedding(counts, slide, fitted, n_components=n_components, max_genes=MAX_GENES)
    return _zscore_components(log_normalize(counts), slide, fitted, n_components), residuals.coordinates


def _zscore_components(
    logs: sparse.csr_matrix, slide: NDArray[np.generic], fitted: NDArray[np.int64], n_components: int
) -> NDArray[np.float64]:
    """Principal components of z-scores within each slide, dense for some cells at a time."""
    variance = _moments(logs)[1] ** 2
    genes = np.sort(np.argsort(-variance, kind="stable")[:MAX_GENES])
    logs = sparse.csr_matrix(logs[:, genes])
    groups = [(cells, *_moments(logs[cells])) for cells in slides(slide)]
    is_fitted = np.zeros(logs.shape[0], dtype=bool)
    is_fitted[fitted] = True
    product = np.zeros((len(genes), len(genes)))
    step = max(1, _CHUNK // max(len(genes), 1))
    for cells, mean, deviation in groups:
        known = cells[is_fitted[cells]]
        for start in range(0, len(known), step):
            some = _zscores(logs[known[start : start + step]], mean, deviation)
            product += some.T @ some
    axes = np.linalg.eigh(product)[1][:, ::-1][:, : max(1, min(n_components, len(genes) - 1))]
    result = np.empty((logs.shape[0], axes.shape[1]))
    for cells, mean, deviation in groups:
        for start in range(0, len(cells), step):
            rows = cells[start : start + step]
            result[rows] = _zscores(logs[rows], mean, deviation) @ axes
    return result


def _zscores(logs: sparse.csr_matrix, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    # A gene that does not vary on a slide says nothing there, which is 0.
    known = deviation > 1e-6
    scaled = np.divide(logs.toarray() - mean, deviation, out=np.zeros(logs.shape), where=known)
    return np.clip(scaled, -_CLIP, _CLIP, out=scaled)


def _moments(matrix: sparse.csr_matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each column."""
    n = matrix.shape[0]
    mean = np.asarray(matrix.sum(axis=0)).ravel() / n
    square = np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel() / n
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _spread(state: NDArray[np.floating]) -> tuple[NDArray[np.float64], float]:
    """Mean of a state, and the root mean square distance of cells from it."""
    mean = state.mean(axis=0, dtype=np.float64)
    square = np.einsum("ij,ij->", state, state, dtype=np.float64) / len(state) - float(mean @ mean)
    return mean, float(np.sqrt(max(square, 0.0))) or 1.0


def slides(slide: NDArray[np.generic]) -> list[NDArray[np.int64]]:
    """Return the cells of each slide."""
    code = np.unique(slide, return_inverse=True)[1].ravel()
    order = np.argsort(code, kind="stable")
    return np.split(order, np.cumsum(np.bincount(code))[:-1])
