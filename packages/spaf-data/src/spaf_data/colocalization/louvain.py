"""Louvain communities (Blondel et al. 2008, doi:10.1088/1742-5468/2008/10/P10008) at resolution 1, deterministic.

Graphs of transcripts are dense (tens of neighbours a node, a handful of communities), and one run of Louvain often
ends some per cent below the best modularity. So single nodes are moved over a table of their links to every community,
in which a look at a node costs no walk over its neighbours, and the best of several starts is kept. A start is the
greedy cover of the graph by neighbourhoods, in a shuffled order of the nodes that depends on their number alone.

Nodes are numbered by the caller; equal gains leave a node where it is or send it to the lowest community. Gains are
compared as products of whole numbers, exact below 2**53, so that equal input gives equal communities on every machine.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy import sparse

from spaf_data.colocalization.graph import Graph, neighbours, widest_row

# With 8 starts no cell of a breast section (10x Xenium, 1,135 cells) ended 1 % below python-louvain; with 4, 0.4 % did.
_N_STARTS = 8

# Graphs with more nodes get one start: they take seconds each and their many communities average out.
_LARGE = 10_000

# Largest table of links, nodes x communities (int32, so 64 MB); above it nodes are moved over their neighbours.
_MAX_LINKS = 1 << 24


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
def _cover(graph, visit, buffer):  # type: ignore[no-untyped-def]
    """Start: each node not yet taken founds a community and takes its free neighbours into it."""
    labels = np.full(len(visit), -1, np.int32)
    n_labels = 0
    for i in visit:
        if labels[i] >= 0:
            continue
        labels[i] = n_labels
        row, start, stop = neighbours(graph, i, buffer)
        for k in range(start, stop):
            if labels[row[k]] < 0:
                labels[row[k]] = n_labels
        n_labels += 1
    return labels, n_labels


@njit(cache=True, nogil=True)
def _sum_by(labels, n_labels, values):  # type: ignore[no-untyped-def]
    sums = np.zeros(n_labels)
    for i in range(len(labels)):
        sums[labels[i]] += values[i]
    return sums


@njit(cache=True, nogil=True)
def _renumber(labels, n_labels):  # type: ignore[no-untyped-def]
    """Close the gaps that empty communities left, in place; return the new number of each and how many are left."""
    number = np.full(n_labels, -1, np.int32)
    for label in labels:
        number[label] = 0
    n = 0
    for c in range(n_labels):
        if number[c] == 0:
            number[c] = n
            n += 1
    for i in range(len(labels)):
        labels[i] = number[labels[i]]
    return number, n


@njit(cache=True, nogil=True)
def _count_links(graph, labels, n_labels, buffer):  # type: ignore[no-untyped-def]
    """Edges of each node into each community."""
    links = np.zeros((len(labels), n_labels), np.int32)
    for i in range(len(labels)):
        row, start, stop = neighbours(graph, i, buffer)
        own = np.uint32(labels[i])
        # This loop is a large part of the time. Each edge is entered at its other end, so that one addition does not
        # wait for the last; unsigned indices spare Numba's test for negative ones.
        for k in range(np.uint64(start), np.uint64(stop)):
            links[np.uint32(row[k]), own] += 1
    return links


@njit(cache=True, nogil=True)
def _move_by_links(graph, links, strength, total, labels, visit, buffer):  # type: ignore[no-untyped-def]
    """Move nodes to the linked community of largest gain until none moves, keeping `links` true."""
    n_labels = links.shape[1]
    community_strength = _sum_by(labels, n_labels, strength)
    moved = True
    while moved:
        moved = False
        for i in visit:
            own = labels[i]
            of_node = links[i]
            best = own
            best_gain = of_node[own] * total - strength[i] * (community_strength[own] - strength[i])
            for c in range(n_labels):
                if c != own and of_node[c] > 0:
                    gain = of_node[c] * total - strength[i] * community_strength[c]
                    if gain > best_gain:
                        best = np.int32(c)
                        best_gain = gain
            if best == own:
                continue
            moved = True
            labels[i] = best
            community_strength[own] -= strength[i]
            community_strength[best] += strength[i]
            row, start, stop = neighbours(graph, i, buffer)
            for k in range(np.uint64(start), np.uint64(stop)):
                links[np.uint32(row[k]), np.uint32(own)] -= 1
                links[np.uint32(row[k]), np.uint32(best)] += 1


@njit(cache=True, nogil=True)
def _fold(links, number, n_labels):  # type: ignore[no-untyped-def]
    """Add up the columns of communities with one new number; those without any (-1) are empty."""
    folded = np.zeros((links.shape[0], n_labels), np.int32)
    for i in range(links.shape[0]):
        for c in range(links.shape[1]):
            if number[c] >= 0:
                folded[i, number[c]] += links[i, c]
    return folded


@njit(cache=True, nogil=True)
def _stored_graph(indptr, indices, weights):  # type: ignore[no-untyped-def]
    none = np.empty(0)
    no_runs = np.empty((0, 3), np.int32)
    return Graph(indptr, indices, weights, none, none, none, no_runs, no_runs, 0.0)


@njit(cache=True, nogil=True)
def _merge_by_links(links, labels):  # type: ignore[no-untyped-def]
    """Make the graph whose nodes are the communities. Edges inside one are left out: they do not change a gain."""
    n_labels = links.shape[1]
    between = np.zeros((n_labels, n_labels))
    for i in range(len(labels)):
        for c in range(n_labels):
            between[labels[i], c] += links[i, c]
    indptr = np.zeros(n_labels + 1, np.int64)
    indices = np.empty(n_labels * n_labels, np.int32)
    weights = np.empty(n_labels * n_labels)
    n = 0
    for c in range(n_labels):
        for d in range(n_labels):
            if c != d and between[c, d] > 0:
                indices[n] = d
                weights[n] = between[c, d]
                n += 1
        indptr[c + 1] = n
    return _stored_graph(indptr, indices[:n], weights[:n])


@njit(cache=True, nogil=True)
def _merge_nodes(graph, labels, n_labels, buffer):  # type: ignore[no-untyped-def]
    """As `_merge_by_links`, without a table of links."""
    members, starts = group_nodes(labels, n_labels)
    weight_to = np.zeros(n_labels)
    touched = np.empty(n_labels, np.int32)
    indptr = np.zeros(n_labels + 1, np.int64)
    indices = np.empty(16 * n_labels, np.int32)
    weights = np.empty(16 * n_labels)
    for c in range(n_labels):
        n_touched = 0
        for i in members[starts[c] : starts[c + 1]]:
            row, start, stop = neighbours(graph, i, buffer)
            for k in range(start, stop):
                d = labels[row[k]]
                if d != c:
                    if weight_to[d] == 0.0:
                        touched[n_touched] = d
                        n_touched += 1
                    weight_to[d] += 1.0
        end = indptr[c] + n_touched
        if end > len(indices):
            indices = np.concatenate((indices, np.empty(end, np.int32)))
            weights = np.concatenate((weights, np.empty(end)))
        for t in range(n_touched):
            indices[indptr[c] + t] = touched[t]
            weights[indptr[c] + t] = weight_to[touched[t]]
            weight_to[touched[t]] = 0.0
        indptr[c + 1] = end
    return _stored_graph(indptr, indices[: indptr[-1]], weights[: indptr[-1]])


@njit(cache=True, nogil=True)
def _move_nodes(graph, strength, total, labels, n_labels, visit, buffer):  # type: ignore[no-untyped-def]
    """Move nodes to the neighbouring community of largest gain until none moves; return whether any did.

    A node is looked at again only after one of its neighbours has moved away from its community.
    """
    community_strength = _sum_by(labels, n_labels, strength)
    weighted = len(graph.weights) > 0
    weight_to = np.zeros(n_labels)
    touched = np.empty(n_labels, np.int32)
    waiting = np.ones(len(labels), np.bool_)
    any_moved = False
    moved = True
    while moved:
        moved = False
        for i in visit:
            if not waiting[i]:
                continue
            waiting[i] = False
            row, start, stop = neighbours(graph, i, buffer)
            n_touched = 0
            for k in range(start, stop):
                c = labels[row[k]]
                if weight_to[c] == 0.0:
                    touched[n_touched] = c
                    n_touched += 1
                weight_to[c] += graph.weights[k] if weighted else 1.0
            own = labels[i]
            best = own
            best_gain = weight_to[own] * total - strength[i] * (community_strength[own] - strength[i])
            for c in touched[:n_touched]:
                if c != own:
                    gain = weight_to[c] * total - strength[i] * community_strength[c]
                    if gain > best_gain or (gain == best_gain and best != own and c < best):
                        best = c
                        best_gain = gain
                weight_to[c] = 0.0
            if best == own:
                continue
            moved = True
            any_moved = True
            labels[i] = best
            community_strength[own] -= strength[i]
            community_strength[best] += strength[i]
            for k in range(start, stop):
                if labels[row[k]] != best:
                    waiting[row[k]] = True
    return any_moved


@njit(cache=True, nogil=True)
def _climb(graph, strength, total, visit, buffer, max_links):  # type: ignore[no-untyped-def]
    """One run: move single nodes, merge communities, and begin again, until no merge raises modularity.

    Returns the communities, their number, and modularity times the square of the total strength, a whole number.
    """
    labels, n_labels = _cover(graph, visit, buffer)
    tabulated = len(labels) * n_labels <= max_links
    links = np.empty((0, 0), np.int32)
    if tabulated:
        links = _count_links(graph, labels, n_labels, buffer)
    while True:
        if tabulated:
            _move_by_links(graph, links, strength, total, labels, visit, buffer)
        else:
            _move_nodes(graph, strength, total, labels, n_labels, visit, buffer)
        number, n_left = _renumber(labels, n_labels)
        if tabulated and n_left < n_labels:
            links = _fold(links, number, n_left)
        n_labels = n_left
        level = _merge_by_links(links, labels) if tabulated else _merge_nodes(graph, labels, n_labels, buffer)
        above = np.arange(n_labels).astype(np.int32)
        level_strength = _sum_by(labels, n_labels, strength)
        if not _move_nodes(level, level_strength, total, above, n_labels, np.arange(n_labels), buffer):
            break
        _, n_above = _renumber(above, n_labels)
        if tabulated:
            links = _fold(links, above, n_above)
        for i in range(len(labels)):
            labels[i] = above[labels[i]]
        n_labels = n_above
    between = level.weights.sum()
    return labels, n_labels, (total - between) * total - (level_strength**2).sum()


@njit(cache=True, nogil=True)
def find_communities(graph, degree):  # type: ignore[no-untyped-def]
    """Return the community of each node, int32, from 0, and their number."""
    n = len(degree)
    strength = degree.astype(np.float64)
    total = strength.sum()
    best_labels = np.arange(n).astype(np.int32)
    best_n = n
    if total == 0:
        return best_labels, best_n
    buffer = np.empty(widest_row(graph), np.int32)
    best = -np.inf
    n_starts = _N_STARTS if n <= _LARGE else 1
    for start in range(n_starts):
        labels, n_labels, quality = _climb(graph, strength, total, _shuffled(n, start), buffer, _MAX_LINKS)
        if quality > best:
            best, best_labels, best_n = quality, labels, n_labels
    return best_labels, best_n


@njit(cache=True, nogil=True)
def group_nodes(labels, n_labels):  # type: ignore[no-untyped-def]
    """Return the nodes sorted by label, and where each label starts."""
    starts = np.zeros(n_labels + 1, np.int64)
    for label in labels:
        starts[label + 1] += 1
    for c in range(n_labels):
        starts[c + 1] += starts[c]
    free = starts[:-1].copy()
    members = np.empty(len(labels), np.int64)
    for i in range(len(labels)):
        members[free[labels[i]]] = i
        free[labels[i]] += 1
    return members, starts


# Apart from `find_communities` for the reason that `proximity_graph` has a kernel of its own.
@njit(cache=True, nogil=True)
def _label_nodes(indptr, indices):  # type: ignore[no-untyped-def]
    return find_communities(_stored_graph(indptr, indices, np.empty(0)), np.diff(indptr))[0]


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
    return _label_nodes(adjacency.indptr.astype(np.int64), adjacency.indices.astype(np.int32))


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
