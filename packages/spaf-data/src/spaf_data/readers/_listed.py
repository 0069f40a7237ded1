"""Cells that the run's table of cells lists, where others are to be dropped and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spaf_data._memory import release
from spaf_data.errors import InputError
from spaf_data.readers._cell_table import read_cell_table
from spaf_data.transcripts import cell_ranges

if TYPE_CHECKING:
    from spaf_data.readers._sort import SortedColumns

_COLUMNS = ("x", "y", "z", "gene", "qv", "in_nucleus")


def listed(
    file: Path,
    cells: np.ndarray,
    *,
    cell: str,
    field_of_view: str | None = None,
    spelled: Callable[[np.ndarray, dict[str, int]], np.ndarray] = lambda cells, row: cells,
) -> np.ndarray:
    """Return which cells have a row in a table of cells; see `read_cell_table` for the columns.

    Raises
    ------
    InputError
        If none has: the table is then of another run, and not one that was filtered.
    """
    row, _ = read_cell_table(file, cell=cell, field_of_view=field_of_view, values=[])
    found = np.array([str(name) in row for name in spelled(cells, row)], bool)
    if len(found) and not found.any():
        raise InputError(f"{file} has no row for any of the {len(cells)} cells, the first is {str(cells[0])!r}")
    return found


def only_listed(table: SortedColumns, keep: np.ndarray) -> SortedColumns:
    """Move the transcripts of the kept cells together, in place, and count those of the others as unlisted."""
    if keep.all():
        return table
    columns = {name: getattr(table, name) for name in _COLUMNS}
    n_kept = 0
    for cells in cell_ranges(table.offsets):
        start, stop = table.offsets[cells.start], table.offsets[cells.stop]
        stays = np.repeat(keep[cells], np.diff(table.offsets[cells.start : cells.stop + 1]))
        n_here = int(stays.sum())
        for column in columns.values():
            column[n_kept : n_kept + n_here] = column[start:stop][stays]
        n_kept += n_here
        release(*columns.values())
    offsets = np.zeros(int(keep.sum()) + 1, np.int64)
    np.cumsum(np.diff(table.offsets)[keep], out=offsets[1:])
    account = replace(table.account, kept=n_kept, unlisted=table.account.kept - n_kept)
    return replace(
        table,
        offsets=offsets,
        cells=table.cells[keep],
        account=account,
        **{name: column[:n_kept] for name, column in columns.items()},
    )


def of_all(keep: np.ndarray | None, values: np.ndarray | None) -> np.ndarray | None:
    """Return values of the listed cells as those of all, NaN for the others."""
    if keep is None or values is None:
        return values
    whole = np.full((len(keep), *values.shape[1:]), np.nan)
    whole[keep] = values
    return whole
