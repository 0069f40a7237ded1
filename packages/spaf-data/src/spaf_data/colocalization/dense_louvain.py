"""Louvain moves over a matrix of bytes, for graphs of a few thousand nodes: see louvain.py for the method.

The links of every node to every community are kept in a table. A move then adds and takes away one row of the matrix,
and all nodes are screened for a better community at once: both are loops over whole rows, which compile to vector
instructions. Only nodes that the screening names are looked at one by one.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _cover(near, strength, visit):  # type: ignore[no-untyped-def]
    """Start: each node not yet taken founds a community and takes its free neighbours; the rest get label 0."""
    n = len(visit)
    labels = np.where(strength > 0, np.int32(-1), np.int32(0))
    n_labels = np.int32(0)
    for i in visit:
        if labels[i] >= 0:
            continue
        row = near[i]
        for j in range(n):
            labels[j] = n_labels if (labels[j] < 0) & (row[j] > 0) else labels[j]
        labels[i] = n_labels
        n_labels += np.int32(1)
    return labels, np.int64(n_labels)


@njit(cache=True, nogil=True)
def _add(total, row):  # type: ignore[no-untyped-def]
    for j in range(len(total)):
        total[j] += row[j]


@njit(cache=True, nogil=True)
def _subtract(total, row):  # type: ignore[no-untyped-def]
    for j in range(len(total)):
        total[j] -= row[j]


@njit(cache=True, nogil=True)
def _count_links(near, labels, n_labels):  # type: ignore[no-untyped-def]
    """Edges of each node into each community, shape (n_labels, n_nodes)."""
    links = np.zeros((n_labels, len(labels)), np.int16)
    for i in range(len(labels)):
        _add(links[labels[i]], near[i])
    return links


@njit(cache=True, nogil=True)
def _screen(links, strength, total, labels, community_strength, best_gain, own_gain):  # type: ignore[no-untyped-def]
    """Write the largest gain that any community gives each node, and the gain of its own."""
    whole = best_gain.dtype.type  # products in 32 bits are ten times as fast, so they are not left to be widened
    best_gain[:] = np.iinfo(best_gain.dtype).min
    own_gain[:] = 0
    for c in range(len(links)):
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
def _move_nodes(near, links, strength, total, labels, community_strength, visit):  # type: ignore[no-untyped-def]
    """Move nodes to the linked community of largest gain until none moves, keeping `links` true."""
    n_labels = len(links)
    best_gain = np.empty(len(labels), strength.dtype)
    own_gain = np.empty(len(labels), strength.dtype)
    moved = True
    while moved:
        moved = False
        _screen(links, strength, total, labels, community_strength, best_gain, own_gain)
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
            _subtract(links[own], near[i])
            _add(links[best], near[i])


@njit(cache=True, nogil=True)
def _links_between(links, labels, community_strength):  # type: ignore[no-untyped-def]
    """Edges from each community to each, twice those inside."""
    n_labels = len(links)
    between = np.zeros((n_labels, n_labels), np.int64)
    for c in range(n_labels):
        if community_strength[c] == 0:
            continue
        for i in range(len(labels)):
            between[c, labels[i]] += links[c, i]
    return between


@njit(cache=True, nogil=True)
def _move_communities(between, community_strength, total):  # type: ignore[no-untyped-def]
    """Join communities as `_move_nodes` joins nodes; return the group of each, and whether any joined another."""
    n_labels = len(between)
    group = np.arange(n_labels).astype(np.int32)
    group_strength = community_strength.copy()
    links = np.empty(n_labels, np.int64)
    any_moved = False
    moved = True
    while moved:
        moved = False
        for c in range(n_labels):
            if community_strength[c] == 0:
                continue
            own = group[c]
            links[:] = 0
            for d in range(n_labels):
                if d != c:
                    links[group[d]] += between[c, d]
            best = own
            best_gain = links[own] * total - community_strength[c] * (group_strength[own] - community_strength[c])
            for d in range(n_labels):
                if d != own and links[d] > 0:
                    gain = links[d] * total - community_strength[c] * group_strength[d]
                    if gain > best_gain:
                        best = np.int32(d)
                        best_gain = gain
            if best != own:
                moved = True
                any_moved = True
                group[c] = best
                group_strength[own] -= community_strength[c]
                group_strength[best] += community_strength[c]
    return group, any_moved


@njit(cache=True, nogil=True)
def _merge(links, labels, community_strength, group):  # type: ignore[no-untyped-def]
    """Make one community of each group, relabelling in place; empty ones vanish. Return links and strengths anew."""
    number = np.full(len(group), -1, np.int32)
    n_left = np.int32(0)
    for c in range(len(group)):
        if community_strength[c] > 0 and number[group[c]] < 0:
            number[group[c]] = n_left
            n_left += np.int32(1)
    merged = np.zeros((np.int64(n_left), len(labels)), np.int16)
    merged_strength = np.zeros(np.int64(n_left), np.int64)
    for c in range(len(group)):
        if community_strength[c] > 0:
            _add(merged[number[group[c]]], links[c])
            merged_strength[number[group[c]]] += community_strength[c]
    for i in range(len(labels)):
        labels[i] = number[group[labels[i]]]
    return merged, merged_strength


@njit(cache=True, nogil=True)
def climb_dense(near, strength, total, visit):  # type: ignore[no-untyped-def]
    """One run from one start, on a graph with edges whose adjacency is a matrix of bytes.

    `strength` is of whole numbers whose type holds the cube of the number of nodes, which no gain exceeds. Nodes
    without an edge stay where they are put. Returns the communities, their number, and modularity times the
    square of the total strength, a whole number.
    """
    labels, n_labels = _cover(near, strength, visit)
    links = _count_links(near, labels, n_labels)
    community_strength = np.zeros(n_labels, np.int64)
    for i in range(len(labels)):
        community_strength[labels[i]] += strength[i]
    any_moved = True
    while any_moved:
        _move_nodes(near, links, strength, total, labels, community_strength, visit)
        between = _links_between(links, labels, community_strength)
        group, any_moved = _move_communities(between, community_strength, total)
        links, community_strength = _merge(links, labels, community_strength, group)
    quality = np.int64(0)
    for c in range(len(between)):
        quality += between[c, c] * total
    for of_community in community_strength:  # fewer than `between` has rows, where some were empty
        quality -= of_community**2
    return labels, len(community_strength), quality
