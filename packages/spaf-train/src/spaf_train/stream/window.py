"""The cells that are in memory together, and one batch of them before anything is asked of it."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spaf_data import Block, Distances
from spaf_model import CONTEXT_KINDS, CellCounts, ReadsPairs, TokenisedCells, Vocabulary
from spaf_train._csr import csr_rows


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Inputs of the network, as positions of cells.

    `right` is -1 and `label` 0 for single cells.
    """

    left: NDArray[np.int64]  # (n_inputs,)
    right: NDArray[np.int64]  # (n_inputs,)
    label: NDArray[np.int64]  # (n_inputs,), 1 for neighbours
    positive_weight: float = 1.0  # weight of a neighbour where another pair has 1
    beside: NDArray[np.bool_] | None = (
        None  # (n_inputs,), read for the sake of others and asked nothing; None: no input
    )

    @classmethod
    def of_cells(cls, cells: NDArray[np.int64], beside: NDArray[np.bool_] | None = None) -> Inputs:
        """Return inputs of single cells."""
        return cls(cells, np.full_like(cells, -1), np.zeros_like(cells), beside=beside)

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Inputs that are asked something, (n_inputs,)."""
        return np.ones(len(self), dtype=bool) if self.beside is None else ~self.beside

    @property
    def are_pairs(self) -> bool:
        """Whether an input is two cells."""
        return bool(self.right.size) and int(self.right[0]) >= 0

    @property
    def segments(self) -> NDArray[np.int64]:
        """The cells of each input, (n_inputs, 2)."""
        return np.stack([self.left, self.right], axis=1)

    def take(self, index: NDArray[np.int64]) -> Inputs:
        """Return the inputs at some positions."""
        return dataclasses.replace(
            self, left=self.left[index], right=self.right[index], label=self.label[index],
            beside=None if self.beside is None else self.beside[index],
        )  # fmt: skip

    def __len__(self) -> int:
        return int(self.left.size)


@dataclasses.dataclass(frozen=True)
class Cells:
    """The cells of the blocks in memory, in tokens, block after block: those that it owns, then its halo."""

    indptr: NDArray[np.int64]  # (n_cells + 1,), of tokens and counts
    tokens: NDArray[np.int64]  # below 0 for a gene without a token
    counts: NDArray[np.int32]
    measured: NDArray[np.bool_]  # (n_tokens,), genes of the corpus
    panels: NDArray[np.bool_]  # (n_slides, n_tokens), genes that each slide measures: others are unknown, not zero
    tokenised: TokenisedCells[Any]  # as the family reads them
    context: NDArray[np.int64]  # (n_cells, 4); -1 where the family reads none
    edge_indptr: NDArray[np.int64]  # (n_cells + 1,)
    edges: NDArray[np.int64]  # (n_edges, 2), token ids
    has_edges: NDArray[np.bool_]  # (n_cells,), False where nothing is known of which genes are co-localised
    coordinates: NDArray[np.float32]  # (n_cells, 2), um
    slide: NDArray[np.int64]  # (n_cells,), number of the slide among those of the corpus
    number: NDArray[np.int64]  # (n_cells,), place of the cell among all of the split; -1 in the halo
    group: NDArray[np.int64]  # (n_cells,), pieces of tissue, a block with its halo or a slide: a cell is in one once
    reach: Mapping[int, float]  # um for each group: up to there, every neighbour of a cell that the group owns is in it

    def __len__(self) -> int:
        return int(self.number.size)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each cell as an input of its own, at least 1, (n_cells,)."""
        return np.maximum(self.tokenised.lengths, 1)

    def take(self, rows: NDArray[np.int64]) -> CellCounts:
        """Return the counts of some cells, as the corpus has them."""
        index, lengths = csr_rows(self.indptr, rows)
        return cell_counts(
            np.concatenate([[0], np.cumsum(lengths)]), self.tokens[index], self.counts[index], self.measured,
            context=self.context[rows], slides=self.slide[rows], panels=self.panels,
        )  # fmt: skip

    def nearest(
        self, rows: NDArray[np.int64], n: int, within: float = np.inf
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the cells nearest to some cells, of the same slide, nearest first.

        Only as far as every neighbour is known to be there: across a block and its halo that is the radius of the
        corpus, and the whole slide where one block owns all of it.

        Parameters
        ----------
        rows
            Positions of cells that blocks own.
        n
            How many are wanted.
        within
            Largest distance, um.

        Returns
        -------
        tuple
            Positions (n_rows, n), -1 where there is none, and distances in um, infinite there.
        """
        found = np.full((rows.size, n), -1, dtype=np.int64)
        distances = np.full((rows.size, n), np.inf)
        for group in np.unique(self.group[rows]):
            own, tree = self._tree(int(group))
            places = np.flatnonzero(self.group[rows] == group)
            k = min(n + 1, own.size)
            near, index = tree.query(
                self.coordinates[rows[places]], k=np.arange(1, k + 1),
                distance_upper_bound=np.nextafter(min(within, self.reach[int(group)]), np.inf),
            )  # fmt: skip
            # The cell itself is among them, unless n + 1 others lie at the same place.
            itself = np.concatenate([own, [-1]])[index] == rows[places, None]
            near, index = np.where(itself, np.inf, near), np.where(itself, own.size, index)
            order = np.argsort(near, axis=1, kind="stable")[:, :n]
            taken = np.take_along_axis(index, order, axis=1)
            found[places, : taken.shape[1]] = np.concatenate([own, [-1]])[taken]
            distances[places, : taken.shape[1]] = np.take_along_axis(near, order, axis=1)
        return found, distances

    def neighbours(self, rows: NDArray[np.int64], radius: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the other cells within a radius (um) of some cells, at most that of the corpus.

        All of the split where that is in memory (`Sampler.whole`); else those of its block and the halo of that, in
        which a cell at the border of a block has a part of its neighbours: each pair is in one block at least.

        Returns
        -------
        tuple
            ``indptr`` (n_rows + 1,) and the positions of the neighbours, ascending for each cell.
        """
        found: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)] * rows.size
        for group in np.unique(self.group[rows]):
            own, tree = self._tree(int(group))
            places = np.flatnonzero(self.group[rows] == group)
            near = tree.query_ball_point(self.coordinates[rows[places]], radius)
            for place, positions in zip(places, near, strict=True):
                cells = np.sort(own[positions])
                found[place] = cells[cells != rows[place]]
        indptr = np.concatenate([[0], np.cumsum([cells.size for cells in found], dtype=np.int64)])
        return indptr.astype(np.int64), np.concatenate([np.zeros(0, dtype=np.int64), *found])

    def _tree(self, group: int) -> tuple[NDArray[np.int64], cKDTree]:
        if group not in self._trees:
            own = np.flatnonzero(self.group == group)
            self._trees[group] = own, cKDTree(self.coordinates[own])
        return self._trees[group]

    @cached_property
    def _trees(self) -> dict[int, tuple[NDArray[np.int64], cKDTree]]:
        return {}


