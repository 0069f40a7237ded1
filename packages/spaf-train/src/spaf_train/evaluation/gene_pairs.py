"""Gene pairs: how well a model tells co-localised genes of a cell from others, beside how abundant they are."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse

from spaf_train.evaluation.bootstrap import Tiles, interval_columns, tile_draws
from spaf_train.evaluation.discrimination import Discrimination, discrimination
from spaf_train.evaluation.encoding import encoded_cells, inference
from spaf_train.objectives import colocalized_genes

if TYPE_CHECKING:
    from spaf_model import SpatialFormer
    from spaf_train.evaluation.cells import CorpusCells, TokenCells

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
    model: SpatialFormer,
    cells: CorpusCells,
    tokens: TokenCells,
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
    cells, tokens
        The cells, and the same as the model reads them.
    rates
        Of `pair_rates`, from training cells; without them there is no such score.
    max_gene_pairs
        About the largest number of pairs; where there are more, each is taken with the same chance, whatever its label.
    seed
        Of that draw. It does not depend on how cells are batched.
    """
    rows = np.flatnonzero(cells.knows_gene_pairs & (tokens.ranked.n_genes > 1))
    n_genes = tokens.ranked.n_genes[rows]
    total = int((n_genes * (n_genes - 1) // 2).sum())
    chance = min(1.0, max_gene_pairs / max(total, 1))
    code_of_token = np.full(model.vocabulary.n_tokens, -1, dtype=np.int64)
    known = np.flatnonzero(tokens.token_of_gene >= 0)
    code_of_token[tokens.token_of_gene[known]] = known
    edges = tokens.token_of_gene[cells.edges]
    judged = tokens.take(rows)

    pieces: list[tuple[NDArray[Any], ...]] = []
    logits: list[NDArray[np.float64]] = []
    with inference(model.network) as device:
        for chosen, batch, hidden in encoded_cells(model, judged.ranked, judged.context):
            owners = rows[chosen]
            segments = np.stack([owners, np.full_like(owners, -1)], axis=1)
            found = colocalized_genes(batch, segments, cells.edge_indptr, edges, model.vocabulary)
            positions, labels = found.positions.numpy(), found.targets.numpy() > 0
            length = batch.ids.shape[1]
            owner = owners[positions // length**2]
            kept = _drawn(owner, chance, seed)
            positions, owner, labels = positions[kept], owner[kept], labels[kept]
            values = model.network.colocalization_logits(hidden, batch.to(device)).float()
            # The heads of published models are not symmetric, and a pair of genes has no order.
            values = (values + values.transpose(1, 2)) / 2
            picked = values.flatten().index_select(0, torch.from_numpy(positions).to(device))
            logits.append(picked.double().cpu().numpy())
            ids = batch.ids.numpy().reshape(-1)
            row = positions // length**2 * length
            one = code_of_token[ids[row + positions // length % length]]
            other = code_of_token[ids[row + positions % length]]
            pieces.append((owner, np.minimum(one, other), np.maximum(one, other), labels))
    empty = np.zeros(0, dtype=np.int64)
    cell, gene_a, gene_b, colocalized = (
        np.concatenate([piece[part] for piece in pieces] or [empty]) for part in range(4)
    )
    order = np.lexsort((gene_b, gene_a, cell))
    cell, gene_a, gene_b = cell[order], gene_a[order], gene_b[order]
    count_a, count_b = (np.asarray(cells.counts[cell, gene], dtype=np.float64).ravel() for gene in (gene_a, gene_b))
    scores = {MODEL: np.concatenate(logits or [np.zeros(0)])[order]}
    scores |= {PRODUCT: count_a * count_b, MINIMUM: np.minimum(count_a, count_b)}
    if rates is not None:
        scores[RATE] = rates[gene_a, gene_b].astype(np.float64)
    return GenePairScores(cell, gene_a, gene_b, colocalized[order].astype(bool), scores)


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


def _drawn(cell: NDArray[np.int64], chance: float, seed: int) -> NDArray[np.int64]:
    """Return the places of the pairs that are taken; `cell` is that of each pair, all pairs of a cell in a row."""
    if chance >= 1.0:
        return np.arange(cell.size)
    starts = np.flatnonzero(np.r_[True, cell[1:] != cell[:-1]]) if cell.size else cell
    sizes = np.diff(np.r_[starts, cell.size])
    draw = [
        np.random.default_rng([seed, int(owner)]).random(size) for owner, size in zip(cell[starts], sizes, strict=True)
    ]
    return np.flatnonzero(np.concatenate([np.zeros(0), *draw]) < chance)


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
