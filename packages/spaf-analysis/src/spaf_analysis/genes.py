"""The genes that two tables share, by the one rule by which a corpus joins slides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

import spaf_data
import spaf_model
from spaf_analysis.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad


@dataclass(frozen=True)
class SharedGenes:
    """Genes that two tables both measure.

    Attributes
    ----------
    names
        Their names, in the order of the first table.
    columns
        Of each table, (n_genes of the table,): the shared gene that a column is, -1 where it is none. Several columns
        may be one gene.
    """

    names: list[str]
    columns: tuple[NDArray[np.int64], NDArray[np.int64]]

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


def shared_genes(one: ad.AnnData, other: ad.AnnData, where: tuple[str, str]) -> SharedGenes:
    """Find the genes that two tables share.

    Parameters
    ----------
    one, other
        Tables of cells or spots.
    where
        What messages call them.

    Raises
    ------
    InputError
        If they share less than 5 % of the genes of the smaller one, as where one names genes by Ensembl id alone and
        the other by symbol, or where they are of two species.
    """
    tables = [spaf_data.genes_of_table(table.var, name) for table, name in zip((one, other), where, strict=True)]
    try:
        union = spaf_data.join_genes(tables)
        spaf_data.check_same_genes(tables, union)
    except spaf_data.InputError as error:
        sentence = str(error).partition("; if they are different panels")[0]
        raise InputError(sentence + ".") from error
    first, second = (np.asarray(columns, dtype=np.int64) for columns in union.columns)
    both = np.intersect1d(first, second)
    place = np.full(len(union.genes), -1, dtype=np.int64)
    place[both] = np.arange(both.size)
    return SharedGenes([union.genes[gene] for gene in both], (place[first], place[second]))


def checked_counts(table: ad.AnnData, layer: str | None, where: str) -> sparse.csr_matrix:
    """Return the counts of a table as CSR.

    Raises
    ------
    InputError
        If there is no such layer, or it holds no counts.
    """
    if layer is not None and layer not in table.layers:
        raise InputError(f"{where} has no layer {layer!r}; it has: {', '.join(table.layers) or 'none'}.")
    source: Any = table.X if layer is None else table.layers[layer]
    if source is None:
        raise InputError(f"{where} has no X; name the layer that holds its counts.")
    source = source.to_memory() if hasattr(source, "to_memory") else source
    counts = sparse.csr_matrix(source)
    counts.sum_duplicates()
    names: Sequence[str] = table.obs_names.astype(str).tolist()
    try:
        spaf_model.check_counts(counts.indptr, counts.data, cell_names=names)
    except spaf_model.InputError as error:
        raise InputError(f"{where}: {error}") from error
    counts.eliminate_zeros()
    return counts