def cell_counts(
    indptr: NDArray[np.int64],
    tokens: NDArray[np.int64],
    counts: NDArray[np.integer],
    measured: NDArray[np.bool_],
    *,
    context: NDArray[np.int64],
    slides: NDArray[np.int64],
    panels: NDArray[np.bool_] | None = None,
) -> CellCounts:
    """Return counts as a tokeniser takes them: without zeros, and without genes that have no token."""
    kept = (tokens >= 0) & (counts > 0)
    if not kept.all():
        indptr = np.concatenate([[0], np.cumsum(kept)])[indptr]
        tokens, counts = tokens[kept], counts[kept]
    return CellCounts(indptr, tokens, counts.astype(np.float32), context, measured, slides, panels=panels)


def tokens_of(genes: NDArray[np.bool_], token_of_gene: NDArray[np.int64], n_tokens: int) -> NDArray[np.bool_]:
    """Return which tokens are some genes of a corpus, (n_tokens,)."""
    tokens = np.zeros(n_tokens, dtype=bool)
    tokens[token_of_gene[genes & (token_of_gene >= 0)]] = True
    return tokens


def drawn_counts(
    cells: Cells,
    rows: NDArray[np.int64],
    context: NDArray[np.int64],
    generator: np.random.Generator,
    *,
    thinning: float,
    panel_min: float,
) -> CellCounts:
    """Return the counts of some cells after random changes.

    A share of the transcripts of each cell, up to `thinning`, is removed. A panel of a share of the genes, drawn from
    `panel_min` to 1, is shown of all of these cells: the others are unknown, as if their slides did not measure them.
    """
    index, lengths = csr_rows(cells.indptr, rows)
    tokens, measured, panels = cells.tokens[index], cells.measured, cells.panels
    counts: NDArray[np.integer] = cells.counts[index]
    if thinning > 0.0:
        kept = generator.uniform(1.0 - thinning, 1.0, rows.size)
        counts = generator.binomial(counts, np.repeat(kept, lengths))
    if panel_min < 1.0:
        shown = generator.random(measured.size) < generator.uniform(panel_min, 1.0)
        measured, panels = measured & shown, panels & shown
        counts = np.where(measured[tokens], counts, 0)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return cell_counts(indptr, tokens, counts, measured, context=context, slides=cells.slide[rows], panels=panels)


