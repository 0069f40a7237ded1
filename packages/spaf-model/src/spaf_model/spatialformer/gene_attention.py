"""Attention between the genes of two cells, summed over many pairs of cells."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_model.attention_bias import alibi_slopes
from spaf_model.batching import token_budget_batches
from spaf_model.embedding import inference
from spaf_model.errors import InputError
from spaf_model.options import EmbeddingSettings
from spaf_model.results import DIRECTIONS, AttentionDirection, GeneAttention
from spaf_model.spatialformer.tokeniser import N_PREFIX, TokenBatch, sequence_lengths
from spaf_model.vocabulary import CONTEXT_KINDS, Vocabulary

if TYPE_CHECKING:
    import torch

    from spaf_model.spatialformer.network import SpatialFormerNetwork
    from spaf_model.spatialformer.ranking import RankedCells

_MOST_WEIGHTS = 1 << 26  # attention weights (B, H, L, L) of one layer that are held at once: 256 MiB
_MOST_PENDING = 1 << 22  # entries that wait to be summed


def check_reads_together(network: SpatialFormerNetwork) -> None:
    """Look whether genes of two cells can attend to each other.

    Raises
    ------
    InputError
        If the model reads the two apart.
    """
    if network.config.pair_input == "separate":
        raise InputError("This model reads the two cells of a pair apart: no gene of one attends to one of the other.")


def average_gene_attention(
    network: SpatialFormerNetwork,
    vocabulary: Vocabulary,
    ranked: RankedCells,
    context: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    *,
    genes: Sequence[str],
    columns: NDArray[np.int64],
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    minus_alibi: bool = True,
    settings: EmbeddingSettings | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> GeneAttention:
    """Average the attention between genes over pairs of cells.

    Each pair is read in both orders, and the two are averaged, so that which cell is written first changes nothing:
    swapping left and right swaps the directions. Means are taken over the chosen heads and layers. Only genes are
    looked at (CLS, SEP and context are left out), and within a cell no gene with itself.

    Parameters
    ----------
    network, vocabulary, ranked, context, settings, on_batch
        As for `embed_cells`.
    left, right
        Positions of the two cells of each pair.
    genes
        Names of the genes of the result.
    columns
        Position in `genes` of each token id.
    layers, heads
        Which to average, from 0; None takes all.
    minus_alibi
        Subtract what the ALiBi bias alone gives: the softmax of the bias, at the same positions of the same sequence.
        A plain mean over all heads may show little but how near two genes are in rank.

    Raises
    ------
    InputError
        If a layer or a head does not exist, none is chosen, or the model reads the cells of a pair apart.

    Notes
    -----
    One batch and one layer at a time; batches are small enough for their weights (B, H, L, L) to take some 256 MiB.
    Beyond that, memory is that of the result: some bytes for each gene pair that was seen.
    """
    check_reads_together(network)
    settings = settings or EmbeddingSettings()
    chosen_layers = _chosen(layers, network.config.n_layers, "layers")
    chosen_heads = _chosen(heads, network.config.n_heads, "heads")
    slopes = tuple(slope for head, slope in enumerate(alibi_slopes(network.config.n_heads)) if head in chosen_heads)
    n_genes = ranked.n_genes
    occupied = np.flatnonzero((n_genes[left] > 0) & (n_genes[right] > 0))
    lengths = sequence_lengths(n_genes[left[occupied]], n_genes[right[occupied]])
    sums = _PairSums(len(genes))
    with inference(network, settings) as (device, budget):
        for batch in token_budget_batches(lengths, budget):
            for part in _parts(batch, lengths, network.config.n_heads):
                pairs = occupied[part]
                for first, second, swapped in ((left[pairs], right[pairs], False), (right[pairs], left[pairs], True)):
                    tokens = TokenBatch.from_pairs(ranked, context, first, second, vocabulary).to(device)
                    weights = _mean_weights(network, tokens, chosen_layers, chosen_heads)
                    for row in range(pairs.size):
                        length = int(lengths[part[row]])
                        one = weights[row, :length, :length]
                        if minus_alibi:
                            one = one - _alibi_alone(slopes, length)
                        of_first, of_second = (
                            columns[ranked.tokens[ranked.indptr[cell] : ranked.indptr[cell + 1]]]
                            for cell in (first[row], second[row])
                        )
                        sums.add(one, of_first, of_second, swapped=swapped)
                if on_batch is not None:
                    on_batch(pairs.size)
    weights_of, n_pairs_of = sums.matrices()
    return GeneAttention(list(genes), weights_of, n_pairs_of, occupied.size, left.size - occupied.size)


def _chosen(wanted: Sequence[int] | None, n: int, what: str) -> list[int]:
    if wanted is None:
        return list(range(n))
    chosen = sorted({int(index) for index in wanted})
    outside = [index for index in chosen if not 0 <= index < n]
    if outside:
        raise InputError(f"{what} must be from 0 to {n - 1}, not {outside[0]}.")
    if not chosen:
        raise InputError(f"{what} is empty; None takes all {n}.")
    return chosen


def _parts(batch: NDArray[np.int64], lengths: NDArray[np.int64], n_heads: int) -> Iterator[NDArray[np.int64]]:
    """Split a batch so that the attention weights of a layer stay within `_MOST_WEIGHTS`."""
    size = max(int(_MOST_WEIGHTS // (n_heads * lengths[batch].max() ** 2)), 1)
    for start in range(0, batch.size, size):
        yield batch[start : start + size]


def _mean_weights(
    network: SpatialFormerNetwork, tokens: TokenBatch, layers: list[int], heads: list[int]
) -> NDArray[np.float32]:
    """Return attention weights (B, L, L), mean over layers and heads."""
    total: torch.Tensor | None = None
    for layer, weights in enumerate(network.attention_weights(tokens)):
        if layer in layers:
            mean = weights[:, heads].float().mean(dim=1)
            total = mean if total is None else total.add_(mean)
        if layer == layers[-1]:
            break  # the layers above would be computed for nothing
    assert total is not None
    return (total / len(layers)).cpu().numpy()


@functools.lru_cache(maxsize=4)  # sequences come in order of length
def _alibi_alone(slopes: tuple[float, ...], length: int) -> NDArray[np.float32]:
    """Return the attention (L, L) that the bias gives where queries and keys say nothing, mean over heads."""
    # exp(-slope |i - j|), normalised over j. Rows are slices of one decay, so no (H, L, L) is needed.
    position = np.arange(length)
    distance = np.abs(position[:, None] - position[None, :])
    total = np.zeros((length, length))
    for slope in slopes:
        decay = np.exp(-slope * position)
        weights = decay[distance]
        total += weights / weights.sum(axis=1, keepdims=True)
    return (total / len(slopes)).astype(np.float32)


class _PairSums:
    """Sums over (direction, query gene, key gene) in memory that grows with the number of those seen."""

    def __init__(self, n_genes: int) -> None:
        self._n_genes = n_genes
        self._keys: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._sums: NDArray[np.float64] = np.zeros(0, dtype=np.float64)
        self._counts: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._pending: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        self._n_pending = 0

    def add(
        self,
        weights: NDArray[np.float32],
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        *,
        swapped: bool,
    ) -> None:
        """Add the weights (L, L) of one sequence with the genes of its first and its second cell."""
        start = {"first": N_PREFIX, "second": N_PREFIX + first.size + 1 + len(CONTEXT_KINDS)}
        genes = {"first": first, "second": second}
        left, right = ("second", "first") if swapped else ("first", "second")
        ends = {
            "left_to_right": (left, right),
            "right_to_left": (right, left),
            "within_left": (left, left),
            "within_right": (right, right),
        }
        for number, direction in enumerate(DIRECTIONS):
            query, key = ends[direction]
            block = weights[start[query] : start[query] + genes[query].size, start[key] : start[key] + genes[key].size]
            keys = (number * self._n_genes + genes[query][:, None]) * self._n_genes + genes[key][None, :]
            if query == key:
                others = ~np.eye(genes[query].size, dtype=bool)
                block, keys = block[others], keys[others]
            self._pending.append((keys.ravel(), block.ravel()))
            self._n_pending += keys.size
        if self._n_pending >= _MOST_PENDING:
            self._settle()

    def _settle(self) -> None:
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._pending)])
        sums = np.concatenate([self._sums, *(values for _, values in self._pending)])
        counts = np.ones(keys.size, dtype=np.int64)
        counts[: self._counts.size] = self._counts
        self._keys, place = np.unique(keys, return_inverse=True)
        self._sums = np.bincount(place, weights=sums, minlength=self._keys.size).astype(np.float64, copy=False)
        self._counts = np.bincount(place, weights=counts, minlength=self._keys.size).astype(np.int64)
        self._pending, self._n_pending = [], 0

    def matrices(
        self,
    ) -> tuple[dict[AttentionDirection, sparse.csr_array], dict[AttentionDirection, sparse.csr_array]]:
        """Return the means, and the number of pairs of cells, which were each read in two orders."""
        self._settle()
        means: dict[AttentionDirection, sparse.csr_array] = {}
        n_pairs: dict[AttentionDirection, sparse.csr_array] = {}
        shape = (self._n_genes, self._n_genes)
        for number, direction in enumerate(DIRECTIONS):
            ends = np.searchsorted(self._keys, [number * self._n_genes**2, (number + 1) * self._n_genes**2])
            here = slice(int(ends[0]), int(ends[1]))
            query, key = np.divmod(self._keys[here] - number * self._n_genes**2, self._n_genes)
            indptr = np.concatenate([[0], np.cumsum(np.bincount(query, minlength=self._n_genes))])
            mean = (self._sums[here] / self._counts[here]).astype(np.float32)
            means[direction] = sparse.csr_array((mean, key, indptr), shape=shape)
            n_pairs[direction] = sparse.csr_array((self._counts[here] // 2, key, indptr), shape=shape)
        return means, n_pairs
