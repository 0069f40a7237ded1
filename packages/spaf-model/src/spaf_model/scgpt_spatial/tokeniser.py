"""From counts to batches: CLS and the genes of a cell, each with a value."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from spaf_model.scgpt_spatial.batch import ValueBatch
from spaf_model.scgpt_spatial.config import ScGPTSpatialConfig
from spaf_model.scgpt_spatial.values import GeneValues, gene_values
from spaf_model.vocabulary import CONTEXT_KINDS, Vocabulary

if TYPE_CHECKING:
    from spaf_model.counts import CellCounts

SPECIAL_TOKENS = ("pad", "cls")  # that a vocabulary must have
TECHNOLOGY = "assay"  # the kind of context that technologies are
PREFIX_VALUE = -2.0  # at CLS and at padding
HIDDEN_VALUE = -1.0  # in place of a value that is hidden


def technology_names(vocabulary: Vocabulary) -> list[str]:
    """Return the technologies of a vocabulary, in the order of the rows of their table: that of their ids."""
    names = vocabulary.context[TECHNOLOGY]
    return sorted(names, key=names.__getitem__)


def n_table_rows(vocabulary: Vocabulary) -> int:
    """Return the rows that the gene table needs: up to the last id of a gene or a special token."""
    last: int = max([*vocabulary.gene_token_ids.tolist(), *vocabulary.special.values()])
    return last + 1


@dataclasses.dataclass(frozen=True)
class ValuedCells:
    """Cells as genes with values."""

    genes: GeneValues
    totals: NDArray[np.float32]  # (n_cells,), counts over the measured genes of the model, cut or not
    technologies: NDArray[np.int64]  # (n_cells,), rows of the technology table; -1 where not known
    measured: NDArray[np.bool_]  # (n_tokens of the vocabulary,)
    pad: int
    cls: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each cell, CLS included; 0 for a cell without a gene."""
        n_genes = np.diff(self.genes.indptr)
        return np.where(n_genes > 0, n_genes + 1, 0)

    def batch(self, cells: NDArray[np.int64]) -> ValueBatch:
        """Return some cells as a batch."""
        batch, _ = self.split_batch(cells, None)
        return batch

    def split_batch(
        self, cells: NDArray[np.int64], is_asked: NDArray[np.bool_] | None
    ) -> tuple[ValueBatch, NDArray[np.int64]]:
        """Return some cells as a batch, with some of their genes asked for.

        Parameters
        ----------
        cells
            Positions of the cells.
        is_asked
            Which of all entries of `genes` are asked for; None: none, and the batch has no such part.

        Returns
        -------
        The batch, and the entry of each position asked for, (B, A); -1 at padding.
        """
        indptr = self.genes.indptr
        n_genes = np.diff(indptr)[cells]
        rows = np.repeat(np.arange(cells.size), n_genes)
        entries = np.arange(rows.size) - np.repeat(np.cumsum(n_genes) - n_genes, n_genes) + indptr[cells][rows]
        asked = np.zeros(rows.size, dtype=bool) if is_asked is None else is_asked[entries]
        known_entries, lengths = _padded(rows[~asked], entries[~asked], cells.size, n_before=1)
        there = known_entries >= 0
        ids = np.full(known_entries.shape, self.pad, dtype=np.int64)
        values = np.full(known_entries.shape, PREFIX_VALUE, dtype=np.float32)
        ids[there] = self.genes.tokens[known_entries[there]]
        values[there] = self.genes.values[known_entries[there]]
        ids[:, :1] = self.cls
        batch = ValueBatch(
            ids=torch.from_numpy(ids),
            values=torch.from_numpy(values),
            lengths=torch.from_numpy(lengths),
            technologies=torch.from_numpy(self.technologies[cells]),
            totals=torch.from_numpy(self.totals[cells]),
        )
        asked_entries, n_asked = _padded(rows[asked], entries[asked], cells.size, n_before=0)
        if is_asked is None:
            return batch, asked_entries
        asked_ids = np.where(asked_entries >= 0, self.genes.tokens[asked_entries], self.pad)
        return batch.asking(torch.from_numpy(asked_ids), torch.from_numpy(n_asked)), asked_entries


def _padded(
    rows: NDArray[np.int64], entries: NDArray[np.int64], n_rows: int, *, n_before: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lay entries (sorted by row) out in rows behind `n_before` places; -1 elsewhere. Also return their lengths."""
    n = np.bincount(rows, minlength=n_rows)
    width = int(n.max(initial=0)) + n_before if n_rows else 0
    laid = np.full((n_rows, width), -1, dtype=np.int64)
    laid[rows, np.arange(rows.size) - np.repeat(np.cumsum(n) - n, n) + n_before] = entries
    return laid, n + n_before


@dataclasses.dataclass(frozen=True)
class ScGPTSpatialTokeniser:
    """Genes of a cell with values made of their counts (`spaf_model.scgpt_spatial.values`)."""

    vocabulary: Vocabulary
    config: ScGPTSpatialConfig

    def __call__(self, cells: CellCounts) -> ValuedCells:
        """Make values of the counts of cells."""
        entry_cells = np.repeat(np.arange(cells.n_cells), cells.n_genes)
        totals = np.bincount(entry_cells, weights=cells.counts, minlength=cells.n_cells)
        names = self.vocabulary.context[TECHNOLOGY]
        row_of = np.full(self.vocabulary.n_tokens + 1, -1, dtype=np.int64)  # the last is that of an id of -1
        row_of[[names[name] for name in technology_names(self.vocabulary)]] = np.arange(len(names))
        return ValuedCells(
            genes=gene_values(cells, self.vocabulary.scale, self.config),
            totals=totals.astype(np.float32),
            technologies=row_of[cells.context[:, CONTEXT_KINDS.index(TECHNOLOGY)]],
            measured=cells.measured,
            pad=self.vocabulary.pad,
            cls=self.vocabulary.cls,
        )