def slide_counts(
    blocks: Sequence[Block], token_of_gene: NDArray[np.int64], measured: NDArray[np.bool_], *, slide: int = 0
) -> CellCounts:
    """Return the cells that blocks of a slide own, without their context, as one table; no blocks give no cells."""
    blocks = [owned(block) for block in blocks]
    n_genes = np.concatenate([np.zeros(1, dtype=np.int64), *(np.diff(block.indptr) for block in blocks)])
    genes = np.concatenate([np.zeros(0, dtype=np.int64), *(block.genes for block in blocks)])
    counts = np.concatenate([np.zeros(0, dtype=np.int64), *(block.counts for block in blocks)])
    n = n_genes.size - 1
    context = np.full((n, len(CONTEXT_KINDS)), -1, dtype=np.int64)
    return cell_counts(
        np.cumsum(n_genes), token_of_gene[genes], counts, measured, context=context, slides=np.full(n, slide)
    )


def owned(block: Block) -> Block:
    """Return a block without its halo, and without pairs that reach into it."""
    n = block.n_owned
    entries, edges = block.indptr[n], block.colocalized_indptr[n]
    return dataclasses.replace(
        block,
        cell_ids=block.cell_ids[:n],
        coordinates=block.coordinates[:n],
        indptr=block.indptr[: n + 1],
        genes=block.genes[:entries],
        counts=block.counts[:entries],
        colocalized_indptr=block.colocalized_indptr[: n + 1],
        colocalized=block.colocalized[:edges],
        positive_pairs=block.positive_pairs[(block.positive_pairs < n).all(axis=1)],
    )


@dataclasses.dataclass(frozen=True)
class Window:
    """What a sampler draws from: some blocks of a split, in memory.

    Attributes
    ----------
    cells
        The cells of all blocks.
    blocks
        The blocks themselves; none for a sampler that takes the whole split.
    offsets
        Position of the first cell of each block.
    places
        Which blocks of the split they are.
    seed, epoch, number
        Of the run, and of the window.
    """

    cells: Cells
    blocks: list[Block]
    offsets: NDArray[np.int64]
    places: Sequence[int]
    seed: int
    epoch: int
    number: int

    def lengths_of(self, inputs: Inputs) -> NDArray[np.int64]:
        """Return the tokens of each input, of single cells or of pairs."""
        if not inputs.are_pairs:
            return self.cells.lengths[inputs.left]
        assert isinstance(self.cells.tokenised, ReadsPairs), "streams refuse pairs of other families"
        lengths: NDArray[np.int64] = self.cells.tokenised.pair_lengths(inputs.left, inputs.right)
        return lengths

    def block_generator(self, place: int) -> np.random.Generator:
        """Return the source of randomness of a block of the split, the same in whatever window it is."""
        return np.random.default_rng([self.seed, self.epoch, place, 1])

    def generator(self) -> np.random.Generator:
        """Return the source of randomness of the window."""
        return np.random.default_rng([self.seed, self.epoch, self.number, 2])


@dataclasses.dataclass(frozen=True)
class Draw:
    """One batch before anything is hidden or asked.

    Attributes
    ----------
    tokens
        What the network would read, on the CPU: a batch of the family.
    inputs
        The cells of each row, as positions in `cells`.
    cells
        The cells in memory, as the corpus has them, with their counts (`Cells.take`), slides, coordinates and
        `Cells.neighbours`: what was thinned is thinned in the tokens alone.
    vocabulary
        Of the tokens.
    distances
        Which pairs of cells are neighbours, hard and easy negatives.
    seed
        A function of the run's seed and the place of the batch.
    """

    tokens: Any
    inputs: Inputs
    cells: Cells
    vocabulary: Vocabulary
    distances: Distances
    seed: int

    def generator(self, purpose: str = "") -> torch.Generator:
        """Return a source of randomness; those of two purposes have nothing to do with each other."""
        return torch.Generator().manual_seed(self.seed ^ zlib.crc32(purpose.encode()))
