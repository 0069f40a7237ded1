"""Clusters of an embedding, the genes that set them apart, and a map of the cells."""

import warnings
from collections.abc import Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from spaf_analysis.defaults import N_NEIGHBORS
from spaf_analysis.metrics import log_normalize


def leiden(
    embedding: NDArray[np.floating], *, resolution: float = 1.0, n_neighbors: int = N_NEIGHBORS, seed: int = 0
) -> NDArray[np.int64]:
    """Leiden clusters of cells in the space of an embedding.

    Parameters
    ----------
    embedding
        Cells x dimensions, finite.
    resolution
        Resolution of the modularity; higher gives more clusters.
    n_neighbors
        Cells in the neighbourhood of a cell.
    seed
        Seed of the neighbour search and of Leiden.

    Returns
    -------
    numpy.ndarray
        The cluster of each cell, 0, 1, ... from the largest to the smallest.
    """
    graph = _neighbor_graph(embedding, n_neighbors, seed)
    sc.tl.leiden(graph, resolution=resolution, flavor="igraph", n_iterations=-1, directed=False, random_state=seed)
    label = graph.obs["leiden"].astype(str)
    # value_counts sorts by size and keeps the order of appearance among equals.
    rank = {old: number for number, old in enumerate(label.value_counts().index)}
    return np.asarray(label.map(rank), dtype=np.int64)


def umap(embedding: NDArray[np.floating], *, n_neighbors: int = N_NEIGHBORS, seed: int = 0) -> NDArray[np.float64]:
    """Two-dimensional UMAP of an embedding.

    Parameters
    ----------
    embedding
        Cells x dimensions, finite.
    n_neighbors
        Cells in the neighbourhood of a cell.
    seed
        Seed of the neighbour search and of the layout, which is then computed in one thread.

    Returns
    -------
    numpy.ndarray
        Cells x 2, without unit: only who is near whom means something.
    """
    graph = _neighbor_graph(embedding, n_neighbors, seed)
    with warnings.catch_warnings():
        # A seed makes umap-learn use one thread, which it announces on every call.
        warnings.filterwarnings("ignore", message="n_jobs value", category=UserWarning)
        sc.tl.umap(graph, random_state=seed)
    return np.asarray(graph.obsm["X_umap"], dtype=np.float64)


def markers(
    counts: Any, labels: NDArray[np.integer], names: Sequence[str], genes: Sequence[str], *, n_genes: int = 5
) -> pd.DataFrame:
    """Size of each cluster and the genes that set it apart most.

    Parameters
    ----------
    counts
        Cells x genes.
    labels
        The cluster of each cell, a position in `names`.
    names
        Of the clusters.
    genes
        Of the columns.
    n_genes
        Number of genes for each cluster.

    Returns
    -------
    pandas.DataFrame
        Indexed by cluster: `n_cells`, `share` of the cells, and `genes` (list, highest first) by Welch's t of the
        log-normalised counts against all other cells; only genes that are higher in the cluster.
    """
    expression = log_normalize(counts)
    squared = expression.multiply(expression).tocsr()
    totals = [np.asarray(matrix.sum(axis=0)).ravel() for matrix in (expression, squared)]
    rows = []
    for code in range(len(names)):
        inside = labels == code
        sums = [np.asarray(matrix[inside].sum(axis=0)).ravel() for matrix in (expression, squared)]
        t = _welch_t(sums, int(inside.sum()), [a - b for a, b in zip(totals, sums, strict=True)], int((~inside).sum()))
        best = np.argsort(-t, kind="stable")[:n_genes]
        high = [str(genes[gene]) for gene in best if t[gene] > 0]
        rows.append({"n_cells": int(inside.sum()), "share": float(inside.mean()), "genes": high})
    return pd.DataFrame(rows, index=pd.Index(list(names), name="cluster"))


def _neighbor_graph(embedding: NDArray[np.floating], n_neighbors: int, seed: int) -> Any:
    # Euclidean distances of unit vectors order cells as cosine does, and the exact search for small data takes them.
    graph = ad.AnnData(obsm={"embedding": normalize(embedding).astype(np.float32)}, shape=(len(embedding), 0))
    n_neighbors = min(n_neighbors, len(embedding) - 1)
    sc.pp.neighbors(graph, n_neighbors=n_neighbors, use_rep="embedding", random_state=seed)
    return graph


def _welch_t(
    inside: list[NDArray[np.float64]], n_inside: int, outside: list[NDArray[np.float64]], n_outside: int
) -> NDArray[np.float64]:
    """Welch's t per gene from the sums and sums of squares of both groups; 0 where it is not defined."""
    if min(n_inside, n_outside) < 2:
        return np.zeros(len(inside[0]))
    means, variances = [], []
    for (total, squares), n in ((inside, n_inside), (outside, n_outside)):
        means.append(total / n)
        variances.append(np.maximum(squares / n - (total / n) ** 2, 0) / (n - 1))
    error = np.sqrt(variances[0] + variances[1])
    return np.divide(means[0] - means[1], error, out=np.zeros_like(error), where=error > 0)
