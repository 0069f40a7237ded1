"""Numba kernels of the counting sort of transcripts by cell."""

from __future__ import annotations

import numpy as np
from numba import njit

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
