"""Numba kernels that find the outline that a place lies in.

Outlines are sets of closed rings. A place is inside where a ray from it crosses the rings an odd number of times,
which is right for holes and for outlines of several parts (Haines, "Point in polygon strategies", Graphics Gems IV,
1994).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import njit

if TYPE_CHECKING:
    import numpy as np


@njit(cache=True, nogil=True)
def is_inside(x: float, y: float, start: int, stop: int, segments: np.ndarray) -> bool:
    """Whether a place lies inside the rings of some segments, rows of x, y, x, y."""
    inside = False
    for i in range(start, stop):
        ax, ay, bx, by = segments[i, 0], segments[i, 1], segments[i, 2], segments[i, 3]
        if (ay > y) != (by > y) and x < (bx - ax) * (y - ay) / (by - ay) + ax:
            inside = not inside
    return inside


@njit(cache=True)
def count_squares(boxes: np.ndarray, low: np.ndarray, side: float, n_columns: int, counts: np.ndarray) -> None:
    """Count the outlines whose box meets each square of a grid."""
    for k in range(len(boxes)):
        for row in range(int((boxes[k, 1] - low[1]) / side), int((boxes[k, 3] - low[1]) / side) + 1):
            for column in range(int((boxes[k, 0] - low[0]) / side), int((boxes[k, 2] - low[0]) / side) + 1):
                counts[row * n_columns + column] += 1


@njit(cache=True)
def fill_squares(
    boxes: np.ndarray, low: np.ndarray, side: float, n_columns: int, cursor: np.ndarray, outlines: np.ndarray
) -> None:
    """Write the outlines of each square, in order, from its cursor on."""
    for k in range(len(boxes)):
        for row in range(int((boxes[k, 1] - low[1]) / side), int((boxes[k, 3] - low[1]) / side) + 1):
            for column in range(int((boxes[k, 0] - low[0]) / side), int((boxes[k, 2] - low[0]) / side) + 1):
                square = row * n_columns + column
                outlines[cursor[square]] = k
                cursor[square] += 1


@njit(cache=True)
def find(
    x: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
    low: np.ndarray,
    side: float,
    n_columns: int,
    n_rows: int,
    offsets: np.ndarray,
    outlines: np.ndarray,
    boxes: np.ndarray,
    segment_offsets: np.ndarray,
    segments: np.ndarray,
    cell: np.ndarray,
    found: np.ndarray,
) -> None:
    """Write for each of the `rows` the cell of the first outline that holds its place; leave the others alone."""
    for row in rows:
        column, line = (x[row] - low[0]) / side, (y[row] - low[1]) / side
        if not (0 <= column < n_columns and 0 <= line < n_rows):
            continue
        square = int(line) * n_columns + int(column)
        for i in range(offsets[square], offsets[square + 1]):
            k = outlines[i]
            if not (boxes[k, 0] <= x[row] <= boxes[k, 2] and boxes[k, 1] <= y[row] <= boxes[k, 3]):
                continue
            if is_inside(x[row], y[row], segment_offsets[k], segment_offsets[k + 1], segments):
                found[row] = cell[k]
                break
