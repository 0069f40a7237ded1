"""Several tables of cells put together, by the genes that all have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import anndata as ad

from spaf_analysis.errors import InputError
from spaf_analysis.genes import genes_in_all
from spaf_analysis.tables import check_cell_names

if TYPE_CHECKING:
    from pathlib import Path

FILE = "file"  # column of obs that says which table a cell is of


def together(tables: Sequence[ad.AnnData], paths: Sequence[Path], key: str | None) -> ad.AnnData:
    """Return one table of the cells of all, with the genes that all have and the file of each cell in `obs`.

    Parameters
    ----------
    tables
        Cells x genes with counts in `X`.
    paths
        Where they come from, for names and messages.
    key
        The embedding that all must have, alike in width; None where there is none yet.

    Returns
    -------
    anndata.AnnData
        A cell whose name occurs in several tables gets that of its file in front of it.

    Raises
    ------
    InputError
        If a table names two cells or two genes alike, some has no such embedding, widths differ, or fewer than two
        genes are in all.
    """
    for table, path in zip(tables, paths, strict=True):
        try:
            check_cell_names(table)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    if len(tables) == 1:
        return tables[0]
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    for table, path in zip(tables, paths, strict=True):
        if not table.var_names.is_unique:
            raise InputError(f"{path} has genes that occur twice; make var_names unique first.")
    shared = genes_in_all(tables, [str(path) for path in paths], least=2)
    if key is not None:
        widths = {}
        for table, path in zip(tables, paths, strict=True):
            if key not in table.obsm:
                raise InputError(
                    f"{path}: obsm has no embedding {key!r}; it has: {', '.join(table.obsm) or 'nothing'}."
                )
            widths[str(path)] = int(table.obsm[key].shape[1])
        if len(set(widths.values())) > 1:
            said = ", ".join(f"{path} {width}" for path, width in widths.items())
            raise InputError(
                f"the embeddings {key!r} have different numbers of dimensions, so no one model made them: {said}."
            )
    cells = [cell for table in tables for cell in table.obs_names]
    repeated = len(set(cells)) < len(cells)
    parts = []
    for number, (table, name) in enumerate(zip(tables, names, strict=True)):
        part = shared.of(table, number)
        part.obs[FILE] = name
        if repeated:
            part.obs_names = [f"{name}/{cell}" for cell in part.obs_names]
        # What belongs to one table alone, such as graphs of its cells, means nothing in all.
        part.obsp.clear()
        part.uns.clear()
        parts.append(part)
    return ad.concat(parts, join="inner", merge="first")
