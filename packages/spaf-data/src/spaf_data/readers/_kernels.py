"""Numba kernels of the counting sort of transcripts by cell."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

CONTROL, LOW_QUALITY, UNASSIGNED, KEPT = range(4)

# What `scatter` returns when all went well, and when a cell has more transcripts than were counted.
FINE = -1
CHANGED = -2


@njit(cache=True, inline="always")
def _fate(gene: int, cell: int, qv: float, control: np.ndarray, min_qv: float) -> int:
    if control[gene]:
        return CONTROL
    if not qv >= min_qv:
        return LOW_QUALITY
    return UNASSIGNED if cell < 0 else KEPT


@njit(cache=True)
def count(
    gene: np.ndarray,
    cell: np.ndarray,
    qv: np.ndarray,
    control: np.ndarray,
    min_qv: float,
    per_cell: np.ndarray,
    tally: np.ndarray,
) -> None:
    """Add the rows of a chunk to the kept transcripts `per_cell` and to the `tally` of fates, shape (4,).

    `control` tells for each gene code whether it is a control; a negative `cell` is no cell.
    """
    for row in range(len(gene)):
        fate = _fate(gene[row], cell[row], qv[row], control, min_qv)
        tally[fate] += 1
        if fate == KEPT:
            per_cell[cell[row]] += 1


@njit(cache=True)
def scatter(
    gene: np.ndarray,
    cell: np.ndarray,
    qv: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    in_nucleus: np.ndarray,
    control: np.ndarray,
    min_qv: float,
    gene_rank: np.ndarray,
    cell_rank: np.ndarray,
    cursor: np.ndarray,
    end: np.ndarray,
    out_gene: np.ndarray,
    out_qv: np.ndarray,
    out_x: np.ndarray,
    out_y: np.ndarray,
    out_z: np.ndarray,
    out_nucleus: np.ndarray,
) -> int:
    """Put the kept rows of a chunk into the slices of their cells.

    `cursor` holds for every cell the next free place and `end` where its slice ends. Returns `FINE`, `CHANGED` or
    the first row whose position is not finite.
    """
    for row in range(len(gene)):
        if _fate(gene[row], cell[row], qv[row], control, min_qv) != KEPT:
            continue
        if not (np.isfinite(x[row]) and np.isfinite(y[row]) and np.isfinite(z[row])):
            return row
        owner = cell_rank[cell[row]]
        if owner < 0 or cursor[owner] >= end[owner]:
            return CHANGED
        place = cursor[owner]
        cursor[owner] += 1
        out_gene[place] = gene_rank[gene[row]]
        out_qv[place] = qv[row]
        out_x[place] = x[row]
        out_y[place] = y[row]
        out_z[place] = z[row]
        out_nucleus[place] = in_nucleus[row]
    return FINE


@njit(cache=True)
def _precedes(
    i: int,
    j: int,
    gene: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    in_nucleus: np.ndarray,
    qv: np.ndarray,
) -> bool:
    """Whether transcript i comes before j in its cell; NaN qualities are equal to each other."""
    if gene[i] != gene[j]:
        return bool(gene[i] < gene[j])
    if x[i] != x[j]:
        return bool(x[i] < x[j])
    if y[i] != y[j]:
        return bool(y[i] < y[j])
    if z[i] != z[j]:
        return bool(z[i] < z[j])
    if in_nucleus[i] != in_nucleus[j]:
        return bool(in_nucleus[i] < in_nucleus[j])
    return bool(qv[i] < qv[j])


@njit(cache=True)
def _sorted_transcripts(
    start: int,
    stop: int,
    gene: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    in_nucleus: np.ndarray,
    qv: np.ndarray,
) -> np.ndarray:
    """Return the transcripts of a cell in order, by a merge sort from runs of one upwards."""
    n = stop - start
    order = np.empty(n, np.int64)
    merged = np.empty(n, np.int64)
    for k in range(n):
        order[k] = start + k
    width = 1
    while width < n:
        for low in range(0, n, 2 * width):
            middle = min(low + width, n)
            high = min(low + 2 * width, n)
            left, right = low, middle
            for k in range(low, high):
                if left < middle and (
                    right >= high or not _precedes(order[right], order[left], gene, x, y, z, in_nucleus, qv)
                ):
                    merged[k] = order[left]
                    left += 1
                else:
                    merged[k] = order[right]
                    right += 1
        order, merged = merged, order
        width *= 2
    return order


@njit(cache=True)
def _permute(column: np.ndarray, start: int, order: np.ndarray, buffer: np.ndarray) -> None:
    for k in range(len(order)):
        buffer[k] = column[order[k]]
    for k in range(len(order)):
        column[start + k] = buffer[k]


@njit(cache=True, parallel=True)
def sort_within_cells(
    offsets: np.ndarray,
    gene: np.ndarray,
    qv: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    in_nucleus: np.ndarray,
) -> None:
    """Sort the transcripts of each cell by gene, x, y, z, nucleus and quality, in place."""
    for cell in prange(len(offsets) - 1):
        start, stop = offsets[cell], offsets[cell + 1]
        order = _sorted_transcripts(start, stop, gene, x, y, z, in_nucleus, qv)
        real = np.empty(stop - start, np.float32)
        _permute(x, start, order, real)
        _permute(y, start, order, real)
        _permute(z, start, order, real)
        _permute(qv, start, order, real)
        _permute(gene, start, order, np.empty(stop - start, np.int32))
        _permute(in_nucleus, start, order, np.empty(stop - start, np.bool_))
