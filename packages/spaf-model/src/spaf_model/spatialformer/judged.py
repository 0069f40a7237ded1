"""What a SpatialFormer is asked when it is judged: of cells by their counts, and of pairs of cells and of genes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from spaf_model.batching import token_budget_batches
from spaf_model.embedding import embed_tokenised, inference
from spaf_model.options import EmbeddingSettings
from spaf_model.results import HiddenGenes
from spaf_model.spatialformer.embedding import embed_cell_pairs
from spaf_model.spatialformer.tokeniser import N_PREFIX, SequencedCells, TokenBatch, sequence_lengths
from spaf_model.spatialformer.values import centred_by_slide

if TYPE_CHECKING:
    from spaf_model.counts import CellCounts
    from spaf_model.spatialformer.network import SpatialFormerNetwork
    from spaf_model.spatialformer.ranking import RankedCells

PairProbability = Callable[[NDArray[np.integer], NDArray[np.integer]], NDArray[np.float64]]


def pair_scorer(
    network: SpatialFormerNetwork,
    cells: SequencedCells,
    slides: NDArray[np.int64],
    states: NDArray[np.float32] | None,
) -> PairProbability:
    """Return the probability of the pair head as a function of pairs; each cell is read once where it is read alone.

    Parameters
    ----------
    network
        The model's.
    cells
        That pairs may name, by position.
    slides
        Number of the slide of each, (n_cells,).
    states
        Their states at CLS, (n_cells, D), where they are known.
    """
    if network.config.pair_input != "separate":
        return partial(_read_together, network, cells)
    if states is None:
        states = embed_tokenised(network, cells, method="cls")
    if network.config.pair_comparison == "cosine":
        states = centred_by_slide(states, slides)
    return partial(_compared, network, states)


def _read_together(
    network: SpatialFormerNetwork, cells: SequencedCells, left: NDArray[np.integer], right: NDArray[np.integer]
) -> NDArray[np.float64]:
    first, second = (np.asarray(side, dtype=np.int64) for side in (left, right))
    both = embed_cell_pairs(network, cells.vocabulary, cells.ranked, cells.context, first, second)
    return both.probabilities.astype(np.float64)


def _compared(
    network: SpatialFormerNetwork,
    states: NDArray[np.float32],
    left: NDArray[np.integer],
    right: NDArray[np.integer],
) -> NDArray[np.float64]:
    with inference(network, EmbeddingSettings()) as (device, _):
        one, other = (torch.from_numpy(states[side]).to(device) for side in (left, right))
        logits = network.pair_logits_of_cells(one, other)
        return np.asarray(logits.float().softmax(dim=-1)[:, 1].cpu().numpy(), dtype=np.float64)


def name_hidden_genes(
    network: SpatialFormerNetwork, cells: SequencedCells, counts: CellCounts, hidden: NDArray[np.bool_]
) -> HiddenGenes:
    """Put MASK in the place of genes and read the head there; all chosen genes of a cell are hidden at once.

    Parameters
    ----------
    network
        The model's.
    cells
        The counts as sequences.
    counts
        The same cells, which say what the entries are.
    hidden
        Entries of the counts to hide, (n_entries,).
    """
    entry = entries_of_ranks(cells.ranked, counts)
    ranked = cells.ranked
    chosen = hidden[entry]
    masked = dataclasses.replace(ranked, tokens=np.where(chosen, cells.vocabulary.mask, ranked.tokens))
    read = np.zeros(hidden.size, dtype=bool)
    read[entry] = True
    named = np.full(hidden.size, -1, dtype=np.int64)
    log_probability = np.full(hidden.size, np.nan)
    shown = dataclasses.replace(cells, ranked=masked)
    with inference(network, EmbeddingSettings()) as (device, budget):
        for rows, tokens, states in _encoded(network, shown, np.arange(ranked.n_cells), device, budget):
            ranks, places = _places(ranked, rows, tokens.ids.shape[1])
            asked = chosen[ranks]
            ranks, places = ranks[asked], places[asked]
            hidden_states = states.flatten(0, 1).index_select(0, torch.from_numpy(places).to(device))
            logits = network.masked_gene_logits(hidden_states).float()
            targets = torch.from_numpy(ranked.tokens[ranks]).to(device)
            named[entry[ranks]] = logits.argmax(dim=-1).cpu().numpy()
            surprise = functional.cross_entropy(logits, targets, reduction="none")
            log_probability[entry[ranks]] = -surprise.double().cpu().numpy()
    return HiddenGenes(read, named, log_probability)


def gene_pair_logits(
    network: SpatialFormerNetwork,
    cells: SequencedCells,
    of_cell: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the logit that two genes lie together, for pairs of tokens of cells; NaN where a gene was not read.

    The heads of published models are not symmetric, and a pair of genes has no order: it is the mean of both.
    """
    ranked = cells.ranked
    n_tokens = cells.vocabulary.n_tokens
    keys = np.repeat(np.arange(ranked.n_cells), ranked.n_genes) * n_tokens + ranked.tokens
    order = np.argsort(keys)
    rank = [_found(keys, order, of_cell * n_tokens + side) for side in (first, second)]
    rank = [np.where(at >= 0, at - ranked.indptr[of_cell], -1) for at in rank]
    by_cell = np.argsort(of_cell, kind="stable")
    starts = np.searchsorted(of_cell[by_cell], np.arange(ranked.n_cells + 1))
    result = np.full(of_cell.size, np.nan)
    with inference(network, EmbeddingSettings()) as (device, budget):
        for rows, tokens, states in _encoded(network, cells, np.unique(of_cell), device, budget):
            pairs = [by_cell[starts[row] : starts[row + 1]] for row in rows]
            row_of_pair = np.repeat(np.arange(rows.size), [one.size for one in pairs])
            asked = np.concatenate(pairs)
            read = (rank[0][asked] >= 0) & (rank[1][asked] >= 0)
            i, j = (at[asked] + N_PREFIX for at in rank)
            row, one, other = (torch.from_numpy(index[read]).to(device) for index in (row_of_pair, i, j))
            values = network.colocalization_logits(states, tokens).float()
            both = (values[row, one, other] + values[row, other, one]) / 2
            result[asked[read]] = both.double().cpu().numpy()
    return result


