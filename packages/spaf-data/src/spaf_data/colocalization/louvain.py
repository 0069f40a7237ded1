"""Louvain communities (Blondel et al. 2008, doi:10.1088/1742-5468/2008/10/P10008) at resolution 1, deterministic.

Graphs of transcripts are dense (tens of neighbours a node, a handful of communities), and one run of Louvain often
ends some per cent below the best modularity. So the best of several starts is kept, and a start is cheap: the greedy
cover of the graph by neighbourhoods, in a shuffled order of the nodes that depends on their number alone. Single nodes
are moved to the linked community of largest gain until none gains, communities are merged by the same rule, and so on
until no merge gains. Graphs of up to `MAX_DENSE` nodes do so over a matrix, larger ones over lists of neighbours.

Nodes are numbered by the caller; equal gains leave a node where it is or send it to the lowest community. Gains are
compared as products of whole numbers, exact below 2**53, so that equal input gives equal communities on every machine.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy import sparse

from spaf_data.colocalization.dense_louvain import climb_dense
from spaf_data.colocalization.graph import MAX_DENSE, adjacency_matrix, store_rows, widest_row
from spaf_data.colocalization.sparse_louvain import climb_sparse, stored_graph

# With 8 starts no cell of a breast section (10x Xenium, 1,135 cells) ended 1 % below python-louvain; with 6, three did.
_N_STARTS = 8

# Gains of graphs of up to this many nodes fit into 32 bits: none exceeds the cube of it.
_MAX_32_BITS = 1290

# Graphs with more nodes get one start: they take seconds each and their many communities average out.
_LARGE = 10_000


@njit(cache=True, nogil=True)
def _shuffled(n, seed):  # type: ignore[no-untyped-def]
    """Fisher-Yates shuffle of the nodes with a linear congruential generator (Knuth's MMIX constants)."""
    visit = np.arange(n)
    state = np.uint64(seed)
    for v in range(n - 1, 0, -1):
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        u = np.int64((state >> np.uint64(33)) % np.uint64(v + 1))
        visit[v], visit[u] = visit[u], visit[v]
    return visit


@njit(cache=True, nogil=True)
def _best_of_starts(near, strength, total):  # type: ignore[no-untyped-def]
    """Communities of the best start, and their number."""
    best = np.iinfo(np.int64).min
    labels = np.empty(0, np.int32)
    n_labels = 0
    for start in range(_N_STARTS):
        found, n_found, quality = climb_dense(near, strength, total, _shuffled(len(near), start))
        if quality > best:
            best, labels, n_labels = quality, found, n_found
    return labels, n_labels


@njit(cache=True, nogil=True)
def _best_dense(near):  # type: ignore[no-untyped-def]
    """Communities of a graph whose adjacency is a matrix of bytes, and their number."""
    n = len(near)
    strength = np.empty(n, np.int64)
    for i in range(n):
        strength[i] = near[i].sum()
    total = strength.sum()
    if total == 0:
        return np.arange(n).astype(np.int32), n
    if n <= _MAX_32_BITS:
        labels, n_labels = _best_of_starts(near, strength.astype(np.int32), total)
    else:
        labels, n_labels = _best_of_starts(near, strength, total)
    for i in range(n):
        if strength[i] == 0:
            labels[i] = n_labels
            n_labels += 1
    return labels, n_labels


@njit(cache=True, nogil=True)
def _best_sparse(graph, degree):  # type: ignore[no-untyped-def]
    """Communities of a graph with stored or searched rows, and their number."""
    n = len(degree)
    strength = degree.astype(np.float64)
    total = strength.sum()
    labels = np.arange(n).astype(np.int32)
    n_labels = n
    if total == 0:
        return labels, n_labels
    buffer = np.empty(widest_row(graph), np.int32)
    best = -np.inf
    for start in range(_N_STARTS if n <= _LARGE else 1):
        found, n_found, quality = climb_sparse(graph, strength, total, _shuffled(n, start), buffer)
        if quality > best:
            best, labels, n_labels = quality, found, n_found
    return labels, n_labels


@njit(cache=True, nogil=True)
def find_communities(graph, max_dense, max_stored):  # type: ignore[no-untyped-def]
    """Return the community of each node of an arranged graph, int32, from 0, and their number.

    Graphs of up to `max_dense` nodes become a matrix; larger ones store rows of up to `max_stored` candidates in all.
    """
    if len(graph.x) <= max_dense:
        return _best_dense(adjacency_matrix(graph))
    stored, degree = store_rows(graph, max_stored)
    return _best_sparse(stored, degree)


# Apart from `find_communities` for the reason that `proximity_graph` has a kernel of its own.
@njit(cache=True, nogil=True)
def _label_matrix(near):  # type: ignore[no-untyped-def]
    return _best_dense(near)[0]


@njit(cache=True, nogil=True)
def _label_rows(indptr, indices):  # type: ignore[no-untyped-def]
    return _best_sparse(stored_graph(indptr, indices, np.empty(0)), np.diff(indptr))[0]


def louvain(adjacency: sparse.csr_array | sparse.csr_matrix) -> np.ndarray:
    """Return the Louvain community of each node of an undirected, unweighted graph, at resolution 1.

    Parameters
    ----------
    adjacency
        Symmetric, shape (n, n), without diagonal. Every stored entry is an edge of weight 1.

    Returns
    -------
    Community of each node, int32, shape (n,), numbered from 0; a node without an edge is one of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> two_triangles = sparse.block_diag([1 - np.eye(3)] * 2, format="csr")
    >>> labels = louvain(two_triangles)
    >>> len(set(labels[:3])), len(set(labels[3:])), labels[0] == labels[3]
    (1, 1, np.False_)
    """
    adjacency = sparse.csr_array(adjacency)
    adjacency.eliminate_zeros()
    if adjacency.shape[0] <= MAX_DENSE:
        labels: np.ndarray = _label_matrix((adjacency.toarray() != 0).astype(np.uint8))
    else:
        labels = _label_rows(adjacency.indptr.astype(np.int64), adjacency.indices.astype(np.int32))
    return labels


def modularity(adjacency: sparse.csr_array | sparse.csr_matrix, labels: np.ndarray) -> float:
    """Return Newman's modularity, in [-0.5, 1], of a partition of an undirected graph at resolution 1; 0 without edges.

    Parameters
    ----------
    adjacency
        Symmetric, shape (n, n), without diagonal; entries are weights.
    labels
        Community of each node, whole numbers from 0, shape (n,).
    """
    edges = adjacency.tocoo()
    weights = edges.data.astype(np.float64)
    total = weights.sum()
    if total == 0:
        return 0.0
    strength = np.bincount(labels[edges.row], weights=weights)
    inside = weights[labels[edges.row] == labels[edges.col]].sum()
    return float(inside / total - ((strength / total) ** 2).sum())
