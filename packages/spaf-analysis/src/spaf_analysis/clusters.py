"""Clusters and a map of the cells in the space of an embedding."""

import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from spaf_analysis.errors import InputError
from spaf_analysis.keys import CLUSTERS, EMBEDDING
from spaf_analysis.metrics import log_normalize
from spaf_model import check_key

N_NEIGHBORS = 15


def cluster(
    adata: ad.AnnData,
    *,
    key: str = EMBEDDING,
    resolution: float = 1.0,
    n_neighbors: int = N_NEIGHBORS,
    seed: int = 0,
    key_added: str = CLUSTERS,
) -> None:
    """Leiden clusters of the cells in the space of an embedding.

    Parameters
    ----------
    adata
        Cells x genes with an embedding. Written: `obs[key_added]`, a categorical of cluster numbers "1", "2", ... from
        the largest to the smallest cluster (missing for cells without an embedding), and the parameters in
        `uns[key_added]`.
    key
        The embedding in `obsm`.
    resolution
        Resolution of the modularity; higher gives more clusters.
    n_neighbors
        Cells in the neighbourhood of a cell.
    seed
        Seed of the neighbour search and of Leiden.
    key_added
        Column of `obs` to write.

    Raises
    ------
    InputError
        If there is no such embedding, or fewer than 3 cells have one.
    """
    check_key(key_added)
    embedding, embedded = embedded_cells(adata, key)
    graph = _neighbor_graph(embedding, n_neighbors, seed)
    sc.tl.leiden(graph, resolution=resolution, flavor="igraph", n_iterations=-1, directed=False, random_state=seed)
    label = graph.obs["leiden"].astype(str)
    # value_counts sorts by size and keeps the order of appearance among equals.
    names = {old: str(rank) for rank, old in enumerate(label.value_counts().index, start=1)}
    categories = list(names.values())
    codes = np.full(adata.n_obs, -1, dtype=np.int64)
    codes[embedded] = label.map(names).astype(int) - 1
    adata.obs[key_added] = pd.Categorical.from_codes(codes, categories=pd.Index(categories))
    adata.uns[key_added] = {
        "embedding": key,
        "method": "leiden",
        "resolution": resolution,
        "n_neighbors": n_neighbors,
        "seed": seed,
    }


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


def marker_genes(adata: ad.AnnData, *, key: str = CLUSTERS, n_genes: int = 5) -> pd.DataFrame:
    """Size of each cluster and the genes that set it apart most.

    Parameters
    ----------
    adata
        Cells x genes with counts in `X` and clusters in `obs`.
    key
        Column of `obs` with the clusters.
    n_genes
        Number of genes for each cluster.

    Returns
    -------
    pandas.DataFrame
        Indexed by cluster: `n_cells`, `share` of the clustered cells, and `genes` (list, highest first) by Welch's t of
        the log-normalised counts against all other cells; only genes that are higher in the cluster. It describes the
        clusters and is no test: they were made from the same counts.
    """
    clustered = adata.obs[key].notna().to_numpy()
    names = adata.obs[key].cat.categories
    label = adata.obs[key].cat.codes.to_numpy()[clustered]
    expression = log_normalize(adata.X[clustered])
    squared = expression.multiply(expression).tocsr()
    totals = [np.asarray(matrix.sum(axis=0)).ravel() for matrix in (expression, squared)]
    rows = []
    for code in range(len(names)):
        inside = label == code
        sums = [np.asarray(matrix[inside].sum(axis=0)).ravel() for matrix in (expression, squared)]
        t = _welch_t(sums, int(inside.sum()), [a - b for a, b in zip(totals, sums, strict=True)], int((~inside).sum()))
        best = np.argsort(-t, kind="stable")[:n_genes]
        genes = [str(adata.var_names[gene]) for gene in best if t[gene] > 0]
        rows.append({"n_cells": int(inside.sum()), "share": float(inside.mean()), "genes": genes})
    return pd.DataFrame(rows, index=pd.Index(names, name="cluster"))


def embedded_cells(adata: ad.AnnData, key: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the embedding of the cells that have one (finite in all dimensions) and their positions.

    Raises
    ------
    InputError
        If `obsm` has no such key or fewer than 3 cells are embedded.
    """
    if key not in adata.obsm:
        raise InputError(f"obsm has no embedding {key!r}; it has: {', '.join(adata.obsm) or 'nothing'}.")
    embedding = np.asarray(adata.obsm[key], dtype=np.float64)
    embedded = np.flatnonzero(np.isfinite(embedding).all(axis=1))
    if len(embedded) < 3:
        raise InputError(f"only {len(embedded)} cells have an embedding in obsm[{key!r}]; at least 3 are needed.")
    return embedding[embedded], embedded


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
