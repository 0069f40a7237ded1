"""Embeddings of ranked cells and of pairs of them, as arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from spaf_model.batching import token_budget_batches
from spaf_model.embedding import embed_tokenised, inference
from spaf_model.errors import InputError
from spaf_model.options import EmbeddingSettings
from spaf_model.results import PairEmbeddings
from spaf_model.spatialformer.inference import InferenceEncoder
from spaf_model.spatialformer.tokeniser import SequencedCells, TokenBatch, sequence_lengths
from spaf_model.spatialformer.values import centred_by_slide

if TYPE_CHECKING:
    from spaf_model.spatialformer.network import SpatialFormerNetwork
    from spaf_model.spatialformer.ranking import RankedCells
    from spaf_model.vocabulary import Vocabulary

EmbeddingMethod = Literal["cls", "gene"]


def embed_cells(
    network: SpatialFormerNetwork,
    vocabulary: Vocabulary,
    ranked: RankedCells,
    context: NDArray[np.int64],
    *,
    method: EmbeddingMethod = "cls",
    settings: EmbeddingSettings | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Embed cells.

    Parameters
    ----------
    network
        Put into evaluation mode for the time of the call.
    vocabulary
        The vocabulary of the network.
    ranked
        Gene tokens of the cells.
    context
        Context ids, (n_cells, 4), as `context_ids` gives them.
    method
        ``"cls"``: last hidden state at CLS. ``"gene"``: mean of the last hidden states of genes and SEP.
    settings
        Batch size, precision and kernel.
    on_batch
        Called after each batch with the number of cells in it.

    Returns
    -------
    array
        (n_cells, D), in the order of `ranked`; NaN rows for cells without a gene token.
    """
    if method not in get_args(EmbeddingMethod):
        raise InputError(f"method must be one of {', '.join(get_args(EmbeddingMethod))}, not {method!r}.")
    cells = SequencedCells(ranked, context, vocabulary)
    return embed_tokenised(network, cells, method=method, settings=settings, on_batch=on_batch)


def embed_cell_pairs(
    network: SpatialFormerNetwork,
    vocabulary: Vocabulary,
    ranked: RankedCells,
    context: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    *,
    both_orders: bool = True,
    slides: NDArray[np.int64] | None = None,
    settings: EmbeddingSettings | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> PairEmbeddings:
    """Embed pairs of cells, symmetrically.

    A model that reads two cells as one sequence reads each pair in both orders, and the results are averaged. One that
    reads cells apart reads each cell once, however many pairs it is in; the embedding of a pair is the mean of its two.

    Parameters are those of `embed_cells`, with the positions of the two cells of each pair. Without `both_orders` a
    pair is read once, the left cell first, and the result depends on which cell that is. A model that compares cosines
    centres states by `slides`, the number of the slide of each cell (None: all are of one): give it all cells of these.
    """
    settings = settings or EmbeddingSettings()
    if left.size != right.size:
        raise InputError(f"left and right must have equal lengths, not {left.size} and {right.size}.")
    if network.config.pair_input == "separate":
        return _compare_cells(network, vocabulary, ranked, context, left, right, slides, settings, on_batch)
    n_genes = ranked.n_genes
    embeddings = np.full((left.size, network.config.width), np.nan, dtype=np.float32)
    probabilities = np.full(left.size, np.nan, dtype=np.float32)
    occupied = np.flatnonzero((n_genes[left] > 0) & (n_genes[right] > 0))
    lengths = sequence_lengths(n_genes[left[occupied]], n_genes[right[occupied]])
    with inference(network, settings) as (device, budget):
        encoder = InferenceEncoder(network)
        for batch in token_budget_batches(lengths, budget):
            pairs = occupied[batch]
            states: list[torch.Tensor] = []
            neighbours: list[torch.Tensor] = []
            for first, second in ((left, right), (right, left)) if both_orders else ((left, right),):
                tokens = TokenBatch.from_pairs(ranked, context, first[pairs], second[pairs], vocabulary).to(device)
                hidden = encoder.encode(tokens, cls_only=True, kernel=settings.kernel)
                states.append(hidden[:, 0].float())
                neighbours.append(network.pair_logits(hidden).float().softmax(dim=-1)[:, 1])
            # A sum of two does not depend on their order, so the result is symmetric to the last bit.
            embeddings[pairs] = (sum(states[1:], states[0]) / len(states)).cpu().numpy()
            probabilities[pairs] = (sum(neighbours[1:], neighbours[0]) / len(states)).cpu().numpy()
            if on_batch is not None:
                on_batch(pairs.size)
    return PairEmbeddings(embeddings=embeddings, probabilities=probabilities)


def _compare_cells(
    network: SpatialFormerNetwork,
    vocabulary: Vocabulary,
    ranked: RankedCells,
    context: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    slides: NDArray[np.int64] | None,
    settings: EmbeddingSettings,
    on_batch: Callable[[int], None] | None,
) -> PairEmbeddings:
    """Embed each cell alone, then compare the cells of each pair."""
    cells = embed_cells(network, vocabulary, ranked, context, settings=settings)
    compared = cells
    if network.config.pair_comparison == "cosine":
        compared = centred_by_slide(cells, np.zeros(len(cells), dtype=np.int64) if slides is None else slides)
    embeddings = np.empty((left.size, network.config.width), dtype=np.float32)
    probabilities = np.empty(left.size, dtype=np.float32)
    with inference(network, settings) as (device, budget):
        for start in range(0, left.size, budget):
            pairs = slice(start, start + budget)
            one, other = (torch.from_numpy(compared[side[pairs]]).to(device) for side in (left, right))
            logits = network.pair_logits_of_cells(one, other).float()
            embeddings[pairs] = (cells[left[pairs]] + cells[right[pairs]]) / 2
            probabilities[pairs] = logits.softmax(dim=-1)[:, 1].cpu().numpy()
            if on_batch is not None:
                on_batch(logits.shape[0])
    return PairEmbeddings(embeddings=embeddings, probabilities=probabilities)
