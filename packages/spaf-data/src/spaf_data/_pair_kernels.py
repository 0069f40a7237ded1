"""The loops behind `spaf_data.pairs`: cells in the squares of a grid, and draws by hashes."""

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from spaf_data.grouping import group_nodes


def grid_order(
    points: npt.NDArray[np.float64], cells: npt.NDArray[np.int64], side: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Sort cells by squares of a grid, row by row; return them, their squares, where squares start, and columns."""
    if not len(cells):
        return cells, cells, np.zeros(2, np.int64), 1
    places = points[cells] - points[cells].min(axis=0)
    # Squares may be wider than asked, never narrower; at most four squares a cell bounds the memory for outliers.
    side = max(side, places.max() / (2.0 * np.sqrt(len(cells))))
    columns, rows = (places / side).astype(np.int64).T
    n_columns, n_rows = int(columns.max()) + 1, int(rows.max()) + 1
    squares = rows * n_columns + columns
    order, starts = _sort_by_square(squares, n_columns * n_rows)
    return cells[order], squares[order], starts, n_columns


@njit(cache=True)
def _sort_by_square(squares, n_squares):  # type: ignore[no-untyped-def]
    """Return a stable order of cells by their squares, and where each square begins."""
    return group_nodes(squares, n_squares)


@njit(cache=True, nogil=True)
def near_pairs(begin, end, points, names, squares, starts, n_columns, radius, first, pairs):  # type: ignore[no-untyped-def]
    """Find the cells of higher names within the radius of each of the cells `begin` to `end`.

    Without `pairs` their number is written to `first`, else each pair as ``name << 32 | higher name`` to `pairs`, those
    of a cell from its `first` on.
    """
    n_rows = (len(starts) - 1) // n_columns
    for place in range(begin, end):
        x, y, name = points[place, 0], points[place, 1], names[place]
        square_row = squares[place] // n_columns
        column = squares[place] - square_row * n_columns
        left = column - 1 if column > 0 else 0
        right = column + 1 if column + 1 < n_columns else column
        k = first[place] if len(pairs) else 0
        for row in range(
            square_row - 1 if square_row > 0 else 0, square_row + 2 if square_row + 2 < n_rows else n_rows
        ):
            for other in range(starts[row * n_columns + left], starts[row * n_columns + right + 1]):
                dx = points[other, 0] - x
                dy = points[other, 1] - y
                if names[other] > name and dx * dx + dy * dy <= radius * radius:
                    if len(pairs):
                        pairs[k] = (name << 32) | names[other]
                    k += 1
        if not len(pairs):
            first[place] = k


@njit(cache=True)
def _mix(state, value):  # type: ignore[no-untyped-def]
    """Return 64 random bits for a state and a number (a step of SplitMix64, Steele et al. 2014)."""
    state = (state ^ np.uint64(value)) + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@njit(cache=True)
def _keep_smallest(best, hashes, n_kept, candidate, value):  # type: ignore[no-untyped-def]
    """Insert a candidate among those of the smallest hashes, in ascending order; return how many are kept."""
    size = len(best)
    if n_kept == size and value >= hashes[size - 1]:
        return n_kept
    place = min(n_kept, size - 1)
    while place > 0 and hashes[place - 1] > value:
        hashes[place] = hashes[place - 1]
        best[place] = best[place - 1]
        place -= 1
    hashes[place] = value
    best[place] = candidate
    return min(n_kept + 1, size)


@njit(cache=True, parallel=True)
def draw_ring(  # type: ignore[no-untyped-def]
    points, anchors, names, squares, starts, n_columns, inner, outer, per_anchor, seed
):
    n_rows = (len(starts) - 1) // n_columns
    drawn = np.full((len(anchors), per_anchor), -1, np.int64)
    for place in prange(len(anchors)):
        anchor = anchors[place]
        x, y = points[anchor]
        state = _mix(seed, names[anchor])
        hashes = np.empty(per_anchor, np.uint64)
        n_kept = 0
        square_row, column = divmod(squares[anchor], n_columns)
        first, last = max(column - 1, 0), min(column + 1, n_columns - 1)
        for row in range(max(square_row - 1, 0), min(square_row + 2, n_rows)):
            for other in range(starts[row * n_columns + first], starts[row * n_columns + last + 1]):
                dx = points[other, 0] - x
                dy = points[other, 1] - y
                squared = dx * dx + dy * dy
                if other != anchor and inner * inner <= squared <= outer * outer:
                    n_kept = _keep_smallest(drawn[place], hashes, n_kept, other, _mix(state, names[other]))
    return drawn


@njit(cache=True, parallel=True)
def draw_far(points, anchors, names, distance, per_anchor, seed):  # type: ignore[no-untyped-def]
    n_cells = len(points)
    drawn = np.full((len(anchors), per_anchor), -1, np.int64)
    for place in prange(len(anchors)):
        anchor = anchors[place]
        x, y = points[anchor]
        state = _mix(seed, names[anchor])
        n_kept = 0
        for attempt in range(16 * per_anchor + 64):
            if n_kept == per_anchor:
                break
            other = _mix(state, attempt) % np.uint64(n_cells)
            dx = points[other, 0] - x
            dy = points[other, 1] - y
            fresh = other != anchor and dx * dx + dy * dy > distance * distance
            for kept in range(n_kept):
                fresh = fresh and drawn[place, kept] != other
            if fresh:
                drawn[place, n_kept] = other
                n_kept += 1
        if n_kept < per_anchor:
            hashes = np.empty(per_anchor, np.uint64)
            n_kept = 0
            for other in range(n_cells):
                dx = points[other, 0] - x
                dy = points[other, 1] - y
                if other != anchor and dx * dx + dy * dy > distance * distance:
                    n_kept = _keep_smallest(drawn[place], hashes, n_kept, other, _mix(state, names[other]))
    return drawn
