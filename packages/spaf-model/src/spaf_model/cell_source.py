"""The cells of an AnnData as a model reads them: context and counts, some thousand cells at a time."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaf_model.context import context_ids, places_of, slides_of
from spaf_model.counts import CellCounts
from spaf_model.errors import InputError
from spaf_model.expression import ExpressionReader, match_genes
from spaf_model.shipped import advice_of_own
from spaf_model.vocabulary import CONTEXT_KINDS, Vocabulary

if TYPE_CHECKING:
    import anndata

    from spaf_model.gene_match import GeneMatch
    from spaf_model.options import ReadingOptions

logger = logging.getLogger(__name__)

_ROWS_AT_A_TIME = 16_384  # of the expression matrix; bounds the memory of backed files
_LITTLE = 0.5  # of the counts and of the model's genes, below which a model hardly knows a panel


class CellSource:
    """Cells of an AnnData in the tokens of a model; counts are read when asked for.

    Parameters
    ----------
    adata
        Raw counts, cells x genes.
    vocabulary
        Of the model.
    options
        Context, layer, column of slides, and how many genes must match.
    cells
        Positions of the cells to read, ascending; None reads all.
    by_slide
        Whether slides and places of the cells are wanted; else all cells count as one slide without places.
    needed_context
        Kinds of context that must be known (`context_ids`).

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
        cells: NDArray[np.int64] | None = None,
        by_slide: bool = False,
        needed_context: Collection[str] = CONTEXT_KINDS,
    ) -> None:
        given = {kind: getattr(options, kind) for kind in CONTEXT_KINDS}
        obs = adata.obs if cells is None else adata.obs.iloc[cells]
        self.context = context_ids(vocabulary, obs, given, needed=needed_context)  # (n_cells, 4)
        self.slides, self.slide_names, self.places = np.zeros(len(obs), dtype=np.int64), [""], None
        if by_slide:
            self.slides, self.slide_names = slides_of(obs, options.slide_key)
            places = places_of(adata)
            self.places = places if places is None or cells is None else places[cells]
        self.match = match_genes(
            adata.var, vocabulary, min_fraction=options.min_gene_fraction, gene_names=options.gene_names
        )
        self.n_cells = len(obs)
        self.n_empty = 0  # cells without any gene of the vocabulary, of those read so far
        self._names = obs.index
        self._strict = options.strict
        self._cells = cells
        self.n_placed = most_of_a_slide(self.slides) if self.places is not None else 0
        self._reader = ExpressionReader(adata, self.match, layer=options.layer)
        self._measured = np.zeros(vocabulary.n_tokens, dtype=bool)
        self._measured[self.match.token_ids[self.match.token_ids >= 0]] = True

    @property
    def n_counts(self) -> tuple[int, int]:
        """Counts of the cells read so far, and those among them that are of genes of the model."""
        return round(self._reader.n_counts), round(self._reader.n_read)

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[slice, CellCounts]]:
        """Yield the cells from `start` to `stop`: where a chunk of them is, and its counts."""
        stop = self.n_cells if stop is None else stop
        for first in range(start, stop, _ROWS_AT_A_TIME):
            rows = slice(first, min(first + _ROWS_AT_A_TIME, stop))
            indptr, tokens, counts = self._reader.read(rows if self._cells is None else self._cells[rows])
            cells = self._counts(rows, indptr, tokens, counts)
            empty = np.flatnonzero(cells.n_genes == 0)
            if self._strict and empty.size:
                name = self._names[first + empty[0]]
                raise InputError(f"Cell {name!r} has no transcript of a gene of the model, and strict is set.")
            self.n_empty += empty.size
            yield rows, cells

    def read(self) -> CellCounts:
        """Return the counts of all cells."""
        return CellCounts.joined([self.none(), *(cells for _, cells in self.chunks())])

    def none(self) -> CellCounts:
        """Return the counts of no cell, for what follows from the kind of data alone."""
        nothing = np.zeros(0, dtype=np.int64)
        return self._counts(slice(0, 0), np.zeros(1, dtype=np.int64), nothing, nothing.astype(np.float32))

    def _counts(
        self,
        rows: slice,
        indptr: NDArray[np.int64],
        tokens: NDArray[np.int64],
        counts: NDArray[np.float32],
    ) -> CellCounts:
        return CellCounts(
            indptr=indptr,
            tokens=tokens,
            counts=counts,
            context=self.context[rows],
            measured=self._measured,
            slides=self.slides[rows],
            slide_names=self.slide_names,
            places=None if self.places is None else self.places[rows],
        )

    def as_record(self, counts: tuple[int, int] | None = None) -> dict[str, Any]:
        """Return which genes were found and what was read, as plain values.

        Parameters
        ----------
        counts
            As `n_counts`, where other processes have read too.
        """
        n_counts, n_read = counts or self.n_counts
        return {
            "n_genes_matched": len(self.match.matched),
            "gene_fraction": self.match.fraction,
            "model_gene_fraction": self.match.model_fraction,
            "count_fraction": n_read / max(n_counts, 1),
            "genes_joined": np.array(self.match.joined, dtype=object),
            "genes_unmatched": np.array(self.match.unmatched, dtype=object),
        }

    def columns_of_tokens(self, n_tokens: int) -> NDArray[np.int64]:
        """Return for each token id the column of the AnnData that holds the gene, -1 where there is none."""
        columns = np.full(n_tokens, -1, dtype=np.int64)
        matched = np.flatnonzero(self.match.token_ids >= 0)[::-1]  # the first of several columns of one gene stays
        columns[self.match.token_ids[matched]] = matched
        return columns


def most_of_a_slide(slides: NDArray[Any]) -> int:
    """Return the cells of the largest slide, of the slide of each cell."""
    return int(np.unique(slides, return_counts=True)[1].max(initial=0))


def say_what_was_read(match: GeneMatch, n_counts: float, n_read: float, *, model: str = "", n_placed: int = 0) -> None:
    """Log how much of the cells a model read, as a warning where it was little, and which model would do better."""
    share = n_read / max(n_counts, 1)
    little = share < _LITTLE and match.model_fraction < _LITTLE
    logger.log(
        logging.WARNING if little else logging.INFO,
        "The model read %d of %d genes (%.0f %% of its own %d) and %.0f %% of the counts%s.",
        len(match.matched) + len(match.joined), match.token_ids.size, 100 * match.model_fraction, match.n_known,
        100 * share,
        ": it hardly knows this panel, so that its embeddings say little of the cells" if little else "",
    )  # fmt: skip
    advice_of_own(model, n_placed)
