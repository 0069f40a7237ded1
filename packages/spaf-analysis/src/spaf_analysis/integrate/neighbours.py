"""The graph of nearest cells in an embedding, clusters on it, and how mixed labels are in it: what metrics rest on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

import anndata as ad
import igraph
import numpy as np
import scanpy as sc
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.base import BaseEstimator
from sklearn.neighbors import NearestNeighbors

from spaf_analysis.defaults import N_NEIGHBORS

RESOLUTIONS = tuple(step / 10 for step in range(1, 21))  # of Leiden, as scIB has them; the best NMI is taken
DEFAULT_RESOLUTION = 1.0
PERPLEXITY = 30.0  # of LISI
LISI_NEIGHBORS = 90
_TRIES = 50
_STARTS = 3  # of Leiden


@dataclass(frozen=True)
class CellGraph:
    """Nearest cells in an embedding.

    Attributes
    ----------
    nearest
        Cells x 14: the nearest other cells, of 15 with the cell itself, by Euclidean distance.
    connectivities
        Symmetric weights of UMAP, as scanpy's Leiden takes them.
    """

    nearest: NDArray[np.int64]
    connectivities: sparse.csr_matrix

    @classmethod
    def of(cls, embedding: NDArray[np.floating], *, seed: int = 0) -> CellGraph:
        """Search exactly, whatever the number of cells."""
        table = ad.AnnData(obsm={"embedding": np.asarray(embedding, dtype=np.float64)}, shape=(len(embedding), 0))
        k = min(N_NEIGHBORS, len(embedding) - 1)
        search = _ItselfFirst(n_neighbors=k)
        sc.pp.neighbors(table, n_neighbors=k, use_rep="embedding", transformer=search, random_state=seed)
        return cls(search.nearest_, sparse.csr_matrix(table.obsp["connectivities"]))

    @cached_property
    def _graph(self) -> igraph.Graph:
        upper = sparse.coo_matrix(sparse.triu(self.connectivities, k=1))
        edges = np.column_stack([upper.row, upper.col])
        return igraph.Graph(n=len(self.nearest), edges=edges, edge_attrs={"weight": upper.data})

    def leiden(self, resolution: float, *, seed: int = 0) -> NDArray[np.int64]:
        """Leiden clusters: of three starts the one of highest modularity.

        One start alone moves the ARI of a set of 1,200 cells by .09 from seed to seed; the best of three is the same.
        """
        best, highest = np.zeros(len(self.nearest), dtype=np.int64), -np.inf
        for start in range(_STARTS):
            igraph.set_random_number_generator(random.Random(_STARTS * seed + start))
            found = self._graph.community_leiden(
                objective_function="modularity", weights="weight", resolution=resolution, n_iterations=-1
            )
            modularity = self._graph.modularity(found.membership, weights="weight", resolution=resolution)
            if modularity > highest:
                best, highest = np.asarray(found.membership, dtype=np.int64), modularity
        return best

    def in_main_component(self, label: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Whether each cell is in the largest strongly connected part of the graph of the cells of its label."""
        n, k = self.nearest.shape
        graph = sparse.csr_matrix((np.ones(n * k), self.nearest.ravel(), np.arange(n + 1) * k), shape=(n, n))
        result = np.zeros(n, dtype=bool)
        for code in np.unique(label):
            cells = np.flatnonzero(label == code)
            part = connected_components(graph[cells][:, cells], connection="strong")[1]
            result[cells] = part == np.bincount(part).argmax()
        return result

    def purity(self, label: NDArray[np.integer]) -> NDArray[np.float64]:
        """Share of the nearest cells of each cell that have its label."""
        return np.asarray((label[self.nearest] == label[:, None]).mean(axis=1))


