"""Genes with a pattern in space, of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spaf_analysis.errors import InputError
from spaf_analysis.keys import CONNECTIVITIES, MORANS_I
from spaf_analysis.spatial_genes.compute import rank_by_pattern
from spaf_analysis.tables import table_of
from spaf_model import check_key

if TYPE_CHECKING:
    import pandas as pd

    from spaf_model import Cells


def spatially_variable_genes(
    adata: Cells,
    *,
    connectivities_key: str = CONNECTIVITIES,
    min_cell_share: float = 0.05,
    table_key: str | None = None,
) -> pd.Series:
    """Moran's I of the log-normalised counts of each gene on the graph of neighbouring cells.

    Parameters
    ----------
    adata
        Cells x genes with counts in `X` and a cell graph in `obsp`, or a SpatialData.
    connectivities_key
        The graph in `obsp`.
    min_cell_share
        Genes found in a smaller share of the cells are left out: a handful of cells gives no pattern.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    pandas.Series
        Moran's I by gene, highest first (1: neighbours alike, 0: no spatial pattern).

    Raises
    ------
    InputError
        If there is no such graph, it has no edge, or no gene is in enough cells.
    """
    table = table_of(adata, table_key)
    if connectivities_key not in table.obsp:
        raise InputError(
            f"obsp has no cell graph {connectivities_key!r}; it has: {', '.join(table.obsp) or 'nothing'}."
        )
    genes = table.var_names.astype(str).tolist()
    return rank_by_pattern(table.obsp[connectivities_key], table.X, genes, min_cell_share=min_cell_share)


def spatial_genes(
    adata: Cells,
    *,
    connectivities_key: str = CONNECTIVITIES,
    min_cell_share: float = 0.05,
    table_key: str | None = None,
    key_added: str = MORANS_I,
) -> None:
    """Moran's I of each gene, into `var[key_added]`; NaN for genes in too few cells.

    Parameters
    ----------
    adata, connectivities_key, min_cell_share, table_key
        As for `spatially_variable_genes`.
    key_added
        Column of `var` to write, and key of `uns` for the parameters.

    Raises
    ------
    InputError
        As `spatially_variable_genes`.
    """
    check_key(key_added)
    table = table_of(adata, table_key)
    ranked = spatially_variable_genes(table, connectivities_key=connectivities_key, min_cell_share=min_cell_share)
    unique = ranked[~ranked.index.duplicated()]
    table.var[key_added] = unique.reindex(table.var_names.astype(str)).to_numpy()
    table.uns[key_added] = {"connectivities": connectivities_key, "min_cell_share": min_cell_share}
