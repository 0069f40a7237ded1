"""Masked genes: how often and how surely a model names a hidden gene, beside how frequent genes are."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn import functional

from spaf_model import N_PREFIX, RankedCells, SpatialFormer
from spaf_train._csr import csr_rows
from spaf_train.evaluation.bootstrap import Tiles, interval_columns, tile_draws
from spaf_train.evaluation.encoding import encoded_cells, inference

if TYPE_CHECKING:
    from spaf_train.evaluation.cells import TokenCells

MODEL, UNIGRAM, UNSEEN_UNIGRAM = "model", "unigram", "unigram of genes not in view"


def unigram_probabilities(n_cells: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how likely each gene is to be the hidden one, knowing nothing of the cell.

    Parameters
    ----------
    n_cells
        Number of training cells that have the gene. One is added to each, so that a gene that no training cell has is
        not impossible.
    """
    smoothed = np.asarray(n_cells, dtype=np.float64) + 1.0
    return np.asarray(smoothed / smoothed.sum())


def hide_genes(ranked: RankedCells, *, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose the gene tokens to hide, each with the same chance: bool (n_entries,) along `RankedCells.tokens`."""
    return np.random.default_rng(seed).random(ranked.tokens.size) < fraction


def evaluate_masked_genes(
    model: SpatialFormer,
    cells: TokenCells,
    tiles: Tiles,
    training_cells: NDArray[np.floating],
    *,
    fraction: float,
    n_replicates: int,
    seed: int,
) -> pd.DataFrame:
    """Hide genes of single cells and ask which they were.

    All chosen genes are replaced by MASK, so that what is in view is certain: the third row of the result knows that a
    gene occurs once in a cell.

    Parameters
    ----------
    model
        The model.
    cells
        Cells to judge on, as the model reads them.
    tiles
        The tile of each cell.
    training_cells
        Number of training cells that have each gene, in the order of `cells.token_of_gene`.
    fraction
        Chance of a gene to be hidden.
    n_replicates
        Number of resampled tissues behind each interval.
    seed
        Of the hidden genes and the resampling.

    Returns
    -------
    pandas.DataFrame
        A row each for the model, the unigram model of training cells, and the same among the genes not in view:
        `score, n, accuracy, accuracy_low, accuracy_high, perplexity, perplexity_low, perplexity_high`. Perplexity is
        exp of the mean of -log p of the hidden gene.
    """
    ranked = cells.ranked
    hidden = hide_genes(ranked, fraction=fraction, seed=seed)
    cell_of_entry = np.repeat(np.arange(ranked.n_cells), ranked.n_genes)
    answers: dict[str, tuple[NDArray[np.bool_], NDArray[np.float64]]] = {MODEL: _ask(model, cells, hidden)}
    known = cells.token_of_gene >= 0
    unigram = np.zeros(model.vocabulary.n_tokens)
    unigram[cells.token_of_gene[known]] = unigram_probabilities(training_cells[known])
    targets = ranked.tokens[hidden]
    answers[UNIGRAM] = targets == unigram.argmax(), -np.log(unigram[targets])
    answers[UNSEEN_UNIGRAM] = _among_unseen(unigram, ranked, hidden, cell_of_entry)

    draws = np.vstack([np.ones(tiles.n), tile_draws(tiles, n_replicates=n_replicates, seed=seed)])
    tile = tiles.code[cell_of_entry[hidden]]
    n = draws @ np.bincount(tile, minlength=tiles.n)
    rows = []
    with np.errstate(invalid="ignore", divide="ignore"):
        for name, (right, surprise) in answers.items():
            accuracy = draws @ np.bincount(tile, weights=right, minlength=tiles.n) / n
            perplexity = np.exp(draws @ np.bincount(tile, weights=surprise, minlength=tiles.n) / n)
            rows.append({"score": name, "n": int(n[0]), **interval_columns(accuracy=accuracy, perplexity=perplexity)})
    return pd.DataFrame(rows)


def _ask(
    model: SpatialFormer, cells: TokenCells, hidden: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return for each hidden gene whether the model names it and -log p, in the order of the entries."""
    ranked = cells.ranked
    masked = dataclasses.replace(ranked, tokens=np.where(hidden, model.vocabulary.mask, ranked.tokens))
    right = np.zeros(ranked.tokens.size, dtype=bool)
    surprise = np.zeros(ranked.tokens.size)
    with inference(model.network) as device:
        for batch, tokens, states in encoded_cells(model, masked, cells.context):
            entries, n_entries = csr_rows(ranked.indptr, batch)
            places = np.repeat(np.arange(batch.size) * tokens.ids.shape[1] + N_PREFIX, n_entries)
            places += entries - np.repeat(ranked.indptr[batch], n_entries)
            entries, places = entries[hidden[entries]], places[hidden[entries]]
            chosen = states.flatten(0, 1).index_select(0, torch.from_numpy(places).to(device))
            logits = model.network.masked_gene_logits(chosen).float()
            targets = torch.from_numpy(ranked.tokens[entries]).to(device)
            right[entries] = (logits.argmax(dim=-1) == targets).cpu().numpy()
            surprise[entries] = functional.cross_entropy(logits, targets, reduction="none").cpu().numpy()
    return right[hidden], surprise[hidden]


def _among_unseen(
    unigram: NDArray[np.float64],
    ranked: RankedCells,
    hidden: NDArray[np.bool_],
    cell_of_entry: NDArray[np.int64],
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    in_view = np.bincount(cell_of_entry[~hidden], weights=unigram[ranked.tokens[~hidden]], minlength=ranked.n_cells)
    place_of_token = np.empty(unigram.size, dtype=np.int64)
    by_frequency = np.argsort(-unigram, kind="stable")
    place_of_token[by_frequency] = np.arange(unigram.size)
    best = np.empty(ranked.n_cells, dtype=np.int64)
    for cell in range(ranked.n_cells):
        entries = slice(ranked.indptr[cell], ranked.indptr[cell + 1])
        places = np.sort(place_of_token[ranked.tokens[entries][~hidden[entries]]])
        # The most frequent gene not in view: the first place that is not taken.
        gaps = np.flatnonzero(places != np.arange(places.size))
        best[cell] = by_frequency[gaps[0] if gaps.size else min(places.size, unigram.size - 1)]
    owner, target = cell_of_entry[hidden], ranked.tokens[hidden]
    return best[owner] == target, -np.log(unigram[target] / (1.0 - in_view[owner]))