class _ItselfFirst(BaseEstimator):
    """The exact search that scanpy is given: every cell is its own first neighbour, also where cells are all the same.

    Its own exact search takes whichever of equal cells comes first for the cell itself, which then is one of its own
    nearest cells, and puts the diagonal into a sparse matrix afterwards.
    """

    def __init__(self, n_neighbors: int) -> None:
        self.n_neighbors = n_neighbors

    def fit_transform(self, X: NDArray[np.floating]) -> sparse.csr_matrix:
        """Return distances to the cell itself and its nearest others, as many in each row."""
        n, k = len(X), self.n_neighbors
        distance, nearest = NearestNeighbors(n_neighbors=k - 1).fit(X).kneighbors()
        self.nearest_ = nearest.astype(np.int64)
        columns = np.column_stack([np.arange(n), nearest])
        values = np.column_stack([np.zeros(n), distance])
        return sparse.csr_matrix((values.ravel(), columns.ravel(), np.arange(n + 1) * k), shape=(n, n))


def lisi(
    embedding: NDArray[np.floating], batch: NDArray[np.integer], *, perplexity: float = PERPLEXITY
) -> NDArray[np.float64]:
    """Local inverse Simpson index of each cell: the effective number of batches around it.

    Parameters
    ----------
    embedding
        Cells x dimensions.
    batch
        Of each cell, from 0.
    perplexity
        Effective number of neighbours; a third of the neighbours that are searched, and less where there are fewer.

    Notes
    -----
    Weights of the 90 nearest other cells fall exponentially with the distance, so that their entropy is the logarithm
    of the perplexity (Korsunsky et al., Nature Methods 16, 2019).
    """
    n = len(embedding)
    k = min(LISI_NEIGHBORS, n - 1)
    if k < 2:
        return np.ones(n)
    search = NearestNeighbors(n_neighbors=k).fit(embedding)
    distance, found = search.kneighbors()
    return lisi_of(distance, batch[found], int(batch.max()) + 1, perplexity=min(perplexity, k / 3))


def lisi_of(
    distance: NDArray[np.floating], batch: NDArray[np.integer], n_batches: int, *, perplexity: float
) -> NDArray[np.float64]:
    """Return the local inverse Simpson index from distances to other cells and their batches, cells x neighbours."""
    target, n = np.log(max(perplexity, 1.0 + 1e-9)), len(distance)
    beta, low, high = np.ones(n), np.zeros(n), np.full(n, np.inf)
    # Distances less the smallest: weights are the same up to a factor, and none underflows altogether.
    away = np.asarray(distance - distance.min(axis=1, keepdims=True), dtype=np.float64)
    for _ in range(_TRIES):
        weight = np.exp(-away * beta[:, None])
        total = weight.sum(axis=1)
        entropy = np.log(total) + beta * (away * weight).sum(axis=1) / total
        wide = entropy > target
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
        beta = np.where(np.isfinite(high), (low + high) / 2, beta * 2)
        if np.abs(entropy - target).max() < 1e-5:
            break
    weight /= weight.sum(axis=1, keepdims=True)
    share = np.stack([np.where(batch == code, weight, 0).sum(axis=1) for code in range(n_batches)], axis=1)
    return np.asarray(1 / (share**2).sum(axis=1))


def cilisi(
    embedding: NDArray[np.floating], batch: NDArray[np.integer], label: NDArray[np.integer], *, least: int = 10
) -> NDArray[np.float64]:
    """Local inverse Simpson index of batches among the cells of the same label, from 0 (one batch) to 1 (all alike).

    NaN for cells of labels with fewer than `least` cells or one batch (Andreatta et al., Nature Communications 15,
    2024). Batches are counted within the label.
    """
    result = np.full(len(embedding), np.nan)
    for code in np.unique(label[label >= 0]):
        cells = np.flatnonzero(label == code)
        of_batch = np.unique(batch[cells], return_inverse=True)[1].ravel()
        n_batches = int(of_batch.max()) + 1
        if len(cells) >= least and n_batches >= 2:
            result[cells] = (lisi(embedding[cells], of_batch) - 1) / (n_batches - 1)
    return result
