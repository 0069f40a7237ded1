"""The genes that tables share, by the one rule by which a corpus joins slides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import anndata as ad
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

import spaf_data
import spaf_model
from spaf_analysis.errors import InputError

_OF_ALL = "in X, or in the layer that is named (layer=) where one can be"  # of a sentence of `spaf_model`


@dataclass(frozen=True)
class SharedGenes:
    """Genes that all of some tables measure.

    Attributes
    ----------
    names
        Their names, in the order of the first table.
    columns
        Of each table, (n_genes of the table,): the shared gene that a column is, -1 where it is none. Several columns
        may be one gene.
    """

    names: list[str]
    columns: tuple[NDArray[np.int64], ...]

    def counts(self, matrix: Any, table: int) -> sparse.csr_matrix:
        """Return the counts of the shared genes of a table, cells x genes; columns of one gene are added up."""
        column = self.columns[table]
        of_shared = np.flatnonzero(column >= 0)
        joins = sparse.csr_matrix(
            (np.ones(of_shared.size), (of_shared, column[of_shared])), shape=(column.size, len(self.names))
        )
        counts = sparse.csr_matrix(sparse.csr_matrix(matrix) @ joins)
        counts.sort_indices()
        return counts

    def of(self, table: ad.AnnData, number: int) -> ad.AnnData:
        """Return a copy of a table with the shared genes alone, in their order and by their names.

        Where several columns are one gene, `X` is their sum, and layers and what is known of single columns go.
        """
        column = self.columns[number]
        places = np.flatnonzero(column >= 0)
        if places.size == len(self.names):
            part = table[:, places[np.argsort(column[places])]].copy()
        else:
            part = table[:, :0].copy()
            counts = self.counts(table.X, number).astype(table.X.dtype)
            part = ad.AnnData(counts, obs=part.obs, obsm=dict(part.obsm), obsp=dict(part.obsp), uns=dict(part.uns))
        part.var_names = self.names
        return part


def check_gene_names(table: ad.AnnData) -> None:
    """Look whether each gene of a table can be told by its name.

    Raises
    ------
    InputError
        If two have one name.
    """
    names = table.var_names
    if not names.is_unique:
        twice = str(names[names.duplicated()][0])
        raise InputError(f"the table has two genes named {twice!r}; make gene names unique first.")


def shared_genes(one: ad.AnnData, other: ad.AnnData, where: tuple[str, str]) -> SharedGenes:
    """Find the genes that two tables share; see `genes_in_all`."""
    return genes_in_all((one, other), where)


def genes_in_all(tables: Sequence[ad.AnnData], where: Sequence[str], *, least: int = 1) -> SharedGenes:
    """Find the genes that all of some tables measure.

    A gene goes by its Ensembl id where tables give one, and else by its symbol (`spaf_data.join_genes`).

    Parameters
    ----------
    tables
        Of cells or spots.
    where
        What messages call them.
    least
        How many genes are needed.

    Raises
    ------
    InputError
        If two share less than 5 % of the genes of the smaller one, as where one names genes by Ensembl id alone and
        the other by symbol, or where they are of two species; or if too few genes are in all.
    """
    named = [spaf_data.genes_of_table(table.var, name) for table, name in zip(tables, where, strict=True)]
    try:
        union = spaf_data.join_genes(named)
        spaf_data.check_same_genes(named, union)
    except spaf_data.InputError as error:
        sentence = str(error).partition("; if they are different panels")[0]
        # Upper and lower case tell human symbols from those of a mouse: naming them alike would only hide it.
        raise InputError(sentence.rstrip(".") + ". Are they of one species?") from error
    columns = [np.asarray(found, dtype=np.int64) for found in union.columns]
    in_all = reduce(np.intersect1d, columns)
    if in_all.size < least:
        raise InputError(
            f"only {in_all.size} genes are in all of {', '.join(where)}, and {least} are needed; are some symbols and "
            "others Ensembl ids?"
        )
    place = np.full(len(union.genes), -1, dtype=np.int64)
    place[in_all] = np.arange(in_all.size)
    return SharedGenes([union.genes[gene] for gene in in_all], tuple(place[found] for found in columns))


def checked_counts(table: ad.AnnData, layer: str | None, where: str, *, option: str | None = None) -> sparse.csr_matrix:
    """Return the counts of a table as CSR.

    Parameters
    ----------
    table
        Cells or spots.
    layer
        With the counts; X if None.
    where
        What messages call the table.
    option
        What names its layer, for messages; None where nothing does.

    Raises
    ------
    InputError
        If there is no such layer, or it holds no counts.
    """
    if layer is not None and layer not in table.layers:
        raise InputError(f"{where} has no layer {layer!r}; it has: {', '.join(table.layers) or 'none'}.")
    source: Any = table.X if layer is None else table.layers[layer]
    if source is None:
        told = "put its counts there" if option is None else f"name the layer that holds its counts with {option}"
        raise InputError(f"{where} has no X; {told}.")
    source = source.to_memory() if hasattr(source, "to_memory") else source
    counts = sparse.csr_matrix(source)
    counts.sum_duplicates()
    names: Sequence[str] = table.obs_names.astype(str).tolist()
    try:
        spaf_model.check_counts(counts.indptr, counts.data, cell_names=names)
    except spaf_model.InputError as error:
        told = "in X" if option is None else f"in X, or in a layer that is named with {option}"
        raise InputError(f"{where}: {str(error).replace(_OF_ALL, told)}") from error
    counts.eliminate_zeros()
    return counts
