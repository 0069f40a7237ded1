"""Nodes by label, and sums at places: what other kernels share (see colocalization/graph.py)."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def group_nodes(labels, n_labels):  # type: ignore[no-untyped-def]
    """Return the nodes sorted by label, and where each label starts."""
    starts = np.zeros(n_labels + 1, np.int64)
    for label in labels:
        starts[label + 1] += 1
    for c in range(n_labels):
        starts[c + 1] += starts[c]
    members = np.empty(len(labels), np.int64)
    for i in range(len(labels)):
        members[starts[labels[i]]] = i
        starts[labels[i]] += 1
    for c in range(n_labels, 0, -1):  # each start is now where the next begins
        starts[c] = starts[c - 1]
    starts[0] = 0
    return members, starts


@njit(cache=True, nogil=True)
def add_at(total, positions, values):  # type: ignore[no-untyped-def]
    """Add values to the places of an array, one after the other; a place may come twice."""
    for k in range(len(positions)):
        total[positions[k]] += values[k]
