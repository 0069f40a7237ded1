"""Pairs of cells by name or position, and files of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_model.errors import InputError
from spaf_model.tables import read_table

if TYPE_CHECKING:
    import anndata

# Cells by name, or by position.
CellNames: TypeAlias = Sequence[str] | Sequence[int] | NDArray[np.generic] | pd.Index | pd.Series

_COLUMNS = ("left", "right")


def cell_positions(adata: anndata.AnnData, cells: CellNames, side: str) -> NDArray[np.int64]:
    """Return the positions of cells that are given by name or by position.

    Parameters
    ----------
    adata
        Holds the cells.
    cells
        Names of ``obs_names``, or integer positions from 0.
    side
        What the message calls them.

    Raises
    ------
    InputError
        If a cell is not in the AnnData, or names are given and ``obs_names`` are not unique.
    """
    values = np.asarray(cells)
    if values.ndim != 1:
        raise InputError(f"{side} must be one-dimensional, not of shape {values.shape}.")
    if values.size == 0:
        return np.zeros(0, dtype=np.int64)
    if values.dtype.kind in "iu":
        outside = values[(values < 0) | (values >= adata.n_obs)]
        if outside.size:
            raise InputError(f"{side} has the position {outside[0]}; the AnnData has {adata.n_obs} cells.")
        return values.astype(np.int64)
    if not adata.obs_names.is_unique:
        raise InputError("Cells cannot be named, because obs_names are not unique; give integer positions.")
    positions = adata.obs_names.get_indexer(values.astype(str))
    if (positions < 0).any():
        missing = values[positions < 0]
        raise InputError(
            f"{side} names cells that are not in the AnnData ({missing.size}), such as {str(missing[0])!r}."
        )
    return np.asarray(positions, dtype=np.int64)


def pair_positions(
    adata: anndata.AnnData, left: CellNames, right: CellNames
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of both cells of each pair.

    Raises
    ------
    InputError
        If the two sides differ in length, and as `cell_positions`.
    """
    first, second = cell_positions(adata, left, "left"), cell_positions(adata, right, "right")
    if first.size != second.size:
        raise InputError(f"left and right must have equal lengths, not {first.size} and {second.size}.")
    return first, second


def sides_of(pairs: pd.DataFrame | Sequence[Sequence[str]] | NDArray[np.generic]) -> tuple[CellNames, CellNames]:
    """Return the left and the right cells of pairs that are one table.

    Parameters
    ----------
    pairs
        (n_pairs, 2) names or positions, or a table with the columns ``left`` and ``right``.

    Raises
    ------
    InputError
        If it is neither.
    """
    if isinstance(pairs, pd.DataFrame):
        return _columns(pairs, "The table of pairs")
    values = np.asarray(pairs)
    if values.size == 0:
        values = values.reshape(0, 2)
    if values.ndim != 2 or values.shape[1] != 2:
        raise InputError(f"pairs must have the shape (n_pairs, 2), not {values.shape}.")
    return values[:, 0], values[:, 1]


def read_pair_file(path: Path) -> pd.DataFrame:
    """Read a file of pairs of cells: the columns ``left`` and ``right`` hold cell names.

    Parameters
    ----------
    path
        ``.csv``, ``.tsv`` (either may end in ``.gz``) or ``.parquet``.

    Raises
    ------
    InputError
        If it is another kind of file, cannot be read, or lacks one of the columns.
    FileNotFoundError
        If there is no such file.
    """
    table = read_table(path)
    left, right = _columns(table, str(path))
    return pd.DataFrame({"left": np.asarray(left, dtype=str), "right": np.asarray(right, dtype=str)})


def _columns(table: pd.DataFrame, name: str) -> tuple[pd.Series, pd.Series]:
    missing = [column for column in _COLUMNS if column not in table.columns]
    if missing:
        raise InputError(
            f"{name} has no column {missing[0]!r}; it has: {', '.join(map(str, table.columns)) or 'none'}."
        )
    return table["left"], table["right"]
