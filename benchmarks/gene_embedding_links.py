"""Whether gene embeddings say which genes lie together in tissue that they have not seen.

    spaf-data build XENIUM_FOLDER --out BUILD
    python benchmarks/gene_embedding_links.py XENIUM_FOLDER BUILD

Embeddings of the training cells of a slide are asked which gene pairs lie within 3 um of each other more often than by
chance in the cells of the held-out region: Spearman correlation with the log ratio there, and AUROC of the tenth of the
pairs that has the highest. Chance is either what the make-up of each cell gives or what abundance gives
(`spaf_train.gene_embedding.association`). Beside the factorisations stand the log ratios themselves, a two-layer
GraphSAGE with mean aggregation over the graph of transcripts (link prediction with random negatives; the vector of a
gene is the mean over its transcripts, as published), correlation of expression over cells, and abundance.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from _machine import describe, write_results
from scipy import sparse
from scipy.spatial import cKDTree
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from spaf_data import Transcripts, gene_proximity, read_transcripts
from spaf_train import GeneEmbeddingOptions, auroc, gene_embeddings
from spaf_train.gene_embedding import association

MIN_EXPECTED = 5.0  # pairs of transcripts by chance in held-out cells, for a gene pair to be judged


class _Product(torch.autograd.Function):
    """A constant sparse matrix times a dense one; SciPy is several times faster at it than torch on one core."""

    @staticmethod
    def forward(ctx: Any, matrix: sparse.csr_array, transposed: sparse.csr_array, dense: Tensor) -> Tensor:
        """Return the product."""
        ctx.transposed = transposed
        return torch.from_numpy(matrix @ dense.detach().numpy())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        """Return the gradient of the dense matrix."""
        return None, None, torch.from_numpy(ctx.transposed @ gradient.numpy())


class GraphSage(nn.Module):
    """Two layers of mean aggregation over transcripts, whose features are their genes, one-hot."""

    def __init__(self, gene: np.ndarray, mean_of_near: sparse.csr_array, n_genes: int, hidden: int, dims: int) -> None:
        super().__init__()
        n = len(gene)
        one_hot = sparse.csr_array((np.ones(n, np.float32), (np.arange(n), gene)), shape=(n, n_genes))
        features = sparse.hstack([one_hot, mean_of_near @ one_hot]).tocsr()
        self.features = features, features.T.tocsr()
        self.mean_of_near = mean_of_near, mean_of_near.T.tocsr()
        self.first = nn.Parameter(torch.randn(2 * n_genes, hidden) / hidden**0.5)
        self.own = nn.Linear(hidden, dims)
        self.near = nn.Linear(hidden, dims, bias=False)

    def forward(self) -> Tensor:
        """Return the vectors of all transcripts (n, D)."""
        hidden = functional.relu(_Product.apply(*self.features, self.first))
        return self.own(hidden) + _Product.apply(*self.mean_of_near, self.near(hidden))


def graph_of(transcripts: Transcripts, cells: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the genes of the transcripts in some cells, their cells, and the proximal pairs inside cells, (n, 2)."""
    kept = np.isin(transcripts.cells[transcripts.cell], cells)
    cell = transcripts.cell[kept]
    place = np.column_stack([transcripts.x[kept], transcripts.y[kept], transcripts.z[kept]])
    pairs = cKDTree(place).query_pairs(radius, output_type="ndarray")
    return transcripts.gene[kept].astype(np.int64), cell, pairs[cell[pairs[:, 0]] == cell[pairs[:, 1]]]


