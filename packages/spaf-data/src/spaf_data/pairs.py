"""Pairs of cells by distance: neighbours, near strangers and far strangers.

Positive pairs are cells within a radius (30 um); hard negatives are near but no neighbours (80 to 150 um); easy
negatives are further than that. Distances are Euclidean, in um. Nothing here holds cells x cells, and nothing depends
on the number of threads.
"""

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from spaf_data.errors import InputError
from spaf_data.grouping import group_nodes

Coordinates = npt.NDArray[np.floating]
Libraries = npt.ArrayLike


def positive_pairs(
    coordinates: Coordinates, radius: float = 30.0, *, library: Libraries | None = None
) -> npt.NDArray[np.int64]:
    """Find all pairs of cells at most ``radius`` apart.

    Parameters
    ----------
    coordinates
        Array (n_cells, 2) in um.
    radius
        Largest distance of a pair, in um, inclusive.
    library
        The slide of each cell (n_cells,); cells of two slides are never a pair. One slide if not given.

    Returns
    -------
    Array (n_pairs, 2) of indices i < j, sorted.

    Raises
    ------
    InputError
        If coordinates are not finite or of the wrong shape, or the radius is not positive.

    Notes
    -----
    A grid of side ``radius``: O(N k) for k cells in nine grid squares, and memory for the pairs returned.

    Examples
    --------
    >>> import numpy as np
    >>> positive_pairs(np.array([[0.0, 0.0], [100.0, 0.0], [20.0, 0.0]]), radius=30.0)
    array([[0, 2]])
    """
    points = check_coordinates(coordinates)
    if not radius > 0:
        raise InputError(f"the radius of positive pairs must be above 0 um, not {radius}.")
    first = np.zeros(len(points) + 1, np.int64)
    grids = [_grid_order(points, cells, radius) for cells in cells_by_library(library, len(points))]
    for cells, squares, starts, n_columns in grids:
        _count_pairs(points[cells], cells, squares, starts, n_columns, radius, first[1:])
    np.cumsum(first, out=first)
    pairs = np.empty((int(first[-1]), 2), np.int64)
    for cells, squares, starts, n_columns in grids:
        _fill_pairs(points[cells], cells, squares, starts, n_columns, radius, first, pairs)
    return pairs


def hard_negatives(
    coordinates: Coordinates,
    inner: float = 80.0,
    outer: float = 150.0,
    *,
    per_anchor: int = 10,
    seed: int = 0,
    anchors: npt.ArrayLike | None = None,
    library: Libraries | None = None,
) -> npt.NDArray[np.int64]:
    """Draw cells in a ring around each anchor: near enough to be of the same tissue, too far to be neighbours.

    Parameters
    ----------
    coordinates
        Array (n_cells, 2) in um.
    inner, outer
        Least and largest distance in um, both inclusive.
    per_anchor
        Cells drawn for each anchor, without replacement; all there are where the ring holds fewer.
    seed
        The draw is a function of the seed and the index of the anchor.
    anchors
        Indices of the anchors; every cell if not given.
    library
        The slide of each cell; negatives are of the slide of their anchor.

    Returns
    -------
    Array (n_pairs, 2) of anchor and negative, sorted.

    Raises
    ------
    InputError
        If coordinates are not finite or of the wrong shape, an anchor is no cell, or an option is out of range.

    Notes
    -----
    A grid of side ``outer``: O(N k) for k cells in nine grid squares, and memory for the pairs returned. Each anchor
    keeps the candidates with the smallest hashes, which is a uniform sample and needs no random state.
    """
    points = check_coordinates(coordinates)
    if not (0 <= inner <= outer and outer > 0):
        raise InputError(f"hard negatives need 0 <= inner <= outer and outer > 0, not {inner} and {outer} um.")
    is_anchor = _anchor_mask(anchors, len(points), per_anchor)
    drawn = []
    for library_cells in cells_by_library(library, len(points)):
        cells, squares, starts, n_columns = _grid_order(points, library_cells, outer)
        chosen = np.flatnonzero(is_anchor[cells])
        table = _draw_ring(
            points[cells], chosen, cells, squares, starts, n_columns, inner, outer, per_anchor, np.uint64(seed)
        )
        drawn.append(_as_pairs(table, chosen, cells))
    return sorted_pairs(drawn)


def easy_negatives(
    coordinates: Coordinates,
    distance: float = 150.0,
    *,
    per_anchor: int = 1,
    seed: int = 0,
    anchors: npt.ArrayLike | None = None,
    library: Libraries | None = None,
) -> npt.NDArray[np.int64]:
    """Draw cells of the same slide that are further than ``distance`` from each anchor.

    Parameters
    ----------
    coordinates
        Array (n_cells, 2) in um.
    distance
        Negatives are further away than this, in um.
    per_anchor
        Cells drawn for each anchor, without replacement; all there are where fewer are that far.
    seed
        The draw is a function of the seed and the index of the anchor.
    anchors
        Indices of the anchors; every cell if not given.
    library
        The slide of each cell; negatives are of the slide of their anchor.

    Returns
    -------
    Array (n_pairs, 2) of anchor and negative, sorted.

    Raises
    ------
    InputError
        If coordinates are not finite or of the wrong shape, an anchor is no cell, or an option is out of range.

    Notes
    -----
    Random cells are tried first; an anchor from which nearly all cells are near is settled by looking at all of them.
    """
    points = check_coordinates(coordinates)
    if not distance >= 0:
        raise InputError(f"the distance of easy negatives must be at least 0 um, not {distance}.")
    is_anchor = _anchor_mask(anchors, len(points), per_anchor)
    drawn = []
    for cells in cells_by_library(library, len(points)):
        chosen = np.flatnonzero(is_anchor[cells])
        table = _draw_far(points[cells], chosen, cells, distance, per_anchor, np.uint64(seed))
        drawn.append(_as_pairs(table, chosen, cells))
    return sorted_pairs(drawn)


