"""The cells of an AnnData as a model reads them: context and ranked genes, some thousand cells at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import anndata
import numpy as np
from numpy.typing import NDArray

from spaf_model.context import context_ids
from spaf_model.errors import InputError
from spaf_model.expression import ExpressionReader, match_genes
from spaf_model.tokens import RankedCells
from spaf_model.vocabulary import Vocabulary

_ROWS_AT_A_TIME = 16_384  # of the expression matrix; bounds the memory of backed files


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How an AnnData is read."""

    tissue: str | None = None  # context of all cells; None: the obs column of that name
    condition: str | None = None
    species: str | None = None
    assay: str | None = None
    layer: str | None = None  # with the counts; None: X
    min_gene_fraction: float = 0.5  # least share of genes that must match
    strict: bool = False  # refuse cells without any gene of the vocabulary

    def as_record(self) -> dict[str, Any]:
        """Return the options that are set, as plain values."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


class CellSource:
    """Cells of an AnnData in the tokens of a model; counts are read when asked for.

    Parameters
    ----------
    adata
        Raw counts, cells x genes.
    vocabulary
        Of the model.
    options
        Context, layer, and how many genes must match.
    max_genes
        Highest-ranked genes kept a cell; None keeps all.
    cells
        Positions of the cells to read, ascending; None reads all.

    Raises
    ------
    InputError
        For too few or duplicated genes, a context that is missing or not known, a layer that is not there. Reading
        raises it for values that are not counts, and for a cell without genes where the options are strict.
    """

    def __init__(
        self,
        adata: anndata.AnnData,
        vocabulary: Vocabulary,
        options: ReadingOptions,
        *,
        max_genes: int | None,
        cells: NDArray[np.int64] | None = None,
    ) -> None:
        given = {kind: getattr(options, kind) for kind in ("condition", "tissue", "species", "assay")}
        obs = adata.obs if cells is None else adata.obs.iloc[cells]
        self.context = context_ids(vocabulary, obs, given)  # (n_cells, 4)
        self.match = match_genes(adata.var, vocabulary, min_fraction=options.min_gene_fraction)
        self.n_cells = len(obs)
        self.n_empty = 0  # cells without any gene of the vocabulary, of those read so far
        self._names = obs.index
        self._strict = options.strict
        self._cells = cells
        self._reader = ExpressionReader(adata, self.match, vocabulary, layer=options.layer, max_genes=max_genes)

    @property
    def n_counts(self) -> tuple[int, int]:
        """Counts of the cells read so far, and those among them that are of genes of the model."""
        return round(self._reader.n_counts), round(self._reader.n_read)

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[slice, RankedCells]]:
        """Yield the cells from `start` to `stop`: where a chunk of them is, and its ranked tokens."""
        stop = self.n_cells if stop is None else stop
        for first in range(start, stop, _ROWS_AT_A_TIME):
            rows = slice(first, min(first + _ROWS_AT_A_TIME, stop))
            ranked = self._reader.rank(rows if self._cells is None else self._cells[rows])
            empty = np.flatnonzero(ranked.n_genes == 0)
            if self._strict and empty.size:
                name = self._names[first + empty[0]]
                raise InputError(f"Cell {name!r} has no transcript of a gene of the model, and strict is set.")
            self.n_empty += empty.size
            yield rows, ranked

    def rank(self) -> RankedCells:
        """Return the ranked tokens of all cells."""
        ranked = [chunk for _, chunk in self.chunks()]
        n_genes = np.concatenate([np.zeros(1, dtype=np.int64), *(chunk.n_genes for chunk in ranked)])
        tokens = np.concatenate([np.zeros(0, dtype=np.int64), *(chunk.tokens for chunk in ranked)])
        return RankedCells(indptr=np.cumsum(n_genes), tokens=tokens)

    def columns_of_tokens(self, n_tokens: int) -> NDArray[np.int64]:
        """Return for each token id the column of the AnnData that holds the gene, -1 where there is none."""
        columns = np.full(n_tokens, -1, dtype=np.int64)
        matched = np.flatnonzero(self.match.token_ids >= 0)[::-1]  # the first of several columns of one gene stays
        columns[self.match.token_ids[matched]] = matched
        return columns
