"""Pairs of cells by distance: neighbours, near strangers and far strangers.

Positive pairs are cells within a radius (30 um); hard negatives are near but no neighbours (80 to 150 um); easy
negatives are further than that. Distances are Euclidean, in um. Nothing here holds cells x cells, and nothing depends
on the number of threads.
"""

import numpy as np
import numpy.typing as npt

from spaf_data import defaults
from spaf_data._batches import map_batches
from spaf_data._pair_kernels import draw_far, draw_ring, grid_order, near_pairs
from spaf_data.coordinates import Coordinates, Slides, cells_by_slide, check_coordinates
from spaf_data.errors import InputError


def positive_pairs(
    coordinates: Coordinates, radius: float = defaults.RADIUS, *, slide: Slides | None = None
) -> npt.NDArray[np.int64]:
    """Find all pairs of cells at most ``radius`` apart.

    Parameters
    ----------
    coordinates
        Array (n_cells, 2) in um.
    radius
        Largest distance of a pair, in um, inclusive.
    slide
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
    return _unpacked([_near(points, cells, float(radius)) for cells in cells_by_slide(slide, len(points))])


def _near(points: npt.NDArray[np.float64], cells: npt.NDArray[np.int64], radius: float) -> npt.NDArray[np.int64]:
    """Return the pairs of some cells within the radius as ``lower << 32 | higher``."""
    cells, squares, starts, n_columns = grid_order(points, cells, radius)
    points = points[cells]

    def find(first: npt.NDArray[np.int64], packed: npt.NDArray[np.int64]) -> None:
        def near(batch: slice) -> None:
            near_pairs(batch.start, batch.stop, points, cells, squares, starts, n_columns, radius, first, packed)

        for _ in map_batches(near, np.ones(len(cells), np.int64), n_threads=None):
            pass

    first = np.zeros(len(cells) + 1, np.int64)
    find(first[1:], np.empty(0, np.int64))
    np.cumsum(first, out=first)
    packed = np.empty(first[-1], np.int64)
    if len(packed):
        find(first, packed)
    return packed


def hard_negatives(
    coordinates: Coordinates,
    inner: float = defaults.HARD_MIN,
    outer: float = defaults.HARD_MAX,
    *,
    per_anchor: int = 10,
    seed: int = 0,
    anchors: npt.ArrayLike | None = None,
    slide: Slides | None = None,
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
    slide
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
    for cells_of_slide in cells_by_slide(slide, len(points)):
        cells, squares, starts, n_columns = grid_order(points, cells_of_slide, outer)
        chosen = np.flatnonzero(is_anchor[cells])
        table = draw_ring(
            points[cells], chosen, cells, squares, starts, n_columns, inner, outer, per_anchor, np.uint64(seed)
        )
        drawn.append(_as_pairs(table, chosen, cells))
    return sorted_pairs(drawn)


def easy_negatives(
    coordinates: Coordinates,
    distance: float = defaults.EASY_MIN,
    *,
    per_anchor: int = 1,
    seed: int = 0,
    anchors: npt.ArrayLike | None = None,
    slide: Slides | None = None,
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
    slide
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
    for cells in cells_by_slide(slide, len(points)):
        chosen = np.flatnonzero(is_anchor[cells])
        table = draw_far(points[cells], chosen, cells, distance, per_anchor, np.uint64(seed))
        drawn.append(_as_pairs(table, chosen, cells))
    return sorted_pairs(drawn)


def sorted_pairs(parts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Put together arrays of pairs of cells and sort them by the first and the second cell."""
    # One integer a pair sorts in a sixth of the time of two keys; a cell has fewer than 32 bits.
    return _unpacked([(pairs[:, 0] << 32) | pairs[:, 1] for pairs in parts])


def _unpacked(parts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Put together pairs of cells that are one number each, sort them, and take them apart."""
    packed = np.concatenate([*parts, np.empty(0, np.int64)])
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
