"""The axes along which cells of a spatial experiment and of its reference are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigh

N_JOINT = 30  # components of both together, for neighbours and kernels
N_VECTORS = 50  # components of each, of which principal vectors are made
N_RIDGE = (50, 200)  # components of the reference that ridge regression reads
_LEAST_COSINE = 0.3  # of a principal vector (as in SpaGE)
_CELLS_AT_ONCE = 4096


def log_counts(counts: sparse.csr_matrix, depth: NDArray[np.floating] | None = None) -> sparse.csr_matrix:
    """Return log1p of counts per 10,000 of a depth (None: of the counts that are given), float32."""
    whole = np.asarray(counts.sum(axis=1) if depth is None else depth, dtype=np.float64).ravel()
    logs = sparse.csr_matrix(counts, dtype=np.float32, copy=True)
    logs.data *= np.repeat(1e4 / np.maximum(whole, 1.0), np.diff(logs.indptr)).astype(np.float32)
    np.log1p(logs.data, out=logs.data)
    return logs


def moments(matrix: sparse.csr_matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means and standard deviations of the columns of a sparse matrix."""
    mean = np.asarray(matrix.mean(axis=0), dtype=np.float64).ravel()
    square = np.asarray(matrix.multiply(matrix).mean(axis=0), dtype=np.float64).ravel()
    return mean, np.sqrt(np.maximum(square - mean**2, 0.0))


@dataclass(frozen=True)
class Depth:
    """Logarithms of the counts of cells, less their mean: what of a cell is not biology alone. 0 of cells without.

    Attributes
    ----------
    query, reference
        (n_cells,).
    """

    query: NDArray[np.float32]
    reference: NDArray[np.float32]

    @classmethod
    def of(cls, query: NDArray[np.floating], reference: NDArray[np.floating]) -> Depth:
        """Return that of counts a cell."""
        centred = []
        for counts in (query, reference):
            depth = np.asarray(counts, dtype=np.float64)
            logs = np.log(np.maximum(depth, 1.0))
            has = depth > 0.0
            centred.append(np.where(has, logs - logs[has].mean(), 0.0).astype(np.float32))
        return cls(*centred)


def slopes(depth: NDArray[np.floating], values: Any) -> NDArray[np.float32]:
    """Return the slopes of columns, sparse or dense, on depth."""
    centred = depth - depth.mean()
    square = float(centred @ centred)
    product = np.asarray(values.T @ centred, dtype=np.float64).ravel()
    return (product / square if square > 0.0 else 0.0 * product).astype(np.float32)


@dataclass(frozen=True)
class Spaces:
    """Cells of a query and a reference on common axes, each standardised by itself: what differs by platform is left.

    Attributes
    ----------
    query, reference
        (n_cells, n_axes): joint components, principal vectors of the two, components of the reference.
    parts
        Columns of each kind of axes.
    depth
        Centred logarithms of the depth of query and reference, where it is removed.
    """

    query: NDArray[np.float32]
    reference: NDArray[np.float32]
    parts: dict[str, slice]
    depth: Depth | None = None

    def of(self, part: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return query and reference on one kind of axes."""
        return self.query[:, self.parts[part]], self.reference[:, self.parts[part]]


def find_spaces(
    query: sparse.csr_matrix, reference: sparse.csr_matrix, fitted: NDArray[np.int64], depth: Depth | None = None
) -> Spaces:
    """Find common axes of counts of the same genes.

    Parameters
    ----------
    query, reference
        Cells x genes, counts.
    fitted
        Cells of the query that axes are found by; all are placed on them.
    depth
        Removed from both before axes are found; None: it is left in.
    """
    logs = log_counts(query), log_counts(reference)
    (mean, spread), (mean_of_reference, spread_of_reference) = moments(logs[0][fitted]), moments(logs[1])
    of_query = _standardised(logs[0][fitted], mean, spread)
    of_reference = _standardised(logs[1], mean_of_reference, spread_of_reference)
    slope: NDArray[np.float32] | float = 0.0
    own_depth = np.zeros(query.shape[0], np.float32)
    if depth is not None:
        own_depth = depth.query
        slope = slopes(own_depth[fitted], of_query)
        of_query -= np.outer(own_depth[fitted], slope)
        of_reference -= np.outer(depth.reference, slopes(depth.reference, of_reference))
    n_query, n_reference = len(of_query), len(of_reference)
    covariance = [part.T @ part / len(part) for part in (of_query, of_reference)]
    whole = (n_query * covariance[0] + n_reference * covariance[1]) / (n_query + n_reference)
    joint = leading(whole, N_JOINT)
    most = min(N_VECTORS, query.shape[1] // 2 + 1, n_query - 1, n_reference - 1)
    own = [leading(one, most) for one in covariance]
    left, cosines, _ = np.linalg.svd(own[1].T @ own[0])
    vectors = own[1] @ left[:, : max(int((cosines > _LEAST_COSINE).sum()), 1)]
    components = leading(covariance[1], min(N_RIDGE[-1], max(n_reference - 1, 1)))
    axes = np.hstack([joint, vectors, components]).astype(np.float32)
    placed = np.empty((query.shape[0], axes.shape[1]), np.float32)
    for start in range(0, query.shape[0], _CELLS_AT_ONCE):
        rows = slice(start, start + _CELLS_AT_ONCE)
        placed[rows] = (_standardised(logs[0][rows], mean, spread) - np.outer(own_depth[rows], slope)) @ axes
    edges = np.cumsum([0, joint.shape[1], vectors.shape[1], components.shape[1]])
    parts = {
        name: slice(int(edges[at]), int(edges[at + 1])) for at, name in enumerate(("joint", "vectors", "components"))
    }
    return Spaces(placed, of_reference @ axes, parts, depth)


def leading(covariance: NDArray[np.floating], n: int) -> NDArray[np.float64]:
    """Return the leading eigenvectors as columns, largest first, with signs that do not depend on the library."""
    size = len(covariance)
    n = max(1, min(n, size - 1))
    vectors = np.asarray(eigh(covariance.astype(np.float64), subset_by_index=(size - n, size - 1))[1])[:, ::-1]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(n)]
    signed: NDArray[np.float64] = vectors * np.where(largest < 0.0, -1.0, 1.0)
    return signed


def _standardised(
    logs: sparse.csr_matrix, mean: NDArray[np.float64], spread: NDArray[np.float64]
) -> NDArray[np.float32]:
    values = logs.toarray() - mean.astype(np.float32)
    values /= np.where(spread > 1e-6, spread, 1.0).astype(np.float32)
    # Nothing is known of a cell without counts: it stands at the mean, and not at the lowest value of every gene.
    values[np.asarray(logs.sum(axis=1)).ravel() == 0.0] = 0.0
    return np.asarray(values, dtype=np.float32)
