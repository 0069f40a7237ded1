"""From counts to tokens: the genes of a cell in descending order of count over scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaf_model.counts import check_counts
from spaf_model.errors import InputError
from spaf_model.spatialformer.values import GeneValues

# A sort key has 32 bits for the rank value; the other 32 are shared by the cell within its chunk and the token.
_VALUE_BITS = 32


@dataclasses.dataclass(frozen=True)
class RankedCells:
    """Gene tokens of cells, best ranked first.

    Cell ``i`` has the tokens ``tokens[indptr[i]:indptr[i + 1]]``.
    """

    indptr: NDArray[np.int64]  # (n_cells + 1,)
    tokens: NDArray[np.int64]  # (n_entries,)
    values: GeneValues | None = None  # of the same cells, for a model that reads values beside ranks

    @property
    def n_cells(self) -> int:
        """Number of cells, those without a token included."""
        return self.indptr.size - 1

    @cached_property  # asked of a window for each of its batches
    def n_genes(self) -> NDArray[np.int64]:
        """Number of gene tokens of each cell."""
        return np.diff(self.indptr)

    def take(self, rows: NDArray[np.int64]) -> RankedCells:
        """Return some of the cells."""
        n_genes = self.n_genes[rows]
        ends = np.cumsum(n_genes)
        index = np.arange(n_genes.sum()) + np.repeat(self.indptr[rows] - (ends - n_genes), n_genes)
        values = None if self.values is None else self.values.take(rows)
        return RankedCells(np.concatenate([[0], ends]), self.tokens[index], values)


def rank_genes(
    indptr: NDArray[Any],
    token_ids: NDArray[Any],
    counts: NDArray[Any],
    scale: NDArray[np.float32],
    *,
    max_genes: int | None = None,
    cell_names: Sequence[str] | NDArray[Any] | None = None,
) -> RankedCells:
    """Rank the genes of each cell by count over scale.

    Equal values are ordered by token id, so that equal input gives equal tokens everywhere. Zero counts and entries
    without a token are dropped. The quotient is taken in single precision.

    Parameters
    ----------
    indptr
        Row pointer of the CSR of counts, n_cells + 1.
    token_ids
        Token id of each stored entry; below 0 where the gene is not in the vocabulary.
    counts
        Counts of the stored entries, transcripts.
    scale
        What a count is divided by, for each token id (`Vocabulary.scale`).
    max_genes
        Keep so many of the highest-ranked genes a cell; None keeps all.
    cell_names
        Names of the cells for error messages.

    Returns
    -------
    RankedCells
        The tokens of each cell, best first.

    Raises
    ------
    InputError
        If a count is not a count (see `check_counts`), or `max_genes` is below 1.

    Notes
    -----
    Cell, inverted bits of the value and token are packed into one 64-bit key, and the keys are sorted: non-negative
    IEEE floats order as their bits do. The tokens are then read off the keys, so nothing is gathered.

    Examples
    --------
    >>> import numpy as np
    >>> ranked = rank_genes(np.array([0, 3]), np.array([1, 2, 3]), np.array([4, 9, 4]), np.ones(4, np.float32))
    >>> ranked.tokens
    array([2, 1, 3])
    """
    counts = np.asarray(counts)
    check_counts(np.asarray(indptr), counts, cell_names=cell_names)
    return rank_counts(indptr, token_ids, counts, scale, max_genes=max_genes)


def rank_counts(
    indptr: NDArray[Any],
    token_ids: NDArray[Any],
    counts: NDArray[Any],
    scale: NDArray[np.float32],
    *,
    max_genes: int | None = None,
) -> RankedCells:
    """Rank genes as `rank_genes` does, where it is known that the counts are counts."""
    if max_genes is not None and max_genes < 1:
        raise InputError(f"max_genes must be at least 1, not {max_genes}.")
    indptr = np.asarray(indptr, dtype=np.int64)
    counts = np.asarray(counts)
    token_ids = np.asarray(token_ids)
    n_cells = indptr.size - 1
    token_bits = max(int(scale.size - 1).bit_length(), 1)
    cells_per_chunk = 1 << (64 - _VALUE_BITS - token_bits)
    n_genes = np.zeros(n_cells, dtype=np.int64)
    pieces: list[NDArray[np.int64]] = []
    for start in range(0, n_cells, cells_per_chunk):
        stop = min(start + cells_per_chunk, n_cells)
        entries = slice(int(indptr[start]), int(indptr[stop]))
        tokens = token_ids[entries].astype(np.int64, copy=False)
        values = counts[entries]
        cells = np.repeat(np.arange(stop - start, dtype=np.uint64), np.diff(indptr[start : stop + 1]))
        kept = (tokens >= 0) & (values > 0)
        if not kept.all():
            tokens, values, cells = tokens[kept], values[kept], cells[kept]
        quotient = values.astype(np.float32) / scale[tokens]
        key = (cells << np.uint64(_VALUE_BITS)) | np.uint64(0xFFFFFFFF) - quotient.view(np.uint32)
        key = np.sort((key << np.uint64(token_bits)) | tokens.astype(np.uint64))
        n_genes[start:stop] = np.bincount(cells.astype(np.int64), minlength=stop - start)
        pieces.append((key & np.uint64((1 << token_bits) - 1)).astype(np.int64))
    tokens = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
    if max_genes is not None:
        rank = np.arange(tokens.size) - np.repeat(np.cumsum(n_genes) - n_genes, n_genes)
        tokens = tokens[rank < max_genes]
        n_genes = np.minimum(n_genes, max_genes)
    return RankedCells(indptr=np.concatenate([[0], np.cumsum(n_genes)]), tokens=tokens)
