"""Proximity graph of the transcripts of one cell: which lie within a radius of which.

Transcripts are sorted into strips along x that are as wide as the radius, and by y inside a strip. The neighbours of a
transcript then lie in three runs of rows, one a strip, that are found by walking both ends forward: about 1.9
candidates a neighbour, tested without a branch, and the same order of nodes whatever the order of the input.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from scipy import sparse

from spaf_data import defaults
from spaf_data.errors import InputError

# Cells of up to this many transcripts have their graph as a matrix of bytes (16 MB).
MAX_DENSE = 4096

# Above this many candidates (int32, so 64 MB) a larger cell's neighbours are found anew each time instead of stored.
MAX_STORED = 1 << 24

# Strips are wider than the radius by this factor, so that rounding never puts two neighbours two strips apart.
_STRIP_SLACK = 1.0 + 1e-6


class Graph(NamedTuple):
    """An undirected graph for the kernels: stored rows where `indptr` is not empty, runs of candidates otherwise."""

    indptr: np.ndarray  # int64 (n_nodes + 1), or empty
    indices: np.ndarray  # int32 (n_directed_edges)
    weights: np.ndarray  # float64 (n_directed_edges), or empty where every edge weighs 1
    x: np.ndarray  # float64 (n_nodes), um
    y: np.ndarray
    z: np.ndarray
    low: np.ndarray  # int32 (n_nodes, 3): first candidate in the strip before, the same strip, the strip after
    high: np.ndarray  # int32 (n_nodes, 3): one past the last candidate
    radius: float


@njit(cache=True, nogil=True)
def _precedes(i, j, x, y, z, gene):  # type: ignore[no-untyped-def]
    if y[i] != y[j]:
        return y[i] < y[j]
    if x[i] != x[j]:
        return x[i] < x[j]
    if z[i] != z[j]:
        return z[i] < z[j]
    return gene[i] < gene[j]


@njit(cache=True, nogil=True)
def _canonical_order(strip, x, y, z, gene):  # type: ignore[no-untyped-def]
    """Order by (strip, y, x, z, gene); the few nodes of one strip and one y to single precision by insertion."""
    n = len(x)
    key = np.empty(n, np.uint64)
    bits = (y.astype(np.float32) + np.float32(0.0)).view(np.uint32)  # the sum turns -0 into 0
    for i in range(n):
        # The bits of floats sort as numbers do once negative ones are flipped and the others get the top bit.
        flip = np.uint32(0xFFFFFFFF) if bits[i] >> np.uint32(31) else np.uint32(0x80000000)
        key[i] = (np.uint64(strip[i]) << np.uint64(32)) | np.uint64(bits[i] ^ flip)
    order = np.argsort(key)
    for k in range(1, n):
        node = order[k]
        while k > 0 and key[order[k - 1]] == key[node] and _precedes(node, order[k - 1], x, y, z, gene):
            order[k] = order[k - 1]
            k -= 1
        order[k] = node
    return order


@njit(cache=True, nogil=True)
def _candidate_runs(strip, y, radius):  # type: ignore[no-untyped-def]
    """Rows of the strip before, the same and the next within `radius` in y, for rows sorted by (strip, y)."""
    n = len(strip)
    low = np.zeros((n, 3), np.int32)
    high = np.zeros((n, 3), np.int32)
    for side in range(3):
        first = 0
        last = 0
        for i in range(n):
            target = strip[i] + side - 1
            # Rows are sorted by (strip, y), so both ends of the run only ever move forward.
            while first < n and (strip[first] < target or (strip[first] == target and y[first] < y[i] - radius)):
                first += 1
            last = max(last, first)
            while last < n and strip[last] == target and y[last] <= y[i] + radius:
                last += 1
            low[i, side] = first
            high[i, side] = last
    return low, high


@njit(cache=True, nogil=True)
def arrange(x, y, z, gene, radius):  # type: ignore[no-untyped-def]
    """Return the order in which the transcripts of a cell are its nodes, and its graph with no row stored."""
    n = len(x)
    if n == 0:
        strip = np.empty(0, np.int64)
    else:
        strip = np.floor((x.astype(np.float64) - x.min()) / (radius * _STRIP_SLACK)).astype(np.int64)
    order = _canonical_order(strip, x, y, z, gene)
    y_sorted = y[order].astype(np.float64)
    low, high = _candidate_runs(strip[order], y_sorted, radius)
    return order, Graph(
        np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float64),
        x[order].astype(np.float64), y_sorted, z[order].astype(np.float64), low, high, radius,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def add_neighbours(graph, i, near):  # type: ignore[no-untyped-def]
    """Add 1 to `near`, integers of shape (n_nodes,), at each neighbour of node `i`."""
    x, y, z = graph.x[i], graph.y[i], graph.z[i]
    limit = graph.radius * graph.radius
    for side in range(3):
        # Slices and no branch, so that the loop compiles to vector instructions.
        run = slice(graph.low[i, side], graph.high[i, side])
        run_x, run_y, run_z, run_near = graph.x[run], graph.y[run], graph.z[run], near[run]
        for k in range(len(run_x)):
            dx = run_x[k] - x
            dy = run_y[k] - y
            dz = run_z[k] - z
            run_near[k] += dx * dx + dy * dy + dz * dz <= limit
    near[i] -= 1


@njit(cache=True, nogil=True)
def adjacency_matrix(graph):  # type: ignore[no-untyped-def]
    """Return the adjacency as bytes, shape (n_nodes, n_nodes)."""
    n = len(graph.x)
    matrix = np.zeros((n, n), np.uint8)
    for i in range(n):
        add_neighbours(graph, i, matrix[i])
    return matrix


@njit(cache=True, nogil=True)
def _find(graph, i, found):  # type: ignore[no-untyped-def]
    """Write the neighbours of node `i` into `found`, in ascending order, and return their number."""
    x, y, z = graph.x[i], graph.y[i], graph.z[i]
    limit = graph.radius * graph.radius
    n = np.uint64(0)
    own = np.uint64(i)
    for side in range(3):
        # Unsigned indices spare Numba's test for negative ones.
        for j in range(np.uint64(graph.low[i, side]), np.uint64(graph.high[i, side])):
            dx = graph.x[j] - x
            dy = graph.y[j] - y
            dz = graph.z[j] - z
            found[n] = j
            n += np.uint64((dx * dx + dy * dy + dz * dz <= limit) & (j != own))
    return n


@njit(cache=True, nogil=True)
def widest_row(graph):  # type: ignore[no-untyped-def]
    """Size of the buffer that `neighbours` needs; 0 when rows are stored."""
    if len(graph.indptr) > 0:
        return 0
    widest = 0
    for i in range(len(graph.x)):
        candidates = 0
        for side in range(3):
            candidates += graph.high[i, side] - graph.low[i, side]
        widest = max(widest, candidates)
    return widest


@njit(cache=True, nogil=True)
def neighbours(graph, i, buffer):  # type: ignore[no-untyped-def]
    """Return an array and the slice of it that holds the neighbours of node `i`; `buffer` is used if none is stored."""
    if len(graph.indptr) > 0:
        return graph.indices, graph.indptr[i], graph.indptr[i + 1]
    return buffer, np.int64(0), np.int64(_find(graph, i, buffer))


@njit(cache=True, nogil=True)
def store_rows(graph, max_stored):  # type: ignore[no-untyped-def]
    """Store the rows of a graph if they have at most `max_stored` candidates; return it and the degree of each node."""
    n = len(graph.x)
    degree = np.empty(n, np.int64)
    n_candidates = np.int64(0)
    for i in range(n):
        for side in range(3):
            n_candidates += graph.high[i, side] - graph.low[i, side]
    if n_candidates > max_stored:
        buffer = np.empty(widest_row(graph), np.int32)
        for i in range(n):
            degree[i] = _find(graph, i, buffer)
        return graph, degree
    indptr = np.zeros(n + 1, np.int64)
    indices = np.empty(n_candidates, np.int32)
    for i in range(n):
        degree[i] = _find(graph, i, indices[indptr[i] :])
        indptr[i + 1] = indptr[i] + degree[i]
    stored = Graph(
        indptr, indices[: indptr[n]], graph.weights, graph.x, graph.y, graph.z, graph.low, graph.high, graph.radius
    )
    return stored, degree


# What Python calls is not called by other kernels: a cached kernel that is both loses its environment when the caller
# is loaded first (Numba 0.68: SystemError, "'descr' is NULL").
@njit(cache=True, nogil=True)
def _adjacency(x, y, z, radius):  # type: ignore[no-untyped-def]
    order, graph = arrange(x, y, z, np.zeros(len(x), np.int32), radius)
    stored, _ = store_rows(graph, np.iinfo(np.int64).max)
    return order, stored.indptr, stored.indices


def proximity_graph(coordinates: np.ndarray, *, radius: float = defaults.COLOCALIZATION_RADIUS) -> sparse.csr_array:
    """Return the graph of the transcripts of one cell that lie within a radius of each other.

    Parameters
    ----------
    coordinates
        Positions in um, shape (n_transcripts, 2) or (n_transcripts, 3).
    radius
        Largest distance in um, inclusive.

    Returns
    -------
    Symmetric adjacency, shape (n_transcripts, n_transcripts), int8, without diagonal, in the order of the input.

    Raises
    ------
    InputError
        If the coordinates have another shape or are not finite, or the radius is not positive.

    Notes
    -----
    The kernels of this package never make this matrix for a very dense cell: see `MAX_STORED`.

    Examples
    --------
    >>> import numpy as np
    >>> proximity_graph(np.array([[0.0, 0.0], [3.0, 0.0], [9.0, 0.0]])).toarray().tolist()
    [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    coordinates = np.asarray(coordinates)
    if coordinates.ndim != 2 or coordinates.shape[1] not in (2, 3):
        raise InputError(f"coordinates have the shape {coordinates.shape}; they need 2 or 3 columns")
    if not np.isfinite(coordinates).all():
        raise InputError("coordinates hold NaN or infinite values")
    check_radius(radius)
    n = len(coordinates)
    x, y = (np.ascontiguousarray(coordinates[:, k], dtype=np.float64) for k in (0, 1))
    z = np.ascontiguousarray(coordinates[:, 2], dtype=np.float64) if coordinates.shape[1] == 3 else np.zeros(n)
    order, indptr, indices = _adjacency(x, y, z, float(radius))
    adjacency = sparse.csr_array((np.ones(len(indices), np.int8), indices, indptr), shape=(n, n))
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    return adjacency[rank][:, rank]


def check_radius(radius: float) -> None:
    """Raise `InputError` unless the radius is a positive, finite number of um."""
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(f"radius is {radius}; it must be a positive number of um")
