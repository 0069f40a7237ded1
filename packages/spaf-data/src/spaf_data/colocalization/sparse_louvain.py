"""Louvain moves over stored or searched rows, for graphs of more than a few thousand nodes: see louvain.py."""

from __future__ import annotations

import numpy as np
from numba import njit

from spaf_data.colocalization.dense_louvain import N_STARTS, shuffle
from spaf_data.colocalization.graph import Graph, neighbours, store_rows, widest_row
from spaf_data.grouping import group_nodes

# Graphs with more nodes get one start: they take seconds each and their many communities average out.
_LARGE = 10_000


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
def stored_graph(indptr, indices, weights):  # type: ignore[no-untyped-def]
    """Make a graph of stored rows, without places."""
    none = np.empty(0)
    no_runs = np.empty((0, 3), np.int32)
    return Graph(indptr, indices, weights, none, none, none, no_runs, no_runs, 0.0)


@njit(cache=True, nogil=True)
def _merge_nodes(graph, labels, n_labels, buffer):  # type: ignore[no-untyped-def]
    """Make the graph whose nodes are the communities. Edges inside one are left out: they do not change a gain."""
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
    return stored_graph(indptr, indices[: indptr[-1]], weights[: indptr[-1]])


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
def climb_sparse(graph, strength, total, visit, buffer):  # type: ignore[no-untyped-def]
    """One run from one start: move single nodes, merge communities, and begin again, until no merge raises modularity.

    Returns the communities, their number, and modularity times the square of the total strength, a whole number.
    """
    labels, n_labels = _cover(graph, visit, buffer)
    while True:
        _move_nodes(graph, strength, total, labels, n_labels, visit, buffer)
        _, n_labels = _renumber(labels, n_labels)
        level = _merge_nodes(graph, labels, n_labels, buffer)
        above = np.arange(n_labels).astype(np.int32)
        level_strength = _sum_by(labels, n_labels, strength)
        if not _move_nodes(level, level_strength, total, above, n_labels, np.arange(n_labels), buffer):
            break
        _, n_above = _renumber(above, n_labels)
        for i in range(len(labels)):
            labels[i] = above[labels[i]]
        n_labels = n_above
    between = level.weights.sum()
    return labels, n_labels, (total - between) * total - (level_strength**2).sum()


@njit(cache=True, nogil=True)
def _best_of_starts(graph, degree):  # type: ignore[no-untyped-def]
    """Communities of a graph with stored or searched rows, and their number."""
    n = len(degree)
    strength = degree.astype(np.float64)
    total = strength.sum()
    labels = np.arange(n).astype(np.int32)
    n_labels = n
    if total == 0:
        return labels, n_labels
    buffer = np.empty(widest_row(graph), np.int32)
    visit = np.empty(n, np.int64)
    best = -np.inf
    for start in range(N_STARTS if n <= _LARGE else 1):
        shuffle(visit, start)
        found, n_found, quality = climb_sparse(graph, strength, total, visit, buffer)
        if quality > best:
            best, labels, n_labels = quality, found, n_found
    return labels, n_labels


@njit(cache=True, nogil=True)
def label_graph(graph, max_stored):  # type: ignore[no-untyped-def]
    """Return the community of each node of a graph with no row stored, int32, from 0, and their number."""
    stored, degree = store_rows(graph, max_stored)
    return _best_of_starts(stored, degree)


# Apart from `_best_of_starts` for the reason that `proximity_graph` has a kernel of its own.
@njit(cache=True, nogil=True)
def label_rows(indptr, indices):  # type: ignore[no-untyped-def]
    """Return the community of each node of a graph given by the rows of its adjacency."""
    return _best_of_starts(stored_graph(indptr, indices, np.empty(0)), np.diff(indptr))[0]
