"""The cells that are in memory together, and one batch of them before anything is asked of it."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from spaf_data import Block, Distances
from spaf_model import RankedCells, TokenBatch, Vocabulary


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Inputs of the network, as positions of cells.

    `right` is -1 and `label` 0 for single cells.
    """

    left: NDArray[np.int64]  # (n_inputs,)
    right: NDArray[np.int64]  # (n_inputs,)
    label: NDArray[np.int64]  # (n_inputs,), 1 for neighbours
    positive_weight: float = 1.0  # weight of a neighbour where another pair has 1

    @classmethod
    def of_cells(cls, cells: NDArray[np.int64]) -> Inputs:
        """Return inputs of single cells."""
        return cls(cells, np.full_like(cells, -1), np.zeros_like(cells))

    @property
    def segments(self) -> NDArray[np.int64]:
        """The cells of each input, (n_inputs, 2)."""
        return np.stack([self.left, self.right], axis=1)

    def take(self, index: NDArray[np.int64]) -> Inputs:
        """Return the inputs at some positions."""
        return dataclasses.replace(self, left=self.left[index], right=self.right[index], label=self.label[index])

    def __len__(self) -> int:
        return int(self.left.size)


@dataclasses.dataclass(frozen=True)
class Cells:
    """The cells of the blocks in memory, in tokens, block after block: those that it owns, then its halo."""

    indptr: NDArray[np.int64]  # (n_cells + 1,), of tokens and counts
    tokens: NDArray[np.int64]  # below 0 for a gene without a token
    counts: NDArray[np.int32]
    ranked: RankedCells
    context: NDArray[np.int64]  # (n_cells, 4)
    edge_indptr: NDArray[np.int64]  # (n_cells + 1,)
    edges: NDArray[np.int64]  # (n_edges, 2), token ids
    has_edges: NDArray[np.bool_]  # (n_cells,), False where nothing is known of which genes are co-localised
    coordinates: NDArray[np.float32]  # (n_cells, 2), um
    slide: NDArray[np.int64]  # (n_cells,), number of the slide among those of the corpus
    number: NDArray[np.int64]  # (n_cells,), place of the cell among all of the split; -1 in the halo

    def __len__(self) -> int:
        return int(self.number.size)


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
    lengths
        Tokens of each cell as a single input, and how many more it adds as the second of a pair, (n_cells, 2).
    seed, epoch, number
        Of the run, and of the window.
    """

    cells: Cells
    blocks: list[Block]
    offsets: NDArray[np.int64]
    places: Sequence[int]
    lengths: NDArray[np.int64]
    seed: int
    epoch: int
    number: int

    def lengths_of(self, inputs: Inputs) -> NDArray[np.int64]:
        """Return the tokens of each input."""
        right = np.where(inputs.right >= 0, self.lengths[inputs.right, 1], 0)
        lengths: NDArray[np.int64] = self.lengths[inputs.left, 0] + right
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
        What the network would read, on the CPU.
    inputs
        The cells of each row, as positions in `cells`.
    cells
        The cells in memory, as the corpus has them: what was thinned is thinned in the tokens alone.
    vocabulary
        Of the tokens.
    distances
        Which pairs of cells are neighbours, hard and easy negatives.
    seed
        A function of the run's seed and the place of the batch.
    """

    tokens: TokenBatch
    inputs: Inputs
    cells: Cells
    vocabulary: Vocabulary
    distances: Distances
    seed: int

    def generator(self, purpose: str = "") -> torch.Generator:
        """Return a source of randomness; those of two purposes have nothing to do with each other."""
        return torch.Generator().manual_seed(self.seed ^ zlib.crc32(purpose.encode()))
