"""Whether the cells of a run look like cells: a word for "in no cell" that was not understood makes a giant of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spaf_data.errors import InputError
from spaf_data.transcripts import cell_ranges

if TYPE_CHECKING:
    from spaf_data.readers._sort import SortedColumns

# Cells of the runs at hand span 80 um at most (neurons with their processes included), fibroblasts in culture 130.
_LARGEST_SPAN = 250.0  # um
_MANY_SPANS = 4  # a cell so many times as wide as the usual one
_MANY_TIMES = 20  # a cell with so many times the transcripts of the next
_FEW_TRANSCRIPTS = 10  # a cell of fewer is not judged
_FEW_CELLS = 20  # of fewer it cannot be told how large a usual one is
_MOST_OF_SLIDE = 0.6  # of either side of the slide that a cell spans, where the usual one spans a quarter of that


def check_cells(table: SortedColumns, where: object) -> None:
    """Refuse a run one of whose cells is no cell by its size.

    Raises
    ------
    InputError
        If a cell spans more than 250 um and four times the usual cell, holds 20 times the transcripts of the next, or
        spans most of a slide of at least 20 cells that span little of it.
    """
    size = np.diff(table.offsets)
    largest = int(np.argmax(size))
    rest = np.delete(size, largest)
    if size[largest] >= _MANY_TIMES * max(int(rest.max(initial=0)), _FEW_TRANSCRIPTS) and len(rest) > 1:
        raise InputError(_question(table, where, largest, f"where the next has {rest.max()}"))
    low, high = _boxes(table)
    # What stands for no cell has many transcripts; of a small cell a single stray one may lie anywhere.
    is_large = size >= max(_FEW_TRANSCRIPTS, float(np.median(size)))
    span = np.where(is_large[:, None], high - low, 0.0)
    widest = int(np.argmax(span.max(axis=1)))
    others = np.delete(span.max(axis=1), widest)[np.delete(is_large, widest)]
    # Where all cells are as wide, positions may be pixels, which others ask about.
    if span[widest].max() > max(_LARGEST_SPAN, _MANY_SPANS * float(np.median(others)) if len(others) else 0.0):
        raise InputError(_question(table, where, widest, "which no cell is wide"))
    slide = high.max(axis=0) - low.min(axis=0)
    if len(size) < _FEW_CELLS or not (slide > 0).all() or not is_large.any():
        return
    share = (span / slide).min(axis=1)
    widest = int(np.argmax(share))
    usual = float(np.median(share[is_large]))
    if share[widest] > _MOST_OF_SLIDE and usual < _MOST_OF_SLIDE / 4:
        raise InputError(_question(table, where, widest, "which is most of the slide"))


def _boxes(table: SortedColumns) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest x and y of each cell, shape (n_cells, 2)."""
    low, high = (np.empty((len(table.cells), 2)) for _ in range(2))
    for part in cell_ranges(table.offsets):
        starts = table.offsets[part] - table.offsets[part.start]
        rows = slice(table.offsets[part.start], table.offsets[part.stop])
        for axis, values in enumerate((table.x[rows], table.y[rows])):
            low[part, axis] = np.minimum.reduceat(values, starts)
            high[part, axis] = np.maximum.reduceat(values, starts)
    return low, high


def _question(table: SortedColumns, where: object, cell: int, what: str) -> str:
    rows = slice(table.offsets[cell], table.offsets[cell + 1])
    width, height = np.ptp(table.x[rows]), np.ptp(table.y[rows])
    name = str(table.cells[cell])
    return (
        f"{where} has a cell {name!r} of {rows.stop - rows.start} transcripts over {width:.0f} x {height:.0f} um, "
        f"{what}: does {name!r} mean no cell? Then name it with no_cell (--no-cell {name}), or accept the cells as "
        "they are with check_places=False (--no-check-units)"
    )
