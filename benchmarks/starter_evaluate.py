"""How well does the starter model know neighbours in held-out tissue, beside baselines.

    python benchmarks/starter_evaluate.py BUILT MODEL [--write]

BUILT is what ``starter_data.py`` made. The held-out parts of its slides are judged together and apart, by pairs of
cells within 10 to 50 um against matched negatives: far cells (beyond 150 um) and hard ones (80 to 150 um away).
Intervals (95 %) come from resampled tiles of tissue. Baselines see the training part alone:

- cosine of 30 principal components, nothing trained;
- a logistic regression on pairs of 30 principal components;
- a two-layer network on pairs of 50 principal components, trained on all neighbours of the training part with as many
  hard and as many easy negatives, drawn anew each of 12 epochs. It gets the epoch that is best on the held-out part
  itself, which flatters it.

Masked genes (of 15 % hidden genes, which were they?) stand beside the unigram model: the share of each gene among the
hidden ones, from the training part.
"""

import argparse
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import torch
from _machine import describe, write_results
from torch import nn
from torch.nn import functional

from spaf_analysis.metrics import (
    LogisticPairs,
    cosine,
    discrimination,
    evaluate_cell_pairs,
    matched_pairs,
    pca_embedding,
)
from spaf_data import Corpus
from spaf_model import RankedCells, SpatialFormer, TokenBatch, match_genes, rank_genes
from spaf_model.context import context_ids
from spaf_train.objectives import MaskedGenesConfig, mask_genes
from spaf_train.samplers import SamplingConfig, draw_pairs

EPOCHS = 12
MAX_PAIRS = 2_000
REPLICATES = 500
RADII = (10.0, 20.0, 30.0, 50.0)
TABLES = ("dense_window", "region_a", "region_b", "region_c")


