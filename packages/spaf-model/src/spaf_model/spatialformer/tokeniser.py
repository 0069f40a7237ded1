"""From counts to padded batches of token sequences: of single cells, and of pairs of cells."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from spaf_model.errors import InputError
from spaf_model.spatialformer.ranking import RankedCells, rank_counts
from spaf_model.spatialformer.values import GeneValueKind, GeneValues, SlideStatistics, slide_statistics
from spaf_model.vocabulary import CONTEXT_KINDS, Vocabulary

if TYPE_CHECKING:
    from spaf_model.counts import CellCounts

SPECIAL_TOKENS = ("pad", "cls", "mask", "sep")  # that a vocabulary must have
N_PREFIX = 1 + len(CONTEXT_KINDS)  # CLS and the context tokens, before the genes of the first cell


def sequence_lengths(*n_genes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the tokens of sequences.

    Parameters
    ----------
    *n_genes
        Genes of the cell of each sequence or, for pairs, of the first and of the second.
    """
    # Each cell has its context before its genes and SEP behind them; CLS stands before all.
    return sum((n + len(CONTEXT_KINDS) + 1 for n in n_genes), start=np.ones_like(n_genes[0]))


@dataclasses.dataclass(frozen=True)
class TokenBatch:
    """Token sequences, padded on the right.

    One cell is ``CLS condition tissue species assay g1 .. gn SEP``; a pair goes on with
    ``condition tissue species assay h1 .. hm SEP``.

    ``ids`` (B, L) holds token ids; ``types`` (B, L) 0 on padding, 1 on the first cell (CLS and its SEP included), 2 on
    the second; ``lengths`` (B, 2) the tokens of either segment, the second 0 for a single cell. All are int64.

    For a model that reads values beside ranks, ``values`` (B, L) holds that of the gene at each position, 0 where there
    is none or it is hidden, and ``profile`` (B, n_tokens), of single cells, those of all genes (`GeneValues.profiles`);
    both are float32.
    """

    ids: torch.Tensor
    types: torch.Tensor
    lengths: torch.Tensor
    values: torch.Tensor | None = None
    profile: torch.Tensor | None = None

    @classmethod
    def from_cells(
        cls, ranked: RankedCells, context: NDArray[np.int64], cells: NDArray[np.integer], vocabulary: Vocabulary
    ) -> TokenBatch:
        """Make a batch of single cells.

        Parameters
        ----------
        ranked
            Gene tokens of cells.
        context
            Ids of condition, tissue, species and assay of those cells, (n_cells, 4).
        cells
            Positions of the cells of the batch.
        vocabulary
            Gives the ids of the special tokens.
        """
        cells = _check_cells(cells, ranked, context)
        return cls._assemble(ranked, [context[cells]], [cells], vocabulary)

    @classmethod
    def from_pairs(
        cls,
        ranked: RankedCells,
        context: NDArray[np.int64],
        left: NDArray[np.integer],
        right: NDArray[np.integer],
        vocabulary: Vocabulary,
    ) -> TokenBatch:
        """Make a batch of pairs of cells; the arguments are those of `from_cells`, with the cells of either side.

        Raises
        ------
        InputError
            If left and right differ in length.
        """
        left = _check_cells(left, ranked, context)
        right = _check_cells(right, ranked, context)
        if left.size != right.size:
            raise InputError(f"left and right must have equal lengths, not {left.size} and {right.size}.")
        return cls._assemble(ranked, [context[left], context[right]], [left, right], vocabulary)

    @classmethod
    def _assemble(
        cls,
        ranked: RankedCells,
        contexts: list[NDArray[np.int64]],
        segments: list[NDArray[np.int64]],
        vocabulary: Vocabulary,
    ) -> TokenBatch:
        n_rows = segments[0].size
        n_context = len(CONTEXT_KINDS)
        lengths = np.zeros((n_rows, 2), dtype=np.int64)
        for position, cells in enumerate(segments):
            lengths[:, position] = (position == 0) + n_context + ranked.n_genes[cells] + 1
        total = lengths.sum(axis=1)
        width = int(total.max()) if n_rows else 0
        ids = np.full((n_rows, width), vocabulary.pad, dtype=np.int64)
        types = np.zeros((n_rows, width), dtype=np.int64)
        if n_rows:
            ids[:, 0] = vocabulary.cls
        flat = ids.reshape(-1)
        row_starts = np.arange(n_rows) * width
        first_token = row_starts + 1  # where the context of the segment begins, in the flat batch
        for cells, context in zip(segments, contexts, strict=True):
            n_genes = ranked.n_genes[cells]
            flat[first_token[:, None] + np.arange(n_context)] = context
            within = np.arange(n_genes.sum()) - np.repeat(np.cumsum(n_genes) - n_genes, n_genes)
            genes = ranked.tokens[np.repeat(ranked.indptr[cells], n_genes) + within]
            flat[np.repeat(first_token + n_context, n_genes) + within] = genes
            flat[first_token + n_context + n_genes] = vocabulary.sep
            first_token = first_token + n_context + n_genes + 1
        columns = np.arange(width)
        types[columns < total[:, None]] = 2
        types[columns < lengths[:, :1]] = 1
        return cls(
            torch.from_numpy(ids),
            torch.from_numpy(types),
            torch.from_numpy(lengths),
            *_values(ranked.values, segments, ids, types),
        )

    @property
    def n_tokens(self) -> int:
        """Real tokens of the batch."""
        return int(self.lengths.sum())

    @property
    def mask(self) -> torch.Tensor:
        """Real tokens, bool (B, L)."""
        columns = torch.arange(self.ids.shape[1], device=self.ids.device)
        return columns < self.lengths.sum(dim=1, keepdim=True)

    def to(self, device: torch.device | str) -> TokenBatch:
        """Return the batch on a device."""
        return self._each(lambda one: one.to(device, non_blocking=True))

    def split(self, sizes: Sequence[int]) -> list[TokenBatch]:
        """Return the rows as batches of these sizes, each cut to its longest sequence."""
        parts = []
        start = 0
        for size in sizes:
            part = self._each(operator.itemgetter(slice(start, start + size)))
            longest = int(part.lengths.sum(dim=1).max())
            values = None if part.values is None else part.values[:, :longest]
            parts.append(TokenBatch(part.ids[:, :longest], part.types[:, :longest], part.lengths, values, part.profile))
            start += size
        return parts

    def joined(self, states: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return hidden states (B, L, D) of the whole batch from those of the batches of `split`."""
        length = self.ids.shape[1]
        return torch.cat([functional.pad(part, (0, 0, 0, length - part.shape[1])) for part in states])

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> TokenBatch:
        """Return the batch with a change to each of its tensors."""
        values, profile = (None if one is None else change(one) for one in (self.values, self.profile))
        return TokenBatch(change(self.ids), change(self.types), change(self.lengths), values, profile)


def _values(
    of_cells: GeneValues | None,
    segments: list[NDArray[np.int64]],
    ids: NDArray[np.int64],
    types: NDArray[np.int64],
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the values at the positions of a batch and, of single cells, those of all genes."""
    if of_cells is None:
        return None, None
    values = np.zeros(ids.shape, dtype=np.float32)
    for number, cells in enumerate(segments, start=1):
        rows = of_cells.rows(cells)
        if ids.size:
            values += np.where(types == number, np.take_along_axis(rows, ids, axis=1), np.float32(0.0))
    profile = torch.from_numpy(of_cells.profiles(segments[0], rows)) if len(segments) == 1 else None
    return torch.from_numpy(values), profile


def _check_cells(cells: NDArray[np.integer], ranked: RankedCells, context: NDArray[np.int64]) -> NDArray[np.int64]:
    if context.shape != (ranked.n_cells, len(CONTEXT_KINDS)):
        raise InputError(
            f"context must have shape ({ranked.n_cells}, {len(CONTEXT_KINDS)}), one row per cell, not {context.shape}."
        )
    positions = np.asarray(cells).astype(np.int64)
    if positions.size and (positions.min() < 0 or positions.max() >= ranked.n_cells):
        raise InputError(f"Cell positions must be from 0 to {ranked.n_cells - 1}.")
    return positions


@dataclasses.dataclass(frozen=True)
class SequencedCells:
    """Cells as token sequences."""

    ranked: RankedCells
    context: NDArray[np.int64]  # (n_cells, 4)
    vocabulary: Vocabulary

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each cell; 0 for a cell without a gene."""
        n_genes = self.ranked.n_genes
        return np.where(n_genes > 0, sequence_lengths(n_genes), 0)

    def batch(self, cells: NDArray[np.int64]) -> TokenBatch:
        """Return some cells as a batch."""
        return TokenBatch.from_cells(self.ranked, self.context, cells, self.vocabulary)

    def in_context(self, rows: NDArray[np.int64], context: NDArray[np.int64]) -> CellsInContext:
        """Return some cells with contexts of their own."""
        return CellsInContext(self, rows, context)

    def values_of(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the values of all genes of some cells, and which genes are known of them, (n_cells, n_tokens)."""
        assert self.ranked.values is not None, "values are there where the model reads any"
        return self.ranked.values.rows(cells), self.ranked.values.known(cells)

    def pair_lengths(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the tokens of each pair of cells as one sequence."""
        return sequence_lengths(self.ranked.n_genes[left], self.ranked.n_genes[right])

    def pair_batch(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> TokenBatch:
        """Return pairs of cells as a batch."""
        return TokenBatch.from_pairs(self.ranked, self.context, left, right, self.vocabulary)


@dataclasses.dataclass(frozen=True)
class CellsInContext:
    """Some of the cells of sequences in contexts of their own, without a copy of their genes."""

    cells: SequencedCells
    rows: NDArray[np.int64]  # (n,), which of those
    context: NDArray[np.int64]  # (n, 4)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each cell; 0 for a cell without a gene."""
        return self.cells.lengths[self.rows]

    def in_context(self, rows: NDArray[np.int64], context: NDArray[np.int64]) -> CellsInContext:
        """Return some cells with other contexts."""
        return CellsInContext(self.cells, self.rows[rows], context)

    def batch(self, cells: NDArray[np.int64]) -> TokenBatch:
        """Return some cells as a batch."""
        return self._batch(cells)

    def pair_lengths(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the tokens of each pair of cells as one sequence."""
        return self.cells.pair_lengths(self.rows[left], self.rows[right])

    def pair_batch(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> TokenBatch:
        """Return pairs of cells as a batch."""
        return self._batch(left, right)

    def _batch(self, *sides: NDArray[np.int64]) -> TokenBatch:
        contexts, segments = [self.context[side] for side in sides], [self.rows[side] for side in sides]
        return TokenBatch._assemble(self.cells.ranked, contexts, segments, self.cells.vocabulary)


@dataclasses.dataclass(frozen=True)
class SpatialFormerTokeniser:
    """Genes of a cell in descending order of count over scale, behind the context of the cell."""

    vocabulary: Vocabulary
    max_genes: int | None = None  # highest-ranked genes kept a cell; None: all
    gene_values: GeneValueKind = "none"  # "none", or how values beside the ranks are standardised
    statistics: Sequence[SlideStatistics | None] | None = None  # of the slides by number; None: of the cells themselves

    def __call__(self, cells: CellCounts) -> SequencedCells:
        """Rank the genes of cells; with values and without statistics, they are all cells of their slides."""
        ranked = rank_counts(cells.indptr, cells.tokens, cells.counts, self.vocabulary.scale, max_genes=self.max_genes)
        if self.gene_values != "none":
            counts = cells.matrix()
            statistics = self.statistics or slide_statistics(self.gene_values, counts, cells.slides)
            n_genes = self.vocabulary.gene_token_ids.size
            values = GeneValues(counts, cells.slides, statistics, n_genes, panel=cells.measured)
            ranked = dataclasses.replace(ranked, values=values)
        return SequencedCells(ranked, cells.context, self.vocabulary)

    def knowing(self, slides: Iterable[CellCounts]) -> SpatialFormerTokeniser:
        """Return the tokeniser with the statistics of slides by their numbers, each given as all of its cells."""
        if self.gene_values == "none":
            return self
        statistics = [
            SlideStatistics.of(self.gene_values, cells.matrix()) if cells.n_cells else None for cells in slides
        ]
        return dataclasses.replace(self, statistics=statistics)
