"""Louvain moves over a matrix of bytes, for graphs of a few thousand nodes: see louvain.py for the method.

The links of every node to every community are kept in a table. A move then adds and takes away one row of the matrix,
and all nodes are screened for a better community at once: both are loops over whole rows, which compile to vector
instructions. Only nodes that the screening names are looked at one by one.

Plain loops into arrays that are there already, rather than functions of arrays: each of those is compiled on its own.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spaf_data.colocalization.graph import add_neighbours

# Gains of graphs of up to this many nodes fit into 32 bits: none exceeds the cube of it.
MAX_32_BITS = 1290

# With 8 starts no cell of a breast section (10x Xenium, 1,135 cells) ended 1 % below python-louvain; with 6, three did.
N_STARTS = 8


@njit(cache=True, nogil=True)
def shuffle(visit, seed):  # type: ignore[no-untyped-def]
    """Write the nodes in an order by Fisher and Yates, from a linear congruential generator (Knuth's MMIX)."""
    for v in range(len(visit)):
        visit[v] = v
    state = np.uint64(seed)
    for v in range(len(visit) - 1, 0, -1):
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        u = np.int64((state >> np.uint64(33)) % np.uint64(v + 1))
        visit[v], visit[u] = visit[u], visit[v]


@njit(cache=True, nogil=True)
def _cover(near, strength, visit, labels):  # type: ignore[no-untyped-def]
    """Start: each node not yet taken founds a community and takes its free neighbours; the rest get label 0."""
    n = len(visit)
    for i in range(n):
        labels[i] = -1 if strength[i] > 0 else 0
    n_labels = 0
    for i in visit:
        if labels[i] >= 0:
            continue
        row = near[i]
        label = np.int32(n_labels)
        for j in range(n):
            labels[j] = label if (labels[j] < 0) & (row[j] > 0) else labels[j]
        labels[i] = label
        n_labels += 1
    return n_labels


@njit(cache=True, nogil=True)
def _screen(links, n_labels, strength, total, labels, community_strength, best_gain, own_gain):  # type: ignore[no-untyped-def]
    """Write the largest gain that any community gives each node, and the gain of its own."""
    whole = best_gain.dtype.type  # products in 32 bits are ten times as fast, so they are not left to be widened
    best_gain[:] = np.iinfo(best_gain.dtype).min
    own_gain[:] = 0
    for c in range(n_labels):
        of_community = links[c]
        strength_c = whole(community_strength[c])
        if strength_c == 0:
            continue
        label = np.int32(c)
        for i in range(len(labels)):
            gain = whole(of_community[i] * whole(total) - strength[i] * strength_c)
            best_gain[i] = gain if gain > best_gain[i] else best_gain[i]
            own_gain[i] = whole(gain + strength[i] * strength[i]) if labels[i] == label else own_gain[i]


@njit(cache=True, nogil=True)
def _move_nodes(near, links, n_labels, strength, total, labels, community_strength, visit, best_gain, own_gain):  # type: ignore[no-untyped-def]
    """Move nodes to the linked community of largest gain until none moves, keeping `links` true."""
    n = len(labels)
    moved = True
    while moved:
        moved = False
        _screen(links, n_labels, strength, total, labels, community_strength, best_gain, own_gain)
        for i in visit:
            if best_gain[i] <= own_gain[i]:
                continue
            own = labels[i]
            best = own
            best_of_node = links[own, i] * total - strength[i] * (community_strength[own] - strength[i])
            for c in range(n_labels):
                if c != own and links[c, i] > 0:
                    gain = links[c, i] * total - strength[i] * community_strength[c]
                    if gain > best_of_node:
                        best = np.int32(c)
                        best_of_node = gain
            if best == own:
                continue
            moved = True
            labels[i] = best
            community_strength[own] -= strength[i]
            community_strength[best] += strength[i]
            row, left, joined = near[i], links[own], links[best]
            for j in range(n):
                left[j] -= row[j]
            for j in range(n):
                joined[j] += row[j]


@njit(cache=True, nogil=True)
def _links_between(links, n_labels, labels, community_strength, between):  # type: ignore[no-untyped-def]
    """Write the edges from each community to each, twice those inside."""
    for c in range(n_labels):
        to = between[c]
        to[:n_labels] = 0
        if community_strength[c] == 0:
            continue
        of_community = links[c]
        for i in range(len(labels)):
            to[labels[i]] += of_community[i]


@njit(cache=True, nogil=True)
def _move_communities(between, n_labels, community_strength, total, group, group_strength, links):  # type: ignore[no-untyped-def]
    """Join communities as `_move_nodes` joins nodes: write the group of each, and return whether any joined another."""
    for c in range(n_labels):
        group[c] = c
        group_strength[c] = community_strength[c]
    any_moved = False
    moved = True
    while moved:
        moved = False
        for c in range(n_labels):
            if community_strength[c] == 0:
                continue
            own = group[c]
            links[:n_labels] = 0
            for d in range(n_labels):
                if d != c:
                    links[group[d]] += between[c, d]
            best = own
            best_gain = links[own] * total - community_strength[c] * (group_strength[own] - community_strength[c])
            for d in range(n_labels):
                if d != own and links[d] > 0:
                    gain = links[d] * total - community_strength[c] * group_strength[d]
                    if gain > best_gain:
                        best = d
                        best_gain = gain
            if best != own:
                moved = True
                any_moved = True
                group[c] = best
                group_strength[own] -= community_strength[c]
                group_strength[best] += community_strength[c]
    return any_moved


@njit(cache=True, nogil=True)
def _merge(links, n_labels, labels, community_strength, group, number):  # type: ignore[no-untyped-def]
    """Make one community of each group, in place, relabelling; empty ones vanish. Return how many are left."""
    n = len(labels)
    number[:n_labels] = -1
    n_left = 0
    for c in range(n_labels):
        strength = community_strength[c]
        if strength == 0:
            continue
        of_group = number[group[c]]
        if of_group < 0:
            # Numbers are given in ascending order, so this row is that of `c` or was read before.
            number[group[c]] = n_left
            if n_left < c:
                into, row = links[n_left], links[c]
                for j in range(n):
                    into[j] = row[j]
            community_strength[n_left] = strength
            n_left += 1
        else:
            total, row = links[of_group], links[c]
            for j in range(n):
                total[j] += row[j]
            community_strength[of_group] += strength
    for i in range(n):
        labels[i] = number[group[labels[i]]]
    return n_left


@njit(cache=True, nogil=True)
def climb_dense(near, strength, total, visit, labels):  # type: ignore[no-untyped-def]
    """One run from one start, on a graph with edges whose adjacency is a matrix of bytes.

    `strength` is of whole numbers whose type holds the cube of the number of nodes, which no gain exceeds. Nodes
    without an edge stay where they are put. Writes the communities into `labels`, int32, and returns their number, and
    modularity times the square of the total strength, a whole number.
    """
    n = len(labels)
    n_labels = _cover(near, strength, visit, labels)
    links = np.empty((n_labels, n), np.int16)  # edges of each node into each community
    between = np.empty((n_labels, n_labels), np.int64)
    community_strength = np.empty(n_labels, np.int64)
    group_strength = np.empty(n_labels, np.int64)
    links_of_one = np.empty(n_labels, np.int64)
    group = np.empty(n_labels, np.int64)
    number = np.empty(n_labels, np.int64)
    best_gain = np.empty_like(strength)
    own_gain = np.empty_like(strength)
    for c in range(n_labels):
        links[c] = 0
        community_strength[c] = 0
    for i in range(n):
        community_strength[labels[i]] += strength[i]
        row, of_community = near[i], links[labels[i]]
        for j in range(n):
            of_community[j] += row[j]
    n_before = n_labels
    any_moved = True
    while any_moved:
        _move_nodes(near, links, n_labels, strength, total, labels, community_strength, visit, best_gain, own_gain)
        _links_between(links, n_labels, labels, community_strength, between)
        any_moved = _move_communities(between, n_labels, community_strength, total, group, group_strength, links_of_one)
        n_before = n_labels
        n_labels = _merge(links, n_labels, labels, community_strength, group, number)
    quality = np.int64(0)
    for c in range(n_before):
        quality += between[c, c] * total
    for c in range(n_labels):  # fewer than `between` has rows, where some were empty
        quality -= community_strength[c] ** 2
    return n_labels, quality


@njit(cache=True, nogil=True)
def best_of_starts(near, strength, labels):  # type: ignore[no-untyped-def]
    """Write the communities of the best start into `labels` and return their number; `strength` is scratch."""
    n = len(labels)
    total = np.int64(0)
    for i in range(n):
        row = near[i]
        of_node = np.int64(0)
        for j in range(n):
            of_node += row[j]
        strength[i] = of_node
        total += of_node
    if total == 0:
        for i in range(n):
            labels[i] = i
        return n
    visit = np.empty(n, np.int64)
    found = np.empty(n, np.int32)
    n_labels = 0
    best = np.int64(0)
    for start in range(N_STARTS):
        shuffle(visit, start)
        n_found, quality = climb_dense(near, strength, total, visit, found)
        if start == 0 or quality > best:
            best = quality
            n_labels = n_found
            for i in range(n):
                labels[i] = found[i]
    for i in range(n):
        if strength[i] == 0:
            labels[i] = n_labels
            n_labels += 1
    return n_labels


@njit(cache=True, nogil=True)
def label_dense(cells, first, x, y, z, low, high, radius, strength, labels, n_labels):  # type: ignore[no-untyped-def]
    """Write the communities of the nodes of some cells, from 0 in each cell, and their number.

    `strength` is scratch for the nodes of a cell: int64, or int32 where no cell has more than `MAX_32_BITS` nodes.
    """
    for cell in cells:
        rows = slice(first[cell], first[cell + 1])
        n = first[cell + 1] - first[cell]
        x_, y_, z_, low_, high_ = x[rows], y[rows], z[rows], low[rows], high[rows]
        near = np.empty((n, n), np.uint8)
        for i in range(n):
            near[i] = 0
            add_neighbours(x_, y_, z_, low_, high_, radius, i, near[i])
        n_labels[cell] = best_of_starts(near, strength[:n], labels[rows])


# Apart from `best_of_starts` for the reason that `proximity_graph` has a kernel of its own.
@njit(cache=True, nogil=True)
def label_matrix(near, strength, labels):  # type: ignore[no-untyped-def]
    """Write the communities of a graph given as a matrix of bytes; `strength` is scratch of int32 or int64."""
    best_of_starts(near, strength, labels)
