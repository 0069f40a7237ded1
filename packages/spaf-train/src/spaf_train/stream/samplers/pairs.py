"""Pairs of cells: neighbours, and negatives for them at two distances."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaf_model import InputError
from spaf_train.stream.samplers.base import Sampler, shuffled_batches
from spaf_train.stream.window import Inputs, Window

if TYPE_CHECKING:
    from spaf_data import Block, Corpus, Distances
    from spaf_train.stream.samplers.config import SamplingConfig

# Rejection rounds for easy negatives: where a tenth of the cells is far enough, 1 draw in 10^9 stays without one.
_ROUNDS = 200


class PairSampler(Sampler):
    """The pairs of neighbours of some blocks with hard and easy negatives, shuffled."""

    name = "pairs"
    input_is = "pair of neighbouring cells"
    cells_per_input = 2
    within_budget = True

    def check(self, corpus: Corpus, skip_shards: Collection[str]) -> None:
        """Refuse a split without a pair of neighbours."""
        for split in ("train", "validation"):
            refs = [ref for ref in corpus.block_refs(split) if ref.shard not in skip_shards]
            if refs and not any(ref.n_pairs for ref in refs):
                radius = corpus.parameters.get("positive_radius")
                within = "" if radius is None else f" (within {radius:g} um)"
                raise InputError(
                    f"The corpus has no pair of neighbouring cells{within} in its split {split!r}; build it with a "
                    "larger radius or another split, or train on single cells: sampling.input=cells and "
                    "objectives.pairs.enabled=false."
                )

    def batches(self, window: Window) -> list[Inputs]:
        """Draw the pairs of the blocks, in batches of similar length."""
        generators = [window.block_generator(place) for place in window.places]
        inputs = draw_pairs(
            window.blocks, window.offsets, generators, self.sampling, self.distances,
            narrower=self.distances.positive < self.corpus_distances.positive,
        )  # fmt: skip
        return shuffled_batches(inputs, window, self.sampling)


def draw_pairs(
    blocks: list[Block],
    offsets: NDArray[np.int64],
    generators: list[np.random.Generator],
    config: SamplingConfig,
    distances: Distances | None = None,
    *,
    narrower: bool = False,
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
    narrower
        Whether the radius of the distances is below that of the corpus, whose pairs beyond it are then passed over.

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
        if narrower:
            apart = block.coordinates[positives[:, 0]] - block.coordinates[positives[:, 1]]
            positives = positives[np.hypot(apart[:, 0], apart[:, 1]) <= distances.positive]
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
    return Inputs(
        np.concatenate(left or empty),
        np.concatenate(right or empty),
        np.concatenate(label or empty),
        positive_weight=float(config.hard_negatives + config.easy_negatives),
    )


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