def train_sage(
    graph: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_genes: int,
    *,
    dimensions: int,
    epochs: int,
    seed: int,
    near: bool,
) -> np.ndarray:
    """Train by link prediction on all transcripts; return the mean vector of each gene, (n_genes, D).

    Negatives are any two transcripts or, where `near`, two of the same cell.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    gene, cell, pairs = graph
    n = len(gene)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    degree = np.maximum(np.bincount(both[:, 0], minlength=n), 1)
    weights = (1.0 / degree)[both[:, 0]].astype(np.float32)
    mean_of_near = sparse.csr_array((weights, (both[:, 0], both[:, 1])), shape=(n, n))
    starts, sizes = np.searchsorted(cell, cell), np.bincount(cell)[cell]
    model = GraphSage(gene, mean_of_near, n_genes, 64, dimensions)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(epochs):
        positive = pairs[rng.integers(0, len(pairs), 100_000)]
        first = rng.integers(0, n, len(positive))
        other = starts[first] + rng.integers(0, sizes[first]) if near else rng.integers(0, n, len(positive))
        ends = torch.from_numpy(np.concatenate([positive, np.column_stack([first, other])]))
        vectors = model()
        logits = (vectors[ends[:, 0]] * vectors[ends[:, 1]]).sum(dim=1)
        target = torch.repeat_interleave(torch.tensor([1.0, 0.0]), len(positive))
        loss = functional.binary_cross_entropy_with_logits(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        vectors = model().numpy()
    sums = np.zeros((n_genes, dimensions))
    np.add.at(sums, gene, vectors)
    return sums / np.maximum(np.bincount(gene, minlength=n_genes), 1)[:, None]


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Return the cosine of every two rows."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit @ unit.T


def link_scores(
    transcripts: Transcripts, train: np.ndarray, counts: np.ndarray, epochs: int, seeds: int
) -> Iterator[tuple[str, float, np.ndarray]]:
    """Yield names, processor seconds and scores of all gene pairs, from training cells alone."""
    began = time.process_time()
    found = gene_proximity(transcripts, cells=train)
    counting = time.process_time() - began
    yield "abundance: product of the counts", 0.0, np.outer(found.n_transcripts, found.n_transcripts).astype(float)
    with np.errstate(invalid="ignore"):
        yield "correlation of expression over cells", 0.0, np.nan_to_num(np.corrcoef(np.log1p(counts), rowvar=False))
    for null in ("cells", "abundance"):
        yield f"log ratio itself, null {null}", counting, association(found, null=null)
        for dimensions in (8, 16, 32, 64):
            options = GeneEmbeddingOptions(dimensions=dimensions, null=null)
            began = time.process_time()
            made = gene_embeddings(found, options)
            seconds = counting + time.process_time() - began
            yield f"factorised, null {null}, {dimensions} dimensions", seconds, made.association()
    graph = graph_of(transcripts, train, 3.0)
    for near in (False, True):
        for seed in range(seeds):
            began = time.process_time()
            vectors = train_sage(graph, transcripts.n_genes, dimensions=32, epochs=epochs, seed=seed, near=near)
            seconds = time.process_time() - began
            name = f"GraphSAGE, negatives {'of the same cell' if near else 'anywhere'}, 32 dimensions, seed {seed}"
            yield f"{name}, product", seconds, vectors @ vectors.T
            yield f"{name}, cosine", seconds, cosines(vectors)


def judge_links(bundle: Path, table: anndata.AnnData, epochs: int, seeds: int) -> list[dict[str, Any]]:
    """Score held-out gene pairs by everything."""
    transcripts = read_transcripts(bundle)
    train, held = (table.obs_names[table.obs["split"] == split].to_numpy() for split in ("train", "validation"))
    judged = gene_proximity(transcripts, cells=held)
    a, b = np.triu_indices(len(judged.genes), 1)
    truths = {}
    ends = judged.observed.sum(axis=0) + np.diag(judged.observed)
    chance = {"cells": judged.expected, "abundance": np.outer(ends, ends) / ends.sum()}
    for null, expected in chance.items():
        pairs = expected[a, b] >= MIN_EXPECTED
        ratio = association(judged, null=null, pseudo_count=1.0)[a, b][pairs]
        truths[null] = (pairs, ratio, (ratio >= np.quantile(ratio, 0.9)).astype(int))
        print(f"null {null}: {pairs.sum()} of {len(a)} gene pairs are judged")
    rows = []
    counts = table[train, transcripts.genes].X.toarray()
    for name, seconds, scores in link_scores(transcripts, train, counts, epochs, seeds):
        row: dict[str, Any] = {"score": name, "processor_seconds": round(seconds, 2)}
        for null, (pairs, ratio, top) in truths.items():
            of_pairs = scores[a, b][pairs]
            row[f"spearman_{null}"] = float(spearmanr(of_pairs, ratio).statistic)
            row[f"auroc_{null}"] = float(auroc(of_pairs, top))
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    """Judge everything, print it and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("build", type=Path, help="build of that bundle, with one slide")
    parser.add_argument("--epochs", type=int, default=60, help="of GraphSAGE")
    parser.add_argument("--seeds", type=int, default=1, help="of GraphSAGE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    (file,) = (options.build / "slides").glob("*.h5ad")
    rows = judge_links(options.bundle, anndata.read_h5ad(file), options.epochs, options.seeds)
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    write_results(
        "gene_embedding_links",
        {
            "machine": describe("spaf-train", "spaf-data", "torch", "scipy"),
            "epochs": options.epochs,
            "min_expected": MIN_EXPECTED,
            "scores": rows,
        },
    )


if __name__ == "__main__":
    main()
