"""Embeddings of ranked cells and of pairs of them, as arrays."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from spaf_model.batching import token_budget_batches
from spaf_model.config import SpatialFormerConfig
from spaf_model.errors import InputError
from spaf_model.kernels import KernelName
from spaf_model.spatialformer import InferenceEncoder, SpatialFormerNetwork
from spaf_model.token_batch import N_PREFIX, TokenBatch
from spaf_model.tokens import RankedCells
from spaf_model.vocabulary import Vocabulary

EmbeddingMethod = Literal["cls", "gene"]
Precision = Literal["fp32", "bf16"]

# Bytes of the widest activation (the MLP before its gate) in one batch, fp32. On a CPU larger ones leave the caches and
# are mapped anew by the allocator in every layer; a GPU needs more to be busy.
_WIDEST_ACTIVATION = {"cpu": 8 << 20}
_WIDEST_ACTIVATION_ELSEWHERE = 128 << 20
_NO_CPU_MEMORY = "DefaultCPUAllocator"  # torch has no class of error for it


@dataclasses.dataclass(frozen=True)
class PairEmbeddings:
    """What a model says of pairs of cells; row i belongs to pair i, NaN where a cell has no gene of the vocabulary."""

    embeddings: NDArray[np.float32]  # (n_pairs, D), mean of CLS over both orders or both cells
    probabilities: NDArray[np.float32]  # (n_pairs,), that the two cells are neighbours; symmetric


@dataclasses.dataclass(frozen=True)
class EmbeddingSettings:
    """How embeddings are computed; none of it changes them beyond rounding, except `precision`."""

    token_budget: int | None = None  # most tokens of a batch, padding included; None: by device and width
    precision: Precision = "fp32"  # of matrix products and attention
    kernel: KernelName | None = None  # attention kernel to force; None: `select_kernel`

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise InputError(f"precision must be one of {', '.join(get_args(Precision))}, not {self.precision!r}.")
        if self.token_budget is not None and self.token_budget < 1:
            raise InputError(f"token_budget must be at least 1, not {self.token_budget}.")


def default_token_budget(config: SpatialFormerConfig, device: torch.device) -> int:
    """Return the tokens of a batch that suit the device and the width of the network."""
    widest = _WIDEST_ACTIVATION.get(device.type, _WIDEST_ACTIVATION_ELSEWHERE)
    return max(widest // (4 * config.mlp_expansion * config.width), 1)


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
    settings = settings or EmbeddingSettings()
    result = np.full((ranked.n_cells, network.config.width), np.nan, dtype=np.float32)
    occupied = np.flatnonzero(ranked.n_genes)
    lengths = ranked.n_genes[occupied] + N_PREFIX + 1
    with inference(network, settings) as (device, budget):
        encoder = InferenceEncoder(network)
        for batch in token_budget_batches(lengths, budget):
            cells = occupied[batch]
            tokens = TokenBatch.from_cells(ranked, context, cells, vocabulary).to(device)
            hidden = encoder.encode(tokens, cls_only=method == "cls", kernel=settings.kernel)
            pooled = hidden[:, 0] if method == "cls" else _gene_mean(hidden, tokens)
            result[cells] = pooled.float().cpu().numpy()
            if on_batch is not None:
                on_batch(cells.size)
    return result


def embed_cell_pairs(
    network: SpatialFormerNetwork,
    vocabulary: Vocabulary,
    ranked: RankedCells,
    context: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    *,
    both_orders: bool = True,
    settings: EmbeddingSettings | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> PairEmbeddings:
    """Embed pairs of cells, symmetrically.

    A model that reads two cells as one sequence reads each pair in both orders, and the results are averaged. One that
    reads cells apart reads each cell once, however many pairs it is in; the embedding of a pair is the mean of its two.

    Parameters are those of `embed_cells`, with the positions of the two cells of each pair. Without `both_orders` a
    pair is read once, the left cell first, and the result depends on which cell that is.
    """
    settings = settings or EmbeddingSettings()
    if left.size != right.size:
        raise InputError(f"left and right must have equal lengths, not {left.size} and {right.size}.")
    if network.config.pair_input == "separate":
        return _compare_cells(network, vocabulary, ranked, context, left, right, settings, on_batch)
    n_genes = ranked.n_genes
    embeddings = np.full((left.size, network.config.width), np.nan, dtype=np.float32)
    probabilities = np.full(left.size, np.nan, dtype=np.float32)
    occupied = np.flatnonzero((n_genes[left] > 0) & (n_genes[right] > 0))
    lengths = n_genes[left[occupied]] + n_genes[right[occupied]] + 2 * N_PREFIX + 1
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
    settings: EmbeddingSettings,
    on_batch: Callable[[int], None] | None,
) -> PairEmbeddings:
    """Embed each cell alone, then compare the cells of each pair."""
    cells = embed_cells(network, vocabulary, ranked, context, settings=settings)
    embeddings = np.empty((left.size, network.config.width), dtype=np.float32)
    probabilities = np.empty(left.size, dtype=np.float32)
    with inference(network, settings) as (device, budget):
        for start in range(0, left.size, budget):
            pairs = slice(start, start + budget)
            one, other = (torch.from_numpy(cells[side[pairs]]).to(device) for side in (left, right))
            logits = network.pair_logits_of_cells(one, other).float()
            embeddings[pairs] = ((one + other) / 2).cpu().numpy()
            probabilities[pairs] = logits.softmax(dim=-1)[:, 1].cpu().numpy()
            if on_batch is not None:
                on_batch(logits.shape[0])
    return PairEmbeddings(embeddings=embeddings, probabilities=probabilities)


def _gene_mean(hidden: torch.Tensor, tokens: TokenBatch) -> torch.Tensor:
    mask = tokens.mask[:, N_PREFIX:].unsqueeze(-1)
    genes = hidden[:, N_PREFIX:].float().masked_fill(~mask, 0.0)
    return genes.sum(dim=1) / mask.sum(dim=1)


@contextlib.contextmanager
def inference(network: SpatialFormerNetwork, settings: EmbeddingSettings) -> Iterator[tuple[torch.device, int]]:
    """Yield device and token budget, in evaluation mode without gradients; running out of memory becomes advice."""
    was_training = network.training
    device = next(network.parameters()).device
    budget = settings.token_budget or default_token_budget(network.config, device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16")
    network.eval()
    try:
        with torch.inference_mode(), autocast:
            yield device, budget
    except RuntimeError as error:  # also that of a GPU out of memory
        if not isinstance(error, torch.OutOfMemoryError) and _NO_CPU_MEMORY not in str(error):
            raise
        raise InputError(
            f"The device {device} ran out of memory at {budget} tokens a batch: "
            "lower token_budget (--token-budget on the command line, batch_size in embed_data)."
        ) from error
    finally:
        network.train(was_training)
