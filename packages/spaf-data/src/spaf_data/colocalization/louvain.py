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
from scipy import sparse

from spaf_data.colocalization.dense_louvain import MAX_32_BITS, label_dense, label_matrix
from spaf_data.colocalization.graph import MAX_DENSE, Nodes
from spaf_data.colocalization.sparse_louvain import label_graph, label_rows


def label_nodes(
    nodes: Nodes, first: np.ndarray, radius: float, *, max_dense: int, max_stored: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the community of each node of some cells, int32, from 0 in each cell, and their number in each cell.

    Graphs of up to `max_dense` nodes become a matrix; larger ones store rows of up to `max_stored` candidates in all.
    A kernel is compiled when there are cells of its size.
    """
    n = np.diff(first)
    labels = np.empty(first[-1], np.int32)
    n_labels = np.empty(len(n), np.int64)
    short = n <= min(max_dense, MAX_32_BITS)
    for chosen, whole in ((short, np.int32), ((n <= max_dense) & ~short, np.int64)):
        cells = np.flatnonzero(chosen)
        if len(cells):
            label_dense(
                cells, first, nodes.x, nodes.y, nodes.z, nodes.low, nodes.high, radius,
                np.empty(n[cells].max(), whole), labels, n_labels,
            )  # fmt: skip
    for cell in np.flatnonzero(n > max_dense):
        rows = slice(first[cell], first[cell + 1])
        labels[rows], n_labels[cell] = label_graph(nodes.graph(rows, radius), max_stored)
    return labels, n_labels


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
    n = adjacency.shape[0]
    if n > MAX_DENSE:
        found: np.ndarray = label_rows(adjacency.indptr.astype(np.int64), adjacency.indices.astype(np.int32))
        return found
    labels = np.empty(n, np.int32)
    strength = np.empty(n, np.int32 if n <= MAX_32_BITS else np.int64)
    label_matrix((adjacency.toarray() != 0).astype(np.uint8), strength, labels)
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
