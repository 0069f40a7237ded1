from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from numba import njit

from spaf_data import Transcripts
from spaf_data.colocalization.dense_louvain import climb_dense as _climb_dense
from spaf_data.colocalization.dense_louvain import shuffle as _shuffle
from spaf_data.colocalization.graph import Graph, Nodes, neighbours, widest_row
from spaf_data.colocalization.graph import add_neighbours as _add_neighbours
from spaf_data.colocalization.graph import arrange as _arrange
from spaf_data.colocalization.graph import store_rows as _store_rows
from spaf_data.colocalization.louvain import label_nodes
from spaf_data.colocalization.sparse_louvain import climb_sparse as _climb_sparse


def make_slide(
    rng: np.random.Generator, *, n_cells: int, n_transcripts: int, n_genes: int, size: float = 14.0
) -> Transcripts:
    """Cells of size x size x 4 um in a row, transcripts and labels uniform."""
    n = n_cells * n_transcripts
    cell = np.repeat(np.arange(n_cells), n_transcripts)
    return Transcripts.from_arrays(
        x=rng.uniform(0, size, n) + 40.0 * cell,
        y=rng.uniform(0, size, n),
        z=rng.uniform(0, 4.0, n),
        gene=rng.choice(n_genes, n, p=np.arange(n_genes, 0, -1) / (n_genes * (n_genes + 1) / 2)),
        cell=cell,
        genes=[f"G{k:03d}" for k in range(n_genes)],
        cells=[f"c{k:05d}" for k in range(n_cells)],
    )


@pytest.fixture
def random_slide() -> Callable[..., Transcripts]:
    return make_slide


@pytest.fixture(scope="module")
def slide() -> Transcripts:
    return make_slide(np.random.default_rng(3), n_cells=30, n_transcripts=120, n_genes=15)


def arrange(x: np.ndarray, y: np.ndarray, z: np.ndarray, gene: np.ndarray, radius: float) -> tuple[np.ndarray, Graph]:
    """The transcripts of one cell."""
    nodes = _arrange(x, y, z, gene, np.array([0, len(x)]), radius)
    return nodes.order, nodes.graph(slice(0, len(x)), radius)


def find_communities(graph: Graph, max_dense: int, max_stored: int) -> tuple[np.ndarray, int]:
    n = len(graph.x)
    nodes = Nodes(np.arange(n), graph.x, graph.y, graph.z, graph.low, graph.high)
    labels, n_labels = label_nodes(nodes, np.array([0, n]), graph.radius, max_dense=max_dense, max_stored=max_stored)
    return labels, int(n_labels[0])


# Kernels that other kernels call are called from Python through these: see the note in graph.py.


@njit(cache=True)
def adjacency_matrix(graph):
    n = len(graph.x)
    matrix = np.zeros((n, n), np.uint8)
    for i in range(n):
        _add_neighbours(graph.x, graph.y, graph.z, graph.low, graph.high, graph.radius, i, matrix[i])
    return matrix


@njit(cache=True)
def store_rows(graph, max_stored):
    return _store_rows(graph, max_stored)


@njit(cache=True)
def all_neighbours(graph):
    buffer = np.empty(widest_row(graph), np.int32)
    rows = []
    for i in range(len(graph.x)):
        row, start, stop = neighbours(graph, i, buffer)
        rows.append(row[start:stop].copy())
    return rows


@njit(cache=True)
def shuffled(n, seed):
    visit = np.empty(n, np.int64)
    _shuffle(visit, seed)
    return visit


@njit(cache=True)
def climb_dense(near, strength, start):
    visit = np.empty(len(near), np.int64)
    _shuffle(visit, start)
    labels = np.empty(len(near), np.int32)
    n_labels, quality = _climb_dense(near, strength, strength.sum(), visit, labels)
    return labels, n_labels, quality


@njit(cache=True)
def climb_sparse(graph, strength, start):
    visit = np.empty(len(strength), np.int64)
    _shuffle(visit, start)
    return _climb_sparse(graph, strength, strength.sum(), visit, np.empty(widest_row(graph), np.int32))


@pytest.fixture(scope="session")
def kernels() -> SimpleNamespace:
    return SimpleNamespace(
        arrange=arrange,
        adjacency_matrix=adjacency_matrix,
        store_rows=store_rows,
        all_neighbours=all_neighbours,
        find_communities=find_communities,
        shuffled=shuffled,
        climb_dense=climb_dense,
        climb_sparse=climb_sparse,
    )
