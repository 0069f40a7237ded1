"""Tables with one row a cell, and the rows of the cells that are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from spaf_data.errors import InputError
from spaf_data.readers._cell_names import cell_name, is_no_cell
from spaf_data.readers._chunks import TEXT, dictionary, numbers
from spaf_data.readers._table import column_names, require_columns, stream_columns

_FILTERED = "; if it was filtered on purpose, drop and count these cells with drop_unlisted=True (--drop-unlisted)"


def read_cell_table(
    file: Path, *, cell: str, values: Sequence[str], field_of_view: str | None = None
) -> tuple[dict[str, int], np.ndarray]:
    """Read columns of numbers of a table of cells.

    Parameters
    ----------
    file
        A parquet, csv or csv.gz file.
    cell
        Column of the cells' ids.
    values
        Columns to read.
    field_of_view
        Column of the field of view, where ids are unique inside one only; ids are then ``<field of view>_<id>``.

    Returns
    -------
    tuple
        The row of each cell, and the values as float64, shape (n_rows, n_values).

    Raises
    ------
    InputError
        If the file is damaged, lacks a column, or has two rows for one cell.
    """
    views = [] if field_of_view is None else [field_of_view]
    require_columns(file, [cell, *views, *values], column_names(file))
    row: dict[str, int] = {}
    blocks: list[np.ndarray] = [np.empty((0, len(values)))]
    types = {**dict.fromkeys([cell, *views], TEXT), **dict.fromkeys(values, pa.float64())}
    for batch in stream_columns(file, types):
        ids = _names(batch, cell, file)
        if field_of_view is not None:
            ids = [f"{view}_{name}" for view, name in zip(_names(batch, field_of_view, file), ids, strict=True)]
        for name in ids:
            if name in row:
                raise InputError(f"{file} has two rows for cell {name!r}")
            row[name] = len(row)
        blocks.append(np.column_stack([numbers(batch.column(name)) for name in values]))
    return row, np.concatenate(blocks)


def _names(batch: pa.RecordBatch, column: str, where: Path) -> list[str]:
    codes, names = dictionary(batch.column(column), where, column)
    names = [name if is_no_cell(name) else cell_name(name, where=where, column=column) for name in names]
    return [names[code] if code >= 0 else "" for code in codes]


def rows_of_cells(file: Path, cells: Sequence[str] | np.ndarray, row: dict[str, int]) -> np.ndarray:
    """Return the row of each cell.

    Raises
    ------
    InputError
        If a cell has no row.
    """
    found = np.array([row.get(str(cell), -1) for cell in cells], np.int64)
    if (found < 0).any():
        missing = [str(cell) for cell, place in zip(cells, found, strict=True) if place < 0]
        raise InputError(
            f"{file} has no row for {len(missing)} of the {len(cells)} cells, the first is {missing[0]!r}"
            + ("" if len(missing) == len(cells) else _FILTERED)
        )
    return found


def check_centroids(where: str | Path, cells: Sequence[str] | np.ndarray, centroids: np.ndarray) -> None:
    """Raise an `InputError` that names the first cell whose centroid is not finite."""
    finite = np.isfinite(centroids).all(axis=1)
    if not finite.all():
        bad = str(cells[int(np.argmin(finite))])
        raise InputError(f"{where} has a centroid that is not finite (NaN or infinite) for cell {bad!r}")
