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
from spaf_data.ordering import order_rows

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


class Nodes(NamedTuple):
    """The transcripts of some cells as nodes of their graphs, cell after cell, with no row stored."""

    order: np.ndarray  # int64 (n_nodes), the row of each node among the transcripts
    x: np.ndarray  # float64 (n_nodes), um
    y: np.ndarray
    z: np.ndarray
    low: np.ndarray  # int32 (n_nodes, 3), as in `Graph`, counted from the first node of the cell
    high: np.ndarray  # int32 (n_nodes, 3)

    def graph(self, rows: slice, radius: float) -> Graph:
        """Return the graph of the nodes of one cell."""
        return Graph(
            np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float64),
            self.x[rows], self.y[rows], self.z[rows], self.low[rows], self.high[rows], radius,
        )  # fmt: skip


def arrange(x: np.ndarray, y: np.ndarray, z: np.ndarray, gene: np.ndarray, first: np.ndarray, radius: float) -> Nodes:
    """Arrange the transcripts of cells, of which cell ``i`` has the rows ``first[i]:first[i + 1]``, as nodes.

    By NumPy for all cells of a batch at once: its sorts are as fast as compiled ones, and there to begin with.
    """
    strip, last_strip = _strips(x, first, radius)
    # Strips numbered on from cell to cell.
    of_cell = np.cumsum(last_strip + 1) - (last_strip + 1)
    order = order_rows(strip + np.repeat(of_cell, np.diff(first)), y, x, z, gene)
    y_sorted = y[order].astype(np.float64)
    low, high = np.empty((len(x), 3), np.int32), np.empty((len(x), 3), np.int32)
    _candidate_runs(strip[order], y_sorted, first, radius, low, high)
    return Nodes(order, x[order].astype(np.float64), y_sorted, z[order].astype(np.float64), low, high)


def _strips(x: np.ndarray, first: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the strip of each transcript, from 0 in each cell, and the last strip of each cell."""
    n = np.diff(first)
    filled = n > 0
    last_strip = np.zeros(len(n), np.int64)
    if not filled.any():
        return np.empty(0, np.int64), last_strip
    begin = first[:-1][filled]
    left = np.repeat(np.minimum.reduceat(x, begin), n[filled])
    strip = np.floor((x.astype(np.float64) - left) / (radius * _STRIP_SLACK)).astype(np.int64)
    last_strip[filled] = np.maximum.reduceat(strip, begin)
    return strip, last_strip


@njit(cache=True, nogil=True)
def _candidate_runs(strip, y, first_node, radius, low, high):  # type: ignore[no-untyped-def]
    """Write the rows of the strip before, the same and the next within `radius` in y, for rows sorted by (strip, y)."""
    for cell in range(len(first_node) - 1):
        start = first_node[cell]
        stop = first_node[cell + 1]
        for side in range(3):
            first = start
            last = start
            for i in range(start, stop):
                target = strip[i] + side - 1
                # Rows are sorted by (strip, y), so both ends of the run only ever move forward.
                while first < stop and (strip[first] < target or (strip[first] == target and y[first] < y[i] - radius)):
                    first += 1
                if last < first:
                    last = first
                while last < stop and strip[last] == target and y[last] <= y[i] + radius:
                    last += 1
                low[i, side] = first - start
                high[i, side] = last - start


@njit(cache=True, nogil=True)
def add_neighbours(x, y, z, low, high, radius, i, near):  # type: ignore[no-untyped-def]
    """Add 1 to `near`, numbers of shape (n_nodes,), at each neighbour of node `i` of a cell."""
    x_i, y_i, z_i = x[i], y[i], z[i]
    limit = radius * radius
    for side in range(3):
        # Slices and no branch, so that the loop compiles to vector instructions.
        run = slice(low[i, side], high[i, side])
        run_x, run_y, run_z, run_near = x[run], y[run], z[run], near[run]
        for k in range(len(run_x)):
            dx = run_x[k] - x_i
            dy = run_y[k] - y_i
            dz = run_z[k] - z_i
            run_near[k] += dx * dx + dy * dy + dz * dz <= limit
    near[i] -= 1


@njit(cache=True, nogil=True)
def find_neighbours(x, y, z, low, high, radius, i, found):  # type: ignore[no-untyped-def]
    """Write the neighbours of node `i` of a cell into `found`, in ascending order, and return their number."""
    x_i, y_i, z_i = x[i], y[i], z[i]
    limit = radius * radius
    n = np.uint64(0)
    own = np.uint64(i)
    for side in range(3):
        # Unsigned indices spare Numba's test for negative ones.
        for j in range(np.uint64(low[i, side]), np.uint64(high[i, side])):
            dx = x[j] - x_i
            dy = y[j] - y_i
            dz = z[j] - z_i
            found[n] = j
            n += np.uint64((dx * dx + dy * dy + dz * dz <= limit) & (j != own))
    return np.int64(n)


@njit(cache=True, nogil=True)
def _find(graph, i, found):  # type: ignore[no-untyped-def]
    return find_neighbours(graph.x, graph.y, graph.z, graph.low, graph.high, graph.radius, i, found)


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
    return buffer, np.int64(0), _find(graph, i, buffer)


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
def _stored_rows(graph):  # type: ignore[no-untyped-def]
    stored, _ = store_rows(graph, np.iinfo(np.int64).max)
    return stored.indptr, stored.indices


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
    nodes = arrange(x, y, z, np.zeros(n, np.int32), np.array([0, n]), float(radius))
    indptr, indices = _stored_rows(nodes.graph(slice(0, n), float(radius)))
    adjacency = sparse.csr_array((np.ones(len(indices), np.int8), indices, indptr), shape=(n, n))
    rank = np.empty(n, np.int64)
    rank[nodes.order] = np.arange(n)
    return adjacency[rank][:, rank]


def check_radius(radius: float) -> None:
    """Raise `InputError` unless the radius is a positive, finite number of um."""
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(f"radius is {radius}; it must be a positive number of um")
