"""What the score of two cells becomes when genes of either are taken away, hidden, or made more or less.

The score is the logit that the two cells are neighbours. With A and B the genes of the two cells, a model that reads
cells apart (`SpatialFormerConfig.pair_input`) needs A + B + 2 readings for the scores of all A x B pairs of genes: its
head compares all states of one cell with all of the other in one product. A model that reads both as one sequence needs
two readings, one an order, for each.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from spaf_model.batching import token_budget_batches
from spaf_model.embedding import embed_tokenised, inference
from spaf_model.errors import InputError
from spaf_model.options import EmbeddingSettings
from spaf_model.results import GeneChange, PerturbedPair
from spaf_model.spatialformer.inference import InferenceEncoder
from spaf_model.spatialformer.network import SpatialFormerNetwork
from spaf_model.spatialformer.ranking import RankedCells
from spaf_model.spatialformer.tokeniser import SequencedCells, SpatialFormerTokeniser, TokenBatch
from spaf_model.spatialformer.values import centred_by_slide

if TYPE_CHECKING:
    from spaf_model.counts import CellCounts
    from spaf_model.spatialformer.heads import CosinePairs, SeparatePairs

_READINGS_AT_ONCE = 8_192  # variants of cells that are held at once
_SCORES_AT_ONCE = 65_536  # pairs of variants that are read as one sequence, of some pairs of cells


@dataclasses.dataclass(frozen=True)
class Variants:
    """Cells, each followed by itself with one of its genes changed, for each of them."""

    cells: SequencedCells
    start: NDArray[np.int64]  # (n_cells + 1,), where the rows of each cell begin
    genes: list[NDArray[np.int64]]  # of each cell, the token that is changed in each row behind its first


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """A way to change genes, and the model that is asked.

    Parameters
    ----------
    network, tokeniser
        Of the model; the tokeniser knows the slides where values are of whole slides.
    change
        ``"delete"``: the gene has no count, and later genes move up a rank. ``"mask"``: its token is hidden and all
        others stay where they are. ``"fold"``: its count is multiplied.
    fold
        By what.
    settings
        Batch size, precision and kernel.

    Raises
    ------
    InputError
        If the fold is none, or genes are to be hidden from a model that reads their values too.
    """

    network: SpatialFormerNetwork
    tokeniser: SpatialFormerTokeniser
    change: GeneChange
    fold: float
    settings: EmbeddingSettings

    def __post_init__(self) -> None:
        if self.change not in ("delete", "mask", "fold"):
            raise InputError(f"change must be one of delete, mask, fold, not {self.change!r}.")
        if self.change == "fold" and (not 0.0 < self.fold < np.inf or self.fold == 1.0):
            raise InputError(f"fold must be above 0 and not 1, by which nothing changes, not {self.fold!r}.")
        if self.change == "mask" and self.tokeniser.gene_values != "none":
            raise InputError("change = mask is for models of ranks alone: this one would still read the gene's value.")

    def variants(self, cells: CellCounts) -> Variants:
        """Return cells with each of the genes that the model reads of them changed, one at a time."""
        read = self.tokeniser(cells).ranked
        genes = [read.tokens[read.indptr[cell] : read.indptr[cell + 1]] for cell in range(cells.n_cells)]
        start = np.concatenate([[0], np.cumsum([1 + of_cell.size for of_cell in genes])]).astype(np.int64)
        of_cell = np.repeat(np.arange(cells.n_cells), np.diff(start))
        if self.change == "mask":
            mask = self.tokeniser.vocabulary.special_id("mask")
            tokens = [np.tile(of_cell, 1 + of_cell.size) for of_cell in genes]
            for block, of_one in zip(tokens, genes, strict=True):
                hidden = np.arange(of_one.size)
                block.reshape(-1, max(of_one.size, 1))[1 + hidden, hidden] = mask
            n_genes = np.repeat([of_one.size for of_one in genes], np.diff(start))
            ranked = RankedCells(np.concatenate([[0], np.cumsum(n_genes)]).astype(np.int64), np.concatenate(tokens))
            sequenced = SequencedCells(ranked, cells.context[of_cell], self.tokeniser.vocabulary)
        else:
            factor = self.fold if self.change == "fold" else 0.0
            changed = cells.take(of_cell)
            changed = dataclasses.replace(changed, counts=changed.counts.copy())
            for cell, of_one in enumerate(genes):
                own = slice(int(cells.indptr[cell]), int(cells.indptr[cell + 1]))
                order = np.argsort(cells.tokens[own])
                place = order[np.searchsorted(cells.tokens[own], of_one, sorter=order)]
                changed.counts[changed.indptr[start[cell] + 1 + np.arange(of_one.size)] + place] *= np.float32(factor)
            sequenced = self.tokeniser(_without_zeros(changed))
        return Variants(sequenced, start, genes)

    def pairs(
        self,
        cells: CellCounts,
        left: NDArray[np.int64],
        right: NDArray[np.int64],
        wanted: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]] | None,
        offset: NDArray[np.float32] | None,
    ) -> Iterator[tuple[PerturbedPair, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield pairs of cells in their order, each with the tokens of the genes of its two cells.

        Parameters
        ----------
        cells
            Counts.
        left, right
            Positions of the two cells of each pair.
        wanted
            Which pairs of genes are wanted, of the tokens of either cell; None: all.
        offset
            Mean of the states of the slide of each cell, where the model compares centred ones.
        """
        apart = self.network.config.pair_input == "separate"
        for part in _parts(1 + cells.n_genes[left] + 1 + cells.n_genes[right], _READINGS_AT_ONCE):
            used, place = np.unique(np.concatenate([left[part], right[part]]), return_inverse=True)
            variants = self.variants(cells.take(used))
            ends = place[: part.size], place[part.size :]
            if apart:
                moved = None if offset is None else np.repeat(offset[used], np.diff(variants.start), axis=0)
                found = self._compared(variants, *ends, moved)
            else:
                found = self._read_together(variants, *ends, wanted)
            for scores, one, other in zip(found, *ends, strict=True):
                yield _changes(scores), variants.genes[one], variants.genes[other]

    def _compared(
        self,
        variants: Variants,
        left: NDArray[np.int64],
        right: NDArray[np.int64],
        offset: NDArray[np.float32] | None,
    ) -> Iterator[NDArray[np.float64]]:
        states = embed_tokenised(self.network, variants.cells, method="cls", settings=self.settings)
        if offset is not None:
            states = states - offset
        # In double precision, since interactions are small differences of scores.
        head = cast("SeparatePairs | CosinePairs", copy.deepcopy(self.network.pair_head).double())
        device = self.network.device
        for one, other in zip(left, right, strict=True):
            with torch.inference_mode():
                of_left, of_right = (
                    torch.from_numpy(states[variants.start[cell] : variants.start[cell + 1]]).to(device).double()
                    for cell in (one, other)
                )
                yield head.calibrate(head.similarity(of_left, of_right)).cpu().numpy()

    def _read_together(
        self,
        variants: Variants,
        left: NDArray[np.int64],
        right: NDArray[np.int64],
        wanted: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]] | None,
    ) -> Iterator[NDArray[np.float64]]:
        n_of = np.diff(variants.start)
        for part in _parts(n_of[left] * n_of[right], _SCORES_AT_ONCE):
            asked = []
            for one, other in zip(left[part], right[part], strict=True):
                scored = np.ones((n_of[one], n_of[other]), dtype=bool)
                if wanted is not None:
                    scored[1:, 1:] = wanted(variants.genes[one], variants.genes[other])
                asked.append(scored)
            rows = [scored.nonzero() for scored in asked]
            one_row, other_row = (
                np.concatenate(
                    [variants.start[cell] + found[side] for cell, found in zip(ends[part], rows, strict=True)]
                )
                for side, ends in enumerate((left, right))
            )
            logits = self._logits(variants.cells, one_row, other_row)
            end = np.cumsum([found[0].size for found in rows])
            for scored, of_pair in zip(asked, np.split(logits, end[:-1]), strict=True):
                scores = np.full(scored.shape, np.nan)
                scores[scored] = of_pair
                yield scores

    def _logits(self, cells: SequencedCells, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the logit of each pair of rows that are one sequence, the mean of both orders."""
        logits = np.full(left.size, np.nan)
        n_genes = cells.ranked.n_genes
        occupied = np.flatnonzero((n_genes[left] > 0) & (n_genes[right] > 0))
        lengths = cells.pair_lengths(left[occupied], right[occupied])
        with inference(self.network, self.settings) as (device, budget):
            encoder = InferenceEncoder(self.network)
            for batch in token_budget_batches(lengths, budget):
                pairs = occupied[batch]
                total = torch.zeros(pairs.size, dtype=torch.float64, device=device)
                for first, second in ((left, right), (right, left)):
                    tokens: TokenBatch = cells.pair_batch(first[pairs], second[pairs]).to(device)
                    hidden = encoder.encode(tokens, cls_only=True, kernel=self.settings.kernel)
                    of_classes = self.network.pair_logits(hidden).double()
                    total += (of_classes[:, 1] - of_classes[:, 0]) / 2
                logits[pairs] = total.cpu().numpy()
        return logits


def slide_offsets(
    network: SpatialFormerNetwork, cells: SequencedCells, slides: NDArray[np.int64], settings: EmbeddingSettings
) -> NDArray[np.float32]:
    """Return the mean state of the slide of each cell, of all cells of the slides, (n_cells, D)."""
    states = embed_tokenised(network, cells, method="cls", settings=settings)
    offsets = states - centred_by_slide(states, slides)
    for slide in np.unique(slides):  # a cell without genes has no state, and the same offset as the others
        own = np.flatnonzero(slides == slide)
        finite = own[np.isfinite(states[own]).all(axis=1)]
        if finite.size:
            offsets[own] = offsets[finite[0]]
    return offsets


def _changes(scores: NDArray[np.float64]) -> PerturbedPair:
    """Return the changes of the scores (1 + A, 1 + B) of two cells, whose first row and column are of nothing changed.

    The interaction of two genes is the change of the score by both, less the sum of the changes by each.
    """
    whole = scores[0, 0]
    of_left, of_right = scores[1:, 0] - whole, scores[0, 1:] - whole
    both = scores[1:, 1:] - whole
    none = np.zeros(0, dtype=np.int64)
    return PerturbedPair(float(whole), none, none, of_left, of_right, both - of_left[:, None] - of_right[None, :])


def _without_zeros(cells: CellCounts) -> CellCounts:
    kept = cells.counts > 0
    indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(kept)])[cells.indptr]
    return dataclasses.replace(cells, indptr=indptr, tokens=cells.tokens[kept], counts=cells.counts[kept])


def _parts(sizes: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    """Return positions in consecutive parts, each of at most a sum of sizes or of one position."""
    if not sizes.size:
        return []
    part = np.zeros(sizes.size, dtype=np.int64)
    total = 0
    for position, size in enumerate(sizes.tolist()):
        total += size
        begins = position > 0 and total > most
        part[position] = part[position - 1] + begins if position else 0
        total = size if begins else total
    return np.split(np.arange(sizes.size), np.flatnonzero(np.diff(part)) + 1)
