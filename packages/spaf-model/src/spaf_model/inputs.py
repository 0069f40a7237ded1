"""What users hand over as cells: an AnnData, several of them, or a SpatialData with the name of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import anndata

from spaf_model.errors import InputError

if TYPE_CHECKING:
    from spatialdata import SpatialData

# One table of cells.
Cells: TypeAlias = "anndata.AnnData | SpatialData"
# One or several.
CellTables: TypeAlias = "Cells | Sequence[Cells]"


def tables_of(data: CellTables, table_key: str | None) -> list[anndata.AnnData]:
    """Return the tables of cells in what the user handed over, in its order.

    Raises
    ------
    InputError
        As `table_of`, or if the list is empty.
    """
    if isinstance(data, (list, tuple)):
        if not data:
            raise InputError("The list of AnnData is empty.")
        return [table_of(one, table_key) for one in data]
    return [table_of(data, table_key)]


def table_of(data: Cells, table_key: str | None) -> anndata.AnnData:
    """Return the one table of cells: the AnnData itself, or a table of a SpatialData.

    Parameters
    ----------
    data
        An AnnData or a SpatialData.
    table_key
        Name of the table in a SpatialData; may be None where it has only one.

    Raises
    ------
    InputError
        If it is neither, the table is not there, or it is not said which of several tables is meant.
    """
    if isinstance(data, anndata.AnnData):
        if table_key is not None:
            raise InputError(f"table_key={table_key!r} names a table of a SpatialData, but an AnnData was given.")
        return data
    if not _is_spatial_data(data):
        raise InputError(f"Cells must come as an AnnData or a SpatialData, not as a {type(data).__name__}.")
    tables: dict[str, anndata.AnnData] = dict(data.tables)
    names = ", ".join(tables) or "none"
    if table_key is None and len(tables) != 1:
        raise InputError(f"Say with table_key= which table of the SpatialData to use; it has: {names}.")
    key = next(iter(tables)) if table_key is None else table_key
    if key not in tables:
        raise InputError(f"The SpatialData has no table {key!r}; it has: {names}.")
    return tables[key]


def _is_spatial_data(data: object) -> bool:
    # By name, so that nobody needs the library who does not use it.
    return any(f"{kind.__module__}.{kind.__name__}".startswith("spatialdata.") for kind in type(data).__mro__)
