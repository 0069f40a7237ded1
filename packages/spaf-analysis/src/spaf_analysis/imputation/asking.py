"""A model as one of the ways to genes, by what it expects of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import anndata as ad
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.imputation.ways import Way
from spaf_model import Model, PredictsExpression, asked


@dataclass(frozen=True)
class AskedGenes:
    """Makes the way of a model to some genes: it reads the cells as if they had not been measured.

    Attributes
    ----------
    model
        That predicts expression.
    table
        Cells with places and context; its counts are in `counts`.
    counts
        Cells x genes of the table.
    gene_of_column
        The shared gene that a column of the table is, -1 where it is none.
    names
        Of the shared genes, then of the others.
    """

    model: Model[Any, Any]
    table: ad.AnnData
    counts: sparse.csr_matrix
    gene_of_column: NDArray[np.int64]
    names: Sequence[str]

    def __call__(self, genes: NDArray[np.int64]) -> Way:
        """Return the way to genes by their positions."""
        read = np.flatnonzero(~np.isin(self.gene_of_column, genes))
        part = ad.AnnData(self.counts[:, read], obs=self.table.obs, var=self.table.var.iloc[read])
        for key in self.table.obsm:
            part.obsm[key] = self.table.obsm[key]
        asked_names = [self.names[gene] if self.knows[gene] else "" for gene in genes]
        return _ModelWay.of(self.model, part, asked_names)

    @cached_property
    def knows(self) -> NDArray[np.bool_]:
        """Whether the model knows a gene, (n_genes,)."""
        match = self.model.vocabulary.look_up(list(self.names))
        left_out = {*match.unmatched, *match.duplicated, *match.joined}
        return np.array([name not in left_out for name in self.names], dtype=bool)


@dataclass(frozen=True)
class _ModelWay(Way):
    model: PredictsExpression
    cells: ad.AnnData
    asked: tuple[str, ...]  # "" for genes that the model does not know

    @classmethod
    def of(cls, model: Model[Any, Any], cells: ad.AnnData, names: list[str]) -> _ModelWay:
        return cls(
            name="model", design=lambda rows: rows, offset=None,
            table=lambda genes: np.zeros((0, genes.size), np.float32),
            model=asked(model, PredictsExpression), cells=cells, asked=tuple(names),
        )  # fmt: skip

    def from_columns(
        self, rows: NDArray[np.int64], genes: NDArray[np.int64], columns: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Ask the model; 0 stands for genes that it does not know, of which its way gets no weight."""
        found = np.zeros((rows.size, genes.size), np.float32)
        known = [at for at, gene in enumerate(genes) if self.asked[gene]]
        if known:
            some = self.cells[rows].copy()
            depth = np.maximum(np.asarray(some.X.sum(axis=1)).ravel(), 1.0)
            counts = self.model.expression(some, [self.asked[genes[at]] for at in known])
            found[:, known] = np.log1p(np.nan_to_num(counts) * (1e4 / depth)[:, None])
        found = self.scaled(found, genes)
        if self.middle is not None:
            empty = np.asarray(self.cells.X[rows].sum(axis=1)).ravel() == 0.0
            found[empty] = self.middle[genes]
        return found
