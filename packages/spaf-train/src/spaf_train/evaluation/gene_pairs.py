"""Gene pairs: how well a model tells co-localised genes of a cell from others, beside how abundant they are."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spaf_train.evaluation.bootstrap import Tiles, interval_columns, tile_draws
from spaf_train.evaluation.discrimination import Discrimination, discrimination

if TYPE_CHECKING:
    from spaf_model import RanksGenePairs
    from spaf_train.evaluation.cells import CorpusCells, ReadCells

MODEL, PRODUCT, MINIMUM, RATE = "model", "product of counts", "smaller count", "rate of the pair in training"
# Weights of items x replicates held at once; the items stay sorted, so more at once would gain nothing.
_WEIGHTS_AT_ONCE = 4_000_000


@dataclasses.dataclass(frozen=True)
class GenePairScores:
    """Gene pairs of cells, with what each score says of them."""

    cell: NDArray[np.int64]  # (n,)
    gene_a: NDArray[np.int64]  # (n,), gene codes a < b
    gene_b: NDArray[np.int64]  # (n,)
    colocalized: NDArray[np.bool_]  # (n,)
    scores: dict[str, NDArray[np.float64]]  # each (n,)


def pair_rates(cells: CorpusCells) -> NDArray[np.float32]:
    """Return how often two genes are co-localised in the cells that have both, genes x genes, symmetric.

    One cell with the rate of all pairs is added to each, so that a pair seen once does not count as certain.
    """
    known = cells.take(np.flatnonzero(cells.knows_gene_pairs))
    present = sparse.csr_matrix(
        (np.ones(known.counts.indices.size, dtype=np.float32), known.counts.indices, known.counts.indptr),
        shape=known.counts.shape,
    )
    both = (present.T @ present).toarray()
    np.fill_diagonal(both, 0.0)
    # A pair may be listed in either order; the sum with the transpose has it in both.
    together = np.zeros_like(both)
    np.add.at(together, (known.edges[:, 0], known.edges[:, 1]), 1.0)
    together += together.T
    overall = float(together.sum()) / max(float(both.sum()), 1.0)
    return np.asarray((together + overall) / (both + 1.0), dtype=np.float32)


def score_gene_pairs(
    model: RanksGenePairs,
    cells: ReadCells,
    rates: NDArray[np.float32] | None,
    *,
    max_gene_pairs: int,
    seed: int,
) -> GenePairScores:
    """Score pairs of genes that a cell has.

    Parameters
    ----------
    model
        The model; it reads whole cells, nothing masked.
    cells
        The cells.
    rates
        Of `pair_rates`, from training cells; without them there is no such score.
    max_gene_pairs
        About the largest number of pairs; where there are more, each is taken with the same chance, whatever its label.
    seed
        Of that draw.
    """
    known = cells.cells
    rows = np.flatnonzero(known.knows_gene_pairs & (cells.counts.n_genes > 1))
    n_genes = cells.counts.n_genes[rows]
    total = int((n_genes * (n_genes - 1) // 2).sum())
    chance = min(1.0, max_gene_pairs / max(total, 1))
    drawn = [_gene_pairs_of(known, int(row), cells.token_of_gene, chance, seed) for row in rows]
    empty = (np.zeros(0, dtype=np.int64),) * 3
    cell, gene_a, gene_b = (np.concatenate(part) for part in zip(empty, *drawn, strict=True))
    place = np.full(len(cells), -1, dtype=np.int64)
    place[rows] = np.arange(rows.size)
    first, second = (cells.token_of_gene[gene] for gene in (gene_a, gene_b))
    logits = model.gene_pair_logits(cells.counts.take(rows), place[cell], first, second)
    read = np.isfinite(logits)  # genes that the model cuts off are not judged
    cell, gene_a, gene_b = (values[read] for values in (cell, gene_a, gene_b))
    count_a, count_b = (np.asarray(known.counts[cell, gene], dtype=np.float64).ravel() for gene in (gene_a, gene_b))
    scores = {MODEL: logits[read], PRODUCT: count_a * count_b, MINIMUM: np.minimum(count_a, count_b)}
    if rates is not None:
        scores[RATE] = rates[gene_a, gene_b].astype(np.float64)
    return GenePairScores(cell, gene_a, gene_b, _are_colocalized(known, cell, gene_a, gene_b), scores)


def _gene_pairs_of(
    cells: CorpusCells, cell: int, token_of_gene: NDArray[np.int64], chance: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return a cell, often, and pairs of its genes a < b that have a token, each with the same chance."""
    entries = slice(cells.counts.indptr[cell], cells.counts.indptr[cell + 1])
    genes = cells.counts.indices[entries][cells.counts.data[entries] > 0]
    known = np.sort(genes[token_of_gene[genes] >= 0]).astype(np.int64)
    first, second = np.triu_indices(known.size, 1)
    if chance < 1.0:
        kept = np.random.default_rng([seed, cell]).random(first.size) < chance
        first, second = first[kept], second[kept]
    return np.full(first.size, cell, dtype=np.int64), known[first], known[second]


def _are_colocalized(
    cells: CorpusCells, cell: NDArray[np.int64], gene_a: NDArray[np.int64], gene_b: NDArray[np.int64]
) -> NDArray[np.bool_]:
    n_genes = cells.counts.shape[1]
    of_edge = np.repeat(np.arange(len(cells)), np.diff(cells.edge_indptr))
    edges = (of_edge * n_genes + cells.edges.min(axis=1)) * n_genes + cells.edges.max(axis=1)
    return np.isin((cell * n_genes + gene_a) * n_genes + gene_b, edges)


def evaluate_gene_pairs(
    pairs: GenePairScores, tiles: Tiles, *, n_replicates: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judge scores of gene pairs by how they rank co-localised ones above others.

    Parameters
    ----------
    pairs
        Of `score_gene_pairs`.
    tiles
        The tile of each cell.
    n_replicates
        Number of resampled tissues behind each interval.
    seed
        Of the resampling.

    Returns
    -------
    tuple
        A table of scores (`score, auroc, auroc_low, auroc_high, auprc, ...`) and one of the model minus each other
        score on the same resampled tissues (`score, baseline, auroc, ...`). Chance is 0.5 for AUROC and the share of
        co-localised pairs for AUPRC.
    """
    draws = np.vstack([np.ones(tiles.n), tile_draws(tiles, n_replicates=n_replicates, seed=seed)])
    tile = tiles.code[pairs.cell]
    results = {name: _discrimination(pairs.colocalized, values, draws, tile) for name, values in pairs.scores.items()}
    scores = [{"score": name, **interval_columns(**result._asdict())} for name, result in results.items()]
    differences = [
        {"score": MODEL, "baseline": name, **interval_columns(**results[MODEL].minus(result)._asdict())}
        for name, result in results.items()
        if name != MODEL
    ]
    return pd.DataFrame(scores), pd.DataFrame(differences)


def _discrimination(
    labels: NDArray[np.bool_], values: NDArray[np.float64], draws: NDArray[np.float64], tile: NDArray[np.int64]
) -> Discrimination:
    order = np.argsort(values, kind="stable")
    labels, values, tile = labels[order], values[order], tile[order]
    step = max(1, _WEIGHTS_AT_ONCE // max(labels.size, 1))
    parts = [
        discrimination(labels, values, draws[first : first + step, tile], balanced=False)
        for first in range(0, len(draws), step)
    ]
    return Discrimination(*(np.concatenate(part) for part in zip(*parts, strict=True)))