def entries_of_ranks(ranked: RankedCells, counts: CellCounts) -> NDArray[np.int64]:
    """Return which entry of the counts each ranked token is, (n_ranked,)."""
    n_tokens = counts.measured.size
    keys = np.repeat(np.arange(counts.n_cells), counts.n_genes) * n_tokens + counts.tokens
    wanted = np.repeat(np.arange(ranked.n_cells), ranked.n_genes) * n_tokens + ranked.tokens
    return _found(keys, np.argsort(keys), wanted)


def _found(keys: NDArray[np.int64], order: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each wanted key is, -1 where it is not; `order` sorts the keys."""
    if not keys.size:
        return np.full(wanted.size, -1, dtype=np.int64)
    at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), keys.size - 1)]
    return np.where(keys[at] == wanted, at, -1)


def _encoded(
    network: SpatialFormerNetwork,
    cells: SequencedCells,
    rows: NDArray[np.int64],
    device: torch.device,
    budget: int,
) -> Iterator[tuple[NDArray[np.int64], TokenBatch, torch.Tensor]]:
    """Yield some cells with their tokens and hidden states x_BLD, on the device; cells without a gene are left out."""
    n_genes = cells.ranked.n_genes
    rows = rows[n_genes[rows] > 0]
    for chosen in token_budget_batches(sequence_lengths(n_genes[rows]), budget):
        tokens = cells.batch(rows[chosen]).to(device)
        yield rows[chosen], tokens, network.encode(tokens)


def _places(ranked: RankedCells, rows: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ranked tokens of some cells, and where each stands in a batch of these with rows of some length."""
    n_genes = ranked.n_genes[rows]
    within = np.arange(n_genes.sum()) - np.repeat(np.cumsum(n_genes) - n_genes, n_genes)
    first = np.arange(rows.size) * length + N_PREFIX
    return np.repeat(ranked.indptr[rows], n_genes) + within, np.repeat(first, n_genes) + within
