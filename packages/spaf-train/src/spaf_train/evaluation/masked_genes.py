"""Masked genes: how often and how surely a model names a hidden gene, beside how frequent genes are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_train.evaluation.bootstrap import Tiles, interval_columns, tile_draws

if TYPE_CHECKING:
    from spaf_model import CellCounts, NamesHiddenGenes
    from spaf_train.evaluation.cells import ReadCells

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


def hide_genes(counts: CellCounts, *, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose the genes to hide, each with the same chance: bool (n_entries,) along `CellCounts.tokens`."""
    return np.random.default_rng(seed).random(counts.tokens.size) < fraction


def evaluate_masked_genes(
    model: NamesHiddenGenes,
    cells: ReadCells,
    tiles: Tiles,
    training_cells: NDArray[np.floating],
    *,
    fraction: float,
    n_replicates: int,
    seed: int,
) -> pd.DataFrame:
    """Hide genes of single cells and ask which they were.

    All chosen genes are hidden at once, so that what is in view is certain: the third row of the result knows that a
    gene occurs once in a cell. Genes that a model does not read, because it cuts long cells, are not asked for.

    Parameters
    ----------
    model
        The model.
    cells
        Cells to judge on.
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
    counts = cells.counts
    hidden = hide_genes(counts, fraction=fraction, seed=seed)
    said = model.name_hidden_genes(counts, hidden)
    hidden &= said.read
    cell_of_entry = np.repeat(np.arange(counts.n_cells), counts.n_genes)
    targets = counts.tokens[hidden]
    known = cells.token_of_gene >= 0
    unigram = np.zeros(counts.measured.size)
    unigram[cells.token_of_gene[known]] = unigram_probabilities(training_cells[known])
    answers = {
        MODEL: (said.named[hidden] == targets, -said.log_probability[hidden]),
        UNIGRAM: (targets == unigram.argmax(), -np.log(unigram[targets])),
        UNSEEN_UNIGRAM: _among_unseen(unigram, counts, hidden, said.read & ~hidden, cell_of_entry),
    }

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


def _among_unseen(
    unigram: NDArray[np.float64],
    counts: CellCounts,
    hidden: NDArray[np.bool_],
    in_view: NDArray[np.bool_],
    cell_of_entry: NDArray[np.int64],
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    seen = np.bincount(
        cell_of_entry[in_view], weights=unigram[counts.tokens[in_view]], minlength=counts.n_cells
    )  # fmt: skip
    place_of_token = np.empty(unigram.size, dtype=np.int64)
    by_frequency = np.argsort(-unigram, kind="stable")
    place_of_token[by_frequency] = np.arange(unigram.size)
    best = np.empty(counts.n_cells, dtype=np.int64)
    for cell in range(counts.n_cells):
        entries = slice(counts.indptr[cell], counts.indptr[cell + 1])
        places = np.sort(place_of_token[counts.tokens[entries][in_view[entries]]])
        # The most frequent gene not in view: the first place that is not taken.
        gaps = np.flatnonzero(places != np.arange(places.size))
        best[cell] = by_frequency[gaps[0] if gaps.size else min(places.size, unigram.size - 1)]
    owner, target = cell_of_entry[hidden], counts.tokens[hidden]
    return best[owner] == target, -np.log(unigram[target] / (1.0 - seen[owner]))
