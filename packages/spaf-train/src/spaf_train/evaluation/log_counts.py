"""Log counts of cells as a linear model reads them: over one depth, on a list of genes that travels with the model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_model import CellSource, InputError, ReadingOptions, Vocabulary

if TYPE_CHECKING:
    import anndata

MAX_GENES = 2_000  # with more, those whose log counts vary most
_LEAST_SHARE = 0.5  # of the counts of the fitted cells, whose genes another table must measure
_ID_COLUMN = "gene_ids"


@dataclasses.dataclass(frozen=True, eq=False)
class LogCounts:
    """Which genes are read, and what is known of them from the cells that were fitted.

    Attributes
    ----------
    genes, gene_ids
        Names and Ensembl ids ("" where there is none).
    depth
        Median total of those genes in the fitted cells, which the counts of every cell are scaled to.
    share
        (n_genes,), of each gene in all counts of the fitted cells.
    mean
        (n_genes,), of the log counts: what a gene counts as where a table does not measure it.
    """

    genes: tuple[str, ...]
    gene_ids: tuple[str, ...]
    depth: float
    share: NDArray[np.float32]
    mean: NDArray[np.float32]

    @classmethod
    def fit(
        cls, adata: anndata.AnnData, rows: NDArray[np.integer], *, layer: str | None = None
    ) -> tuple[LogCounts, NDArray[np.float32]]:
        """Learn from some cells of a table, and return the log counts (n_cells, n_genes) of all of them.

        Raises
        ------
        InputError
            If there is no such layer, values are not counts, or no cell of `rows` has any.
        """
        unique = ~adata.var_names.duplicated()
        names = adata.var_names[unique].astype(str).to_numpy(dtype=object)
        ids = np.full(names.size, "", dtype=object)
        if _ID_COLUMN in adata.var:
            ids = adata.var[_ID_COLUMN][unique].astype(object).fillna("").astype(str).to_numpy(dtype=object)
        nothing = np.zeros(names.size, dtype=np.float32)
        counts, _ = cls(tuple(names), tuple(ids), 1.0, nothing, nothing)._read(adata, layer)
        if not counts[rows].nnz:
            raise InputError("No training cell has any count.")
        if names.size > MAX_GENES:
            kept = most_variable(counts[rows])
            counts, names, ids = counts[:, kept], names[kept], ids[kept]
        known = counts[rows]
        totals = row_sums(known)
        depth = float(np.median(totals[totals > 0]))
        share = np.asarray(known.sum(axis=0, dtype=np.float64)).ravel()
        values = log_scaled(counts, depth).toarray()
        mean = values[rows][totals > 0].mean(axis=0)
        values[row_sums(counts) == 0] = np.nan
        made = cls(tuple(names), tuple(ids), depth, (share / share.sum()).astype(np.float32), mean)
        return made, values

    def of(self, adata: anndata.AnnData, *, layer: str | None = None) -> NDArray[np.float32]:
        """Return the log counts of a table, (n_cells, n_genes); NaN for a cell without any count of these genes.

        A gene that the table does not measure counts as its mean, and the depth is that of those it does.

        Raises
        ------
        InputError
            If there is no such layer, values are not counts, or the table measures too few of the genes.
        """
        counts, measured = self._read(adata, layer)
        share = float(self.share[measured].sum())
        if share < _LEAST_SHARE:
            raise InputError(
                f"The table measures {int(measured.sum())} of the {len(self.genes)} genes that the labels were learnt "
                f"from, with {share:.0%} of their counts; at least {_LEAST_SHARE:.0%} are needed."
            )
        values = log_scaled(counts, self.depth * share).toarray()
        values[:, ~measured] = self.mean[~measured]
        values[row_sums(counts) == 0] = np.nan
        return values

    def _read(self, adata: anndata.AnnData, layer: str | None) -> tuple[sparse.csr_array, NDArray[np.bool_]]:
        """Return counts (n_cells, n_genes), and which genes the table measures."""
        ids = self.gene_ids if any(self.gene_ids) else None
        vocabulary = Vocabulary.build(self.genes, scale=np.ones(len(self.genes)), gene_ids=ids, unknown=())
        cells = CellSource(adata, vocabulary, ReadingOptions(layer=layer, min_gene_fraction=0.0)).read()
        own = vocabulary.gene_token_ids
        return sparse.csr_array(cells.matrix()[:, own]), cells.measured[own]


def row_sums(counts: sparse.csr_array) -> NDArray[np.float64]:
    """Return the total of each cell."""
    return np.asarray(counts @ np.ones(counts.shape[1]))


def log_scaled(counts: sparse.csr_array, depth: float) -> sparse.csr_array:
    """Return ln(1 + counts per `depth`), cells x genes; cells without counts stay zero."""
    factors = (depth / np.maximum(row_sums(counts), 1.0)).astype(np.float32)
    values = np.log1p(counts.data * np.repeat(factors, np.diff(counts.indptr)))
    return sparse.csr_array((values.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)


def most_variable(counts: sparse.csr_array) -> NDArray[np.int64]:
    """Return the `MAX_GENES` genes whose log counts vary most, ascending."""
    totals = row_sums(counts)
    logs = log_scaled(counts, float(np.median(totals[totals > 0])))
    mean = np.asarray(logs.mean(axis=0)).ravel()
    logs.data = logs.data**2
    variance = np.asarray(logs.mean(axis=0)).ravel() - mean**2
    return np.sort(np.argsort(-variance, kind="stable")[:MAX_GENES])
