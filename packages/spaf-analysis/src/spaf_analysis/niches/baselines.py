"""What domains have to beat: averaged principal components, joint clustering, composition of clusters."""

from __future__ import annotations

import random
from collections.abc import Callable

import igraph
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.neighbors import kneighbors_graph

from spaf_analysis.clusters.compute import leiden
from spaf_analysis.defaults import N_NEIGHBORS
from spaf_analysis.niches.state import slides
from spaf_model import averaging_weights

_BISECTIONS = 12
_SPACE = 0.5  # weight of the neighbours in space beside those in expression

Labels = Callable[[int], NDArray[np.int64]]


def averaged(
    components: NDArray[np.float64],
    coordinates: NDArray[np.floating],
    slide: NDArray[np.generic],
    *,
    times: int = 2,
    n_neighbors: int = N_NEIGHBORS,
) -> NDArray[np.float64]:
    """Mean over a cell and its neighbours, taken some times, of principal components: the baseline to beat."""
    result = np.array(components, dtype=np.float64)
    for cells in slides(slide):
        weights = averaging_weights(coordinates[cells], n_neighbors=n_neighbors)
        for _ in range(times):
            result[cells] = weights @ result[cells]
    return result


def composition(
    components: NDArray[np.float64],
    coordinates: NDArray[np.floating],
    slide: NDArray[np.generic],
    *,
    n_neighbors: int = N_NEIGHBORS,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Share of each Leiden cluster (resolution 1) among a cell and its neighbours, averaged twice."""
    label = leiden(components, seed=seed)
    return averaged(np.eye(int(label.max()) + 1)[label], coordinates, slide, n_neighbors=n_neighbors)


def kmeans(state: NDArray[np.floating], n_domains: int) -> Labels:
    """Return k-means by seed."""
    return lambda seed: np.asarray(KMeans(n_domains, n_init=10, random_state=seed).fit_predict(state), dtype=np.int64)


def joint_leiden(
    components: NDArray[np.float64],
    coordinates: NDArray[np.floating],
    slide: NDArray[np.generic],
    n_domains: int,
    *,
    n_neighbors: int = N_NEIGHBORS,
) -> Labels:
    """Leiden on the neighbours in expression and those in space together, by seed.

    Parameters
    ----------
    components
        Cells x principal components.
    coordinates, slide
        Where the cells are.
    n_domains
        The resolution is bisected until there are as many clusters; where no resolution gives them, the nearest that
        was met.
    n_neighbors
        In expression and in space.
    """
    n = len(components)
    alike = kneighbors_graph(components, min(n_neighbors, n - 1), include_self=False).tocoo()
    rows, columns, values = [alike.row], [alike.col], [np.full(alike.nnz, 1 - _SPACE)]
    for cells in slides(slide):
        near = sparse.coo_array(averaging_weights(coordinates[cells], n_neighbors=n_neighbors))
        rows.append(cells[near.row])
        columns.append(cells[near.col])
        values.append(np.full(near.nnz, _SPACE))
    both = sparse.coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n)
    ).tocsr()
    half = sparse.coo_array(sparse.triu(both + both.T, k=1))
    edges = np.column_stack([half.row, half.col])
    graph = igraph.Graph(n=n, edges=edges, edge_attrs={"weight": half.data})

    def label(seed: int) -> NDArray[np.int64]:
        low, high, best = 1e-3, 8.0, np.zeros(n, dtype=np.int64)
        for _ in range(_BISECTIONS):
            middle = float(np.sqrt(low * high))
            igraph.set_random_number_generator(random.Random(seed))
            found = graph.community_leiden(
                objective_function="modularity", weights="weight", resolution=middle, n_iterations=4
            )
            code = np.asarray(found.membership, dtype=np.int64)
            if abs(len(found) - n_domains) < abs(len(np.unique(best)) - n_domains):
                best = code
            if len(found) == n_domains:
                break
            low, high = (middle, high) if len(found) < n_domains else (low, middle)
        return best

    return label
