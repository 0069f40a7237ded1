"""Where transcripts lie in their cell: ranks of values, and distances from outlines."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def ranks(values):
    """Return the share of the others that is smaller, from 0 to 1; values that are equal share their mean."""
    n = len(values)
    order = np.argsort(values)
    rank = np.empty(n)
    i = 0
    while i < n:
        j = i
        while j + 1 < n and values[order[j + 1]] == values[order[i]]:
            j += 1
        for k in range(i, j + 1):
            rank[order[k]] = 0.5 * (i + j) / max(n - 1, 1)
        i = j + 1
    return rank


@njit(cache=True, nogil=True)
def distances(x, y, start, stop, segments):
    """Return the distance of places from the nearest of some line segments, rows of x, y, x, y."""
    nearest = np.full(len(x), np.inf)
    for i in range(start, stop):
        ax, ay = segments[i, 0], segments[i, 1]
        dx, dy = segments[i, 2] - ax, segments[i, 3] - ay
        length = dx * dx + dy * dy
        per_length = 1.0 / length if length > 0 else 0.0
        for k in range(len(x)):
            px, py = x[k] - ax, y[k] - ay
            along = min(max((px * dx + py * dy) * per_length, 0.0), 1.0)
            px, py = px - along * dx, py - along * dy
            nearest[k] = min(nearest[k], px * px + py * py)
    return np.sqrt(nearest)
