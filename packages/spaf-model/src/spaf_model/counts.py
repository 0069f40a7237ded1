"""Counts of cells as a model reads them: tokens of genes with their counts, and what a count may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_model.errors import InputError

# The largest log1p of a count that a slide can reach: exp(20) is 5 x 10^8 transcripts of one gene in one cell.
# Not every caller lets a layer be named; who does says how.
WHERE_COUNTS_BELONG = "in X, or in the layer that is named (layer=) where one can be"
_LARGEST_LOG = 20.0
_LARGEST_OF_HALF = 2048  # up to here float16 holds every integer


@dataclasses.dataclass(frozen=True)
class CellCounts:
    """Counts of cells in the tokens of a vocabulary: what the reader gives and a tokeniser takes.

    Cell ``i`` has the genes ``tokens[indptr[i]:indptr[i + 1]]`` with ``counts`` at the same places, in no order that
    means anything; each gene at most once. A gene of the vocabulary that is not among them is zero where ``measured``
    says that the data measure it, and unknown elsewhere.
    """

    indptr: NDArray[np.int64]  # (n_cells + 1,)
    tokens: NDArray[np.int64]  # (n_entries,), token ids of genes
    counts: NDArray[np.float32]  # (n_entries,), transcripts, above 0
    context: NDArray[np.int64]  # (n_cells, 4), ids in the order of `CONTEXT_KINDS`; -1 where the model reads none
    measured: NDArray[np.bool_]  # (n_tokens,), genes that the data measure
    slides: NDArray[np.int64]  # (n_cells,), number of the slide of each cell
    slide_names: Sequence[str] = ("",)  # of those numbers; "" where nothing names the one slide
    places: NDArray[np.float64] | None = None  # (n_cells, 2 or 3), where whole slides are read and it is known
    panels: NDArray[np.bool_] | None = (
        None  # (n_slides, n_tokens), by number, where slides measure other genes than `measured`
    )

    @property
    def n_cells(self) -> int:
        """Number of cells, those without a gene included."""
        return self.indptr.size - 1

    @property
    def n_genes(self) -> NDArray[np.int64]:
        """Number of genes of each cell."""
        return np.diff(self.indptr)

    def matrix(self) -> sparse.csr_array:
        """Return the counts as CSR, (n_cells, n_tokens)."""
        return sparse.csr_array((self.counts, self.tokens, self.indptr), shape=(self.n_cells, self.measured.size))

    def take(self, cells: NDArray[np.int64]) -> CellCounts:
        """Return the cells at some positions, in that order."""
        starts, n_genes = self.indptr[cells], self.n_genes[cells]
        indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(n_genes)])
        entries = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], n_genes)
        return dataclasses.replace(
            self, indptr=indptr, tokens=self.tokens[entries], counts=self.counts[entries], context=self.context[cells],
            slides=self.slides[cells], places=None if self.places is None else self.places[cells],
        )  # fmt: skip

    @classmethod
    def joined(cls, chunks: Sequence[CellCounts]) -> CellCounts:
        """Put chunks of one table, at least one, behind each other."""
        n_genes = np.concatenate([np.zeros(1, dtype=np.int64), *(chunk.n_genes for chunk in chunks)])
        places = [chunk.places for chunk in chunks if chunk.places is not None]
        return cls(
            indptr=np.cumsum(n_genes),
            tokens=np.concatenate([chunk.tokens for chunk in chunks]),
            counts=np.concatenate([chunk.counts for chunk in chunks]),
            context=np.concatenate([chunk.context for chunk in chunks]),
            measured=chunks[0].measured,
            slides=np.concatenate([chunk.slides for chunk in chunks]),
            slide_names=chunks[0].slide_names,
            places=np.concatenate(places) if places else None,
            panels=chunks[0].panels,
        )

    def sum_over_measured(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the sum of values of tokens (n_tokens,) over the genes that are measured in each cell, (n_cells,)."""
        if self.panels is None:
            return np.full(self.n_cells, values[self.measured].sum(dtype=np.float64))
        of_slide: NDArray[np.float64] = self.panels.astype(np.float64) @ values.astype(np.float64)
        return of_slide[self.slides]


def rows_as_csr(rows: Any) -> sparse.csr_array:
    """Return some rows of a matrix of counts, sparse of any format or dense, as CSR without doubled entries.

    Raises
    ------
    InputError
        If they hold no numbers, or say true and false, or were rounded by a type of 16 bits.
    """
    if not sparse.issparse(rows):
        rows = np.asarray(rows)
    if rows.dtype.kind == "b":
        raise InputError(
            "The values say true and false, which genes are seen and not how often: name the layer with counts with "
            "layer= or, if no count is above 1, write them as integers."
        )
    if rows.dtype.kind not in "iuf":
        raise InputError(f"Counts must be numbers, not {rows.dtype}.")
    if rows.dtype == np.float16:  # scipy has no sparse matrices of it
        rows = rows.astype(np.float32)
        largest = rows.max() if min(rows.shape) else 0.0
        if largest > _LARGEST_OF_HALF and np.isfinite(largest):
            raise InputError(
                f"The values are float16 and reach {largest:.0f}, where that type has no odd numbers above "
                f"{_LARGEST_OF_HALF}, so counts were rounded: write them as integers or float32, or name another layer "
                "with layer=."
            )
    matrix = sparse.csr_array(rows)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def check_counts(
    indptr: NDArray[Any], counts: NDArray[Any], *, cell_names: Sequence[str] | NDArray[Any] | None = None
) -> None:
    """Refuse what cannot be transcript counts.

    Parameters
    ----------
    indptr
        Row pointer of the CSR of counts, n_cells + 1.
    counts
        Stored values of the CSR.
    cell_names
        Names for the messages; without them cells are told by position.

    Raises
    ------
    InputError
        For a NaN, infinite, negative or non-integer value, naming the first cell that has one. Values that look
        log-normalised are called so, with the hint to choose another layer.
    """
    if counts.dtype.kind == "u" or counts.dtype.kind == "b":
        return
    is_float = counts.dtype.kind == "f"
    if counts.size == 0:
        return
    # One cheap pass for good data; the pass that finds the culprit runs for bad data only. NaN fails both comparisons.
    if is_float:
        if bool(np.all((counts >= 0) & (counts == np.floor(counts)) & (counts < np.inf))):
            return
    elif counts.min() >= 0:
        return

    def first(bad: NDArray[np.bool_]) -> str:
        entry = int(np.flatnonzero(bad)[0])
        cell = int(np.searchsorted(indptr, entry, side="right")) - 1
        name = f"cell {str(cell_names[cell])!r}" if cell_names is not None else f"the cell at position {cell}"
        return f"{name} has the value {counts[entry]}"

    if is_float and not np.isfinite(counts).all():
        raise InputError(f"Counts must be finite: {first(~np.isfinite(counts))}.")
    fractional = is_float and bool((counts != np.floor(counts)).any())
    if fractional:
        where = first(counts != np.floor(counts))
        if counts.max() <= _LARGEST_LOG:
            raise InputError(
                f"The values look log-normalised or scaled ({where}); raw counts are needed: {WHERE_COUNTS_BELONG}."
            )
        raise InputError(f"Counts must be whole numbers: {where}; raw counts are needed: {WHERE_COUNTS_BELONG}.")
    raise InputError(f"Counts must not be negative: {first(counts < 0)}.")