class PairNetwork:
    """A trained pair model on principal components: symmetric in the two cells."""

    def __init__(self, coordinates: np.ndarray, corpus: Corpus, row_of: dict[str, int]) -> None:
        blocks = [corpus.read(ref) for ref in corpus.block_refs("train") if ref.slide in TABLES]
        self.blocks = blocks
        self.offsets = np.cumsum([0, *(block.n_cells for block in blocks)])[:-1]
        self.rows = np.concatenate([[row_of[name] for name in block.cell_ids] for block in blocks])
        scaled = coordinates / coordinates[self.rows].std(axis=0)
        self.values = torch.tensor(scaled, dtype=torch.float32)
        torch.manual_seed(0)
        n_features = 2 * coordinates.shape[1]
        self.network = nn.Sequential(
            nn.Linear(n_features, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1)
        )

    def logits(self, left: np.ndarray, right: np.ndarray) -> torch.Tensor:
        """Return the logits of pairs of cells."""
        a, b = self.values[left], self.values[right]
        return self.network(torch.cat([a * b, (a - b).abs()], dim=1)).squeeze(1)

    def score(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the logits without dropout."""
        self.network.eval()
        with torch.no_grad():
            return self.logits(left, right).numpy().astype(np.float64)

    def fit(self, judge) -> list[float]:
        """Train, and keep the weights of the epoch that `judge` likes best."""
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3, weight_decay=0.01)
        best, judged = None, []
        for epoch in range(EPOCHS):
            generators = [np.random.default_rng([0, epoch, number]) for number in range(len(self.blocks))]
            inputs = draw_pairs(self.blocks, self.offsets, generators, SamplingConfig())
            order = np.random.default_rng([1, epoch]).permutation(len(inputs))
            self.network.train()
            for start in range(0, len(order), 3072):
                chosen = inputs.take(order[start : start + 3072])
                logits = self.logits(self.rows[chosen.left], self.rows[chosen.right])
                labels = torch.from_numpy(chosen.label.astype(np.float32))
                loss = functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=torch.tensor(2.0))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            judged.append(judge(self.score))
            if judged[-1] == max(judged):
                best = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(best)
        return judged


def masked_genes(model: SpatialFormer, table: ad.AnnData, train: np.ndarray, held: np.ndarray) -> dict[str, float]:
    """Return accuracy and perplexity on hidden genes of held-out cells, beside the unigram model."""
    network, vocabulary = model.network.eval(), model.vocabulary
    token_ids = match_genes(table.var, vocabulary, min_fraction=0.5).token_ids

    def rank(rows: np.ndarray) -> tuple[RankedCells, np.ndarray]:
        counts = table.X[rows]
        ranked = rank_genes(
            counts.indptr, token_ids[counts.indices], counts.data, vocabulary.scale, max_genes=model.config.max_genes
        )
        none = dict.fromkeys(("condition", "tissue", "species", "assay"))
        return ranked, context_ids(vocabulary, table.obs.iloc[rows], none)

    ranked, _ = rank(train)
    shares = np.bincount(ranked.tokens, minlength=vocabulary.n_tokens) + 1.0
    unigram = torch.tensor(np.log(shares / shares.sum()))
    ranked, context = rank(held)
    generator = torch.Generator().manual_seed(0)
    sums = dict.fromkeys(("n", "right", "loss", "unigram_right", "unigram_loss"), 0.0)
    for rows in np.array_split(np.arange(ranked.n_cells), max(1, ranked.n_cells // 64)):
        batch = TokenBatch.from_cells(ranked, context, rows, vocabulary)
        masked, hidden = mask_genes(batch, vocabulary, MaskedGenesConfig(), generator)
        with torch.no_grad():
            states = network.encode(masked).flatten(0, 1)[hidden.positions]
            logits = network.masked_gene_logits(states)
        sums["n"] += hidden.targets.numel()
        sums["right"] += float((logits.argmax(1) == hidden.targets).sum())
        sums["loss"] += float(functional.cross_entropy(logits, hidden.targets, reduction="sum"))
        sums["unigram_right"] += float((hidden.targets == unigram.argmax()).sum())
        sums["unigram_loss"] -= float(unigram[hidden.targets].sum())
    n = sums["n"]
    return {
        "hidden_genes": n,
        "accuracy": sums["right"] / n,
        "perplexity": float(np.exp(sums["loss"] / n)),
        "unigram_accuracy": sums["unigram_right"] / n,
        "unigram_perplexity": float(np.exp(sums["unigram_loss"] / n)),
    }


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error over ten bins of equal width, neighbours and others weighing equally."""
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    bins = np.minimum((probabilities * 10).astype(int), 9)
    gaps = [abs(np.sum(weights[bins == b] * (labels[bins == b] - probabilities[bins == b]))) for b in range(10)]
    return float(np.sum(gaps))


def main() -> None:
    """Judge, print tables, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("built", type=Path)
    parser.add_argument("model")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/starter.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = SpatialFormer.from_pretrained(options.model)
    table = ad.concat([ad.read_h5ad(options.built / "slides" / f"{name}.h5ad") for name in TABLES])
    table.X = table.X.tocsr()
    table.obs = table.obs.astype(str)
    split, slide = table.obs["split"].to_numpy(), table.obs["slide"].to_numpy()
    train, held = np.flatnonzero(split == "train"), np.flatnonzero(split == "validation")
    xy = table.obsm["spatial"]

    pca = pca_embedding(table.X, train).coordinates
    wide = pca_embedding(table.X, train, n_components=50).coordinates
    fitted = matched_pairs(xy[train], slide[train], radii=(30.0,), max_pairs=20_000)
    logistic = LogisticPairs(pca, fitted, 30.0, cells=train)
    network = PairNetwork(wide, Corpus(options.built / "corpus"), {name: i for i, name in enumerate(table.obs_names)})

    # Each cell is read alone, so the states of the held-out cells are all that their pairs need.
    some = np.random.default_rng(0).choice(train, 2_000, replace=False)
    read = np.concatenate([held, some])
    part_table = table[read].copy()
    model.embed(part_table)
    states = np.full((table.n_obs, model.config.width), np.nan, dtype=np.float32)
    states[read] = part_table.obsm["X_SpaF"]
    centred = np.nan_to_num(states - states[some].mean(axis=0))

    def probability(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = model.network.pair_logits_of_cells(torch.from_numpy(states[left]), torch.from_numpy(states[right]))
        return logits.softmax(dim=1)[:, 1].numpy().astype(np.float64)

    first, second = held[:50], held[50:100]
    direct = model.embed_pairs(table[held].copy(), np.arange(50), np.arange(50, 100)).probabilities
    np.testing.assert_allclose(direct, probability(first, second), atol=1e-5)

    results: dict[str, object] = {"machine": describe("spaf-model", "spaf-train", "torch"), "cases": []}
    parts = {"held out": held, **{name: held[slide[held] == name] for name in np.unique(slide[held])}}
    judged_epochs = None
    for part, cells in parts.items():
        radii = RADII if part == "held out" else (30.0,)
        pairs = matched_pairs(xy[cells], slide[cells], radii=radii, max_pairs=MAX_PAIRS)

        def judge(score) -> float:
            total = 0.0
            for kind in ("easy", "hard"):
                rows = pairs.rows(30.0, kind)  # noqa: B023
                left = cells[np.concatenate([pairs.anchor[rows]] * 2)]  # noqa: B023
                right = cells[np.concatenate([pairs.neighbour[rows], pairs.partner(kind)[rows]])]  # noqa: B023
                labels = np.arange(left.size) < rows.size
                total += discrimination(labels, score(left, right), np.ones((1, left.size))).auroc[0]
            return total

        if judged_epochs is None:
            judged_epochs = network.fit(judge)
        scores = {
            "model": probability,
            "embedding cosine": partial(cosine, centred),
            "PCA cosine": partial(cosine, pca),
            "PCA logistic": logistic.score,
            "PCA pair network": network.score,
        }
        others = ("PCA cosine", "PCA logistic", "PCA pair network")
        evaluation = evaluate_cell_pairs(
            pairs,
            xy[cells],
            scores,
            comparisons={"model": others},
            library=slide[cells],
            cells=cells,
            n_replicates=REPLICATES,
        )
        print(f"\n{part}: {cells.size} cells, {evaluation.tiles.n} tiles of {evaluation.tiles.side:.0f} um", flush=True)
        print(evaluation.scores.round(3).to_string(index=False))
        at_30 = evaluation.differences[evaluation.differences.radius == 30.0]
        print(at_30.round(3).to_string(index=False))
        both = {}
        for kind in ("easy", "hard"):
            rows = pairs.rows(30.0, kind)
            p = probability(
                cells[np.concatenate([pairs.anchor[rows]] * 2)],
                cells[np.concatenate([pairs.neighbour[rows], pairs.partner(kind)[rows]])],
            )
            labels = np.arange(p.size) < rows.size
            both[kind] = {
                "specificity": float((p[~labels] < 0.5).mean()),
                "sensitivity": float((p[labels] >= 0.5).mean()),
                "calibration_error": calibration(p, labels),
            }
        print(both)
        results["cases"].append(
            {
                "part": part,
                "cells": int(cells.size),
                "tiles": evaluation.tiles.n,
                "scores": evaluation.scores.to_dict("records"),
                "differences": evaluation.differences.to_dict("records"),
                "threshold_half": both,
            }
        )
    results["masked_genes"] = masked_genes(model, table, train, held)
    print(results["masked_genes"])
    results["n_parameters"] = model.n_parameters
    results["training_cells"] = int(train.size)
    if options.write:
        write_results("starter", results)


if __name__ == "__main__":
    main()