def check_coordinates(coordinates: Coordinates) -> npt.NDArray[np.float64]:
    """Return coordinates as float64, or raise InputError if they are not finite values of shape (n_cells, 2)."""
    points = np.asarray(coordinates, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(f"coordinates must have the shape (n_cells, 2), not {points.shape}.")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        raise InputError(f"the coordinates of cell {bad[0]} are not finite: {tuple(points[bad[0]].tolist())}.")
    return points


def cells_by_library(library: Libraries | None, n_cells: int) -> list[npt.NDArray[np.int64]]:
    """Return the indices of the cells of each slide, ascending, in order of the slides' names."""
    if library is None:
        return [np.arange(n_cells)]
    names, codes = np.unique(np.asarray(library).astype(str), return_inverse=True)
    if len(codes) != n_cells:
        raise InputError(f"library names the slides of {len(codes)} cells, but there are {n_cells} cells.")
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.searchsorted(codes[order], np.arange(1, len(names))))


def sorted_pairs(parts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Put together arrays of pairs of cells and sort them by the first and the second cell."""
    # One integer a pair sorts in a sixth of the time of two keys; a cell has fewer than 32 bits.
    packed = np.concatenate([(pairs[:, 0] << 32) | pairs[:, 1] for pairs in (*parts, np.empty((0, 2), np.int64))])
    packed.sort()
    pairs = np.empty((len(packed), 2), np.int64)
    pairs[:, 0] = packed >> 32
    pairs[:, 1] = packed & 0xFFFFFFFF
    return pairs


def _anchor_mask(anchors: npt.ArrayLike | None, n_cells: int, per_anchor: int) -> npt.NDArray[np.bool_]:
    if per_anchor < 1:
        raise InputError(f"per_anchor must be at least 1, not {per_anchor}.")
    if anchors is None:
        return np.ones(n_cells, bool)
    chosen = np.asarray(anchors, dtype=np.int64)
    bad = chosen[(chosen < 0) | (chosen >= n_cells)]
    if len(bad):
        raise InputError(f"there is no anchor {bad[0]}: there are {n_cells} cells.")
    mask = np.zeros(n_cells, bool)
    mask[chosen] = True
    return mask


def _as_pairs(
    table: npt.NDArray[np.int64], anchors: npt.NDArray[np.int64], cells: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Turn a table of draws, one row an anchor and -1 where there is none, into pairs."""
    rows, columns = np.nonzero(table >= 0)
    return np.stack([cells[anchors[rows]], cells[table[rows, columns]]], axis=1)


def _grid_order(
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
    order, sorted_squares, starts = _sort_by_square(rows * n_columns + columns, n_columns * n_rows)
    return cells[order], sorted_squares, starts, n_columns


@njit(cache=True)
def _sort_by_square(squares, n_squares):  # type: ignore[no-untyped-def]
    """Return a stable order of cells by their squares, the squares in that order, and where each begins."""
    order, starts = group_nodes(squares, n_squares)
    return order, squares[order], starts


@njit(cache=True, parallel=True)
def _count_pairs(points, names, squares, starts, n_columns, radius, n_pairs):  # type: ignore[no-untyped-def]
    """Write the number of cells of higher names within the radius of each cell to the place of its name."""
    n_rows = (len(starts) - 1) // n_columns
    for place in prange(len(names)):
        x, y = points[place]
        square_row, column = divmod(squares[place], n_columns)
        left, right = max(column - 1, 0), min(column + 1, n_columns - 1)
        n = 0
        for row in range(max(square_row - 1, 0), min(square_row + 2, n_rows)):
            for other in range(starts[row * n_columns + left], starts[row * n_columns + right + 1]):
                dx = points[other, 0] - x
                dy = points[other, 1] - y
                if names[other] > names[place] and dx * dx + dy * dy <= radius * radius:
                    n += 1
        n_pairs[names[place]] = n


@njit(cache=True, parallel=True)
def _fill_pairs(points, names, squares, starts, n_columns, radius, first, pairs):  # type: ignore[no-untyped-def]
    """Write the pairs that `_count_pairs` counted, those of the cell of a name from ``first[name]`` on, sorted."""
    n_rows = (len(starts) - 1) // n_columns
    for place in prange(len(names)):
        x, y = points[place]
        square_row, column = divmod(squares[place], n_columns)
        left, right = max(column - 1, 0), min(column + 1, n_columns - 1)
        k = first[names[place]]
        for row in range(max(square_row - 1, 0), min(square_row + 2, n_rows)):
            for other in range(starts[row * n_columns + left], starts[row * n_columns + right + 1]):
                dx = points[other, 0] - x
                dy = points[other, 1] - y
                if names[other] > names[place] and dx * dx + dy * dy <= radius * radius:
                    pairs[k, 0] = names[place]
                    pairs[k, 1] = names[other]
                    k += 1
        pairs[first[names[place]] : k, 1].sort()


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
def _draw_ring(  # type: ignore[no-untyped-def]
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
def _draw_far(points, anchors, names, distance, per_anchor, seed):  # type: ignore[no-untyped-def]
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
