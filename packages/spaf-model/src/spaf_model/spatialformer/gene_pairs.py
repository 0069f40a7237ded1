"""Gene pairs that a model expects to lie together in a cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from spaf_model.batching import token_budget_batches
from spaf_model.embedding import inference
from spaf_model.errors import InputError
from spaf_model.options import EmbeddingSettings
from spaf_model.spatialformer.inference import InferenceEncoder
from spaf_model.spatialformer.tokeniser import N_PREFIX, SpatialFormerTokeniser, TokenBatch, sequence_lengths

if TYPE_CHECKING:
    from spaf_model.cell_source import CellSource
    from spaf_model.spatialformer.network import SpatialFormerNetwork
    from spaf_model.spatialformer.ranking import RankedCells
    from spaf_model.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class CellGenePairs:
    """Gene pairs of cells, cell by cell; entry i is one unordered pair of one cell."""

    cells: NDArray[np.int64]  # position of the cell
    first: NDArray[np.int64]  # token id of the gene that ranks higher in the cell
    second: NDArray[np.int64]  # token id of the other
    probabilities: NDArray[np.float32]  # that the two are co-localised


def colocalized_gene_pairs(
    network: SpatialFormerNetwork,
    vocabulary: Vocabulary,
    ranked: RankedCells,
    context: NDArray[np.int64],
    *,
    threshold: float = 0.7,
    settings: EmbeddingSettings | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> CellGenePairs:
    """Find the gene pairs of each cell that are co-localised with at least a probability.

    Only genes of the cell form pairs, never CLS, SEP or context tokens. The logit of a pair is the mean of those of its
    two orders, since the heads of published models are not symmetric although their target is.

    Parameters
    ----------
    network, vocabulary, ranked, context, settings, on_batch
        As for `embed_cells`.
    threshold
        Least probability of a pair, above 0 and below 1.

    Returns
    -------
    CellGenePairs
        In the order of the cells; within a cell by the ranks of the two genes.

    Raises
    ------
    InputError
        If the threshold is out of range.

    Notes
    -----
    One batch at a time: a batch of B sequences of L tokens takes some B L^2 values, and only pairs above the threshold
    are kept.
    """
    if not 0.0 < threshold < 1.0:
        raise InputError(f"threshold must be above 0 and below 1, not {threshold}.")
    settings = settings or EmbeddingSettings()
    occupied = np.flatnonzero(ranked.n_genes)
    lengths = sequence_lengths(ranked.n_genes[occupied])
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
    with inference(network, settings) as (device, budget):
        encoder = InferenceEncoder(network)
        for batch in token_budget_batches(lengths, budget):
            cells = occupied[batch]
            tokens = TokenBatch.from_cells(ranked, context, cells, vocabulary).to(device)
            hidden = encoder.encode(tokens, kernel=settings.kernel)
            row, i, j, probabilities = _pairs_above(network, hidden, tokens, threshold)
            start = ranked.indptr[cells[row]]
            found.append((cells[row], ranked.tokens[start + i], ranked.tokens[start + j], probabilities))
            if on_batch is not None:
                on_batch(cells.size)
    if not found:
        none = np.zeros(0, dtype=np.int64)
        return CellGenePairs(none, none, none, np.zeros(0, dtype=np.float32))
    of_cell, first, second, probability = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(of_cell, kind="stable")  # batches are made by length
    return CellGenePairs(of_cell[order], first[order], second[order], probability[order])


def _pairs_above(
    network: SpatialFormerNetwork, hidden: torch.Tensor, tokens: TokenBatch, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return sequence, two gene ranks (from 0) and probability of each pair at or above the threshold."""
    with torch.autocast(hidden.device.type, enabled=False):  # the head costs little, and rounding would make ties
        logits = network.colocalization_logits(hidden.float(), tokens)
    logits = logits[:, N_PREFIX:-1, N_PREFIX:-1]
    probabilities = ((logits + logits.transpose(-1, -2)) / 2).sigmoid()
    rank = torch.arange(logits.shape[-1], device=logits.device)
    n_genes = (tokens.lengths[:, 0] - N_PREFIX - 1)[:, None, None]
    wanted = (rank[:, None] < rank[None, :]) & (rank[None, :] < n_genes) & (probabilities >= threshold)
    row, i, j = wanted.nonzero(as_tuple=True)
    values = probabilities[row, i, j]
    return row.cpu().numpy(), i.cpu().numpy(), j.cpu().numpy(), values.cpu().numpy()


@dataclasses.dataclass(frozen=True)
class GenePairMatrix:
    """Cells x gene pairs, with the columns of the expression matrix that form each pair."""

    probabilities: sparse.csr_matrix  # (n_cells, n_pairs), float32; what is not stored is below the threshold
    gene_a: NDArray[np.int64]  # (n_pairs,), gene_a < gene_b, pairs in ascending order
    gene_b: NDArray[np.int64]


def gene_pair_matrix(
    network: SpatialFormerNetwork,
    tokeniser: SpatialFormerTokeniser,
    source: CellSource,
    *,
    n_genes: int,
    threshold: float = 0.7,
    settings: EmbeddingSettings | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> GenePairMatrix:
    """Put the co-localised gene pairs of all cells of a source into one sparse matrix.

    Parameters are those of `colocalized_gene_pairs`, with the tokeniser of the model and the number of columns of the
    expression matrix. Cells are read some thousand at a time, or all at once where their values are of whole slides;
    memory grows with the pairs found, some 20 bytes each.
    """
    vocabulary = tokeniser.vocabulary
    columns = source.columns_of_tokens(vocabulary.n_tokens)
    n_of_cell = [np.zeros(1, dtype=np.int64)]
    values = [np.zeros(0, dtype=np.float32)]
    keys_of_chunk = [np.zeros(0, dtype=np.int64)]
    codes_of_chunk = [np.zeros(0, dtype=np.int32)]
    whole = tokeniser.gene_values != "none"
    for counts in (source.read(),) if whole else (chunk for _, chunk in source.chunks()):
        cells = tokeniser(counts)
        found = colocalized_gene_pairs(
            network,
            vocabulary,
            cells.ranked,
            cells.context,
            threshold=threshold,
            settings=settings,
            on_batch=on_batch,
        )
        a, b = columns[found.first], columns[found.second]
        keys, codes = np.unique(np.minimum(a, b) * n_genes + np.maximum(a, b), return_inverse=True)
        keys_of_chunk.append(keys)
        codes_of_chunk.append(codes.astype(np.int32))
        values.append(found.probabilities)
        n_of_cell.append(np.bincount(found.cells, minlength=counts.n_cells))
    pairs = np.unique(np.concatenate(keys_of_chunk))
    column = np.concatenate(
        [
            np.searchsorted(pairs, keys).astype(np.int32)[codes]
            for keys, codes in zip(keys_of_chunk, codes_of_chunk, strict=True)
        ]
    )
    entries = (np.concatenate(values), column, np.cumsum(np.concatenate(n_of_cell)))
    matrix = sparse.csr_matrix(entries, shape=(source.n_cells, pairs.size))
    matrix.sort_indices()
    gene_a, gene_b = np.divmod(pairs, n_genes)
    return GenePairMatrix(matrix, gene_a, gene_b)
