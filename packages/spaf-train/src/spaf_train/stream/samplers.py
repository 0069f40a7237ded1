"""Which blocks and which pairs of cells an epoch holds, as pure functions of seed and epoch."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spaf_data import Block, Distances
from spaf_train._checks import require, require_at_least, require_fraction
from spaf_train.stream.distances import distances_of

# Rejection rounds for easy negatives: where a tenth of the cells is far enough, 1 draw in 10^9 stays without one.
_ROUNDS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What an input is, which pairs are drawn, and how they are batched."""

    input: Literal["pairs", "cells"] = "pairs"  # two cells an input, or one
    positives: float = 1.0  # share of the positive pairs of a block that an epoch visits
    hard_negatives: int = 1  # drawn for each positive pair, from its block
    easy_negatives: int = 1  # drawn for each positive pair, from the same slide
    hard_min: float | None = None  # um, distance of a hard negative; None: that of the corpus, as for the next two
    hard_max: float | None = None  # um
    easy_min: float | None = None  # um, least distance of an easy negative
    window_blocks: int = 8  # blocks whose pairs are shuffled together
    grouping: int = 2048  # shuffled inputs among which those of similar length share a batch
    token_budget: int = 4096  # largest number of tokens of a batch, padding included
    batches_per_step: int = 1  # batches of a step over all processes; more than one accumulates gradients
    thinning: float = 0.0  # largest share of transcripts removed at random from a cell, anew each time it is used
    context_dropout: float = 0.0  # chance that species, assay, tissue or condition of a cell is given as unknown

    def __post_init__(self) -> None:
        require(0.0 < self.positives <= 1.0, f"positives must be above 0 and at most 1, not {self.positives}.")
        require_at_least("hard_negatives", self.hard_negatives, 0)
        require_at_least("easy_negatives", self.easy_negatives, 0)
        for name in ("hard_min", "hard_max", "easy_min"):
            if getattr(self, name) is not None:
                require_at_least(name, getattr(self, name), 0.0)
        if self.hard_min is not None:
            hard_max = Distances().hard_max if self.hard_max is None else self.hard_max
            require(
                hard_max > self.hard_min,
                f"hard_max must be above hard_min ({self.hard_min} um), not {hard_max}; give both of them.",
            )
        for name in ("window_blocks", "grouping", "token_budget", "batches_per_step"):
            require_at_least(name, getattr(self, name), 1)
        require(0.0 <= self.thinning < 1.0, f"thinning must be at least 0 and below 1, not {self.thinning}.")
        require_fraction("context_dropout", self.context_dropout)
        require(
            self.input == "cells" or self.hard_negatives + self.easy_negatives > 0,
            "hard_negatives and easy_negatives must not both be 0, since pairs need negatives.",
        )

    def distances(self, corpus: Distances | None = None) -> Distances:
        """Return the distances of the pairs: those given, and else those of the corpus (the usual ones without it).

        Raises
        ------
        InputError
            If what is given contradicts itself or the graph of the corpus.
        """
        return distances_of("sampling", corpus, hard_min=self.hard_min, hard_max=self.hard_max, easy_min=self.easy_min)

    def following(self, corpus: Distances) -> SamplingConfig:
        """Return the same with all distances given, those of the corpus where there were none."""
        found = self.distances(corpus)
        return dataclasses.replace(self, hard_min=found.hard_min, hard_max=found.hard_max, easy_min=found.easy_min)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Inputs of the network, as positions of cells.

    `right` is -1 and `label` 0 for single cells.
    """

    left: NDArray[np.int64]  # (n_inputs,)
    right: NDArray[np.int64]  # (n_inputs,)
    label: NDArray[np.int64]  # (n_inputs,), 1 for neighbours

    def take(self, index: NDArray[np.int64]) -> Inputs:
        """Return the inputs at some positions."""
        return Inputs(self.left[index], self.right[index], self.label[index])

    def __len__(self) -> int:
        return int(self.left.size)


def block_order(n_blocks: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the blocks in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(n_blocks)


def single_cells(blocks: list[Block], offsets: NDArray[np.int64]) -> Inputs:
    """Return every cell that the blocks own, once."""
    pieces = [np.arange(block.n_owned) + offset for block, offset in zip(blocks, offsets, strict=True)]
    cells = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
    return Inputs(cells, np.full_like(cells, -1), np.zeros_like(cells))


def draw_pairs(
    blocks: list[Block],
    offsets: NDArray[np.int64],
    generators: list[np.random.Generator],
    config: SamplingConfig,
    distances: Distances | None = None,
) -> Inputs:
    """Draw positive pairs and negatives for them.

    Parameters
    ----------
    blocks
        Blocks that are in memory together.
    offsets
        Position of the first cell of each block among the cells of all.
    generators
        Source of randomness of each block.
    config
        Numbers and distances.
    distances
        In place of those of `config`, such as `SamplingConfig.distances` of a corpus.

    Returns
    -------
    Inputs
        Block after block: positives, then hard, then easy negatives. Which of the two cells comes first is random.

    Notes
    -----
    One cell of each positive pair, chosen at random, is the anchor of its negatives, so that cells with many
    neighbours have as many negatives. Hard negatives are drawn evenly among the cells of the block at the right
    distance; easy ones among all cells of the slide that are in memory. A negative for which there is no cell at the
    right distance is left out.
    """
    distances = config.distances() if distances is None else distances
    cells_of_slide: dict[str, NDArray[np.int64]] = {}
    for slide in {block.slide for block in blocks}:
        cells_of_slide[slide] = np.concatenate(
            [
                np.arange(block.coordinates.shape[0]) + offset
                for block, offset in zip(blocks, offsets, strict=True)
                if block.slide == slide
            ]
        )
    coordinates = np.concatenate([block.coordinates for block in blocks]) if blocks else np.zeros((0, 2), np.float32)
    left: list[NDArray[np.int64]] = []
    right: list[NDArray[np.int64]] = []
    label: list[NDArray[np.int64]] = []
    for block, offset, generator in zip(blocks, offsets, generators, strict=True):
        positives = block.positive_pairs.astype(np.int64)
        n_drawn = max(1, round(config.positives * len(positives))) if len(positives) else 0
        positives = positives[np.sort(generator.permutation(len(positives))[:n_drawn])]
        anchors = positives[np.arange(n_drawn), generator.integers(0, 2, n_drawn)]
        pairs = [positives + offset]
        if config.hard_negatives:
            hard_anchors = np.repeat(anchors, config.hard_negatives)
            partners = _at_distance(block.coordinates, hard_anchors, distances.hard_min, distances.hard_max, generator)
            found = partners >= 0
            pairs.append(np.stack([hard_anchors, partners], axis=1)[found] + offset)
        if config.easy_negatives:
            easy_anchors = np.repeat(anchors, config.easy_negatives) + offset
            pool = cells_of_slide[block.slide]
            partners = _beyond(coordinates, easy_anchors, pool, distances.easy_min, generator)
            found = partners >= 0
            pairs.append(np.stack([easy_anchors, partners], axis=1)[found])
        drawn = np.concatenate(pairs)
        swapped = generator.random(len(drawn)) < 0.5
        left.append(np.where(swapped, drawn[:, 1], drawn[:, 0]))
        right.append(np.where(swapped, drawn[:, 0], drawn[:, 1]))
        label.append((np.arange(len(drawn)) < n_drawn).astype(np.int64))
    empty = [np.zeros(0, dtype=np.int64)]
    return Inputs(np.concatenate(left or empty), np.concatenate(right or empty), np.concatenate(label or empty))


def _at_distance(
    coordinates: NDArray[np.float32],
    anchors: NDArray[np.int64],
    low: float,
    high: float,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw for each anchor a cell at a distance between two bounds (um), evenly; -1 where there is none."""
    unique, row = np.unique(anchors, return_inverse=True)
    delta = coordinates[unique, None, :] - coordinates[None, :, :]
    squared = np.einsum("ijk,ijk->ij", delta, delta)
    candidates = (squared >= low * low) & (squared <= high * high)
    counts = candidates.sum(axis=1)
    partners = np.nonzero(candidates)[1]
    starts = np.cumsum(counts) - counts
    choice = (generator.random(anchors.size) * counts[row]).astype(np.int64)
    found = counts[row] > 0
    result = np.full(anchors.size, -1, dtype=np.int64)
    result[found] = partners[(starts[row] + choice)[found]]
    return result


def _beyond(
    coordinates: NDArray[np.float32],
    anchors: NDArray[np.int64],
    pool: NDArray[np.int64],
    low: float,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw for each anchor a cell of a pool beyond a distance (um), evenly, by rejection; -1 where none is met."""
    result = np.full(anchors.size, -1, dtype=np.int64)
    open_anchors = np.arange(anchors.size)
    for _ in range(_ROUNDS):
        if open_anchors.size == 0:
            break
        partners = pool[generator.integers(0, pool.size, open_anchors.size)]
        delta = coordinates[anchors[open_anchors]] - coordinates[partners]
        accepted = (delta * delta).sum(axis=1) > low * low
        result[open_anchors[accepted]] = partners[accepted]
        open_anchors = open_anchors[~accepted]
    return result
