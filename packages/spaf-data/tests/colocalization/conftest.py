from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from numba import njit

from spaf_data import Transcripts
from spaf_data.colocalization.communities import pairs_of_labels as _pairs_of_labels
from spaf_data.colocalization.dense_louvain import climb_dense as _climb_dense
from spaf_data.colocalization.graph import adjacency_matrix as _adjacency_matrix
from spaf_data.colocalization.graph import arrange as _arrange
from spaf_data.colocalization.graph import neighbours, widest_row
from spaf_data.colocalization.graph import store_rows as _store_rows
from spaf_data.colocalization.louvain import _shuffled
from spaf_data.colocalization.louvain import find_communities as _find_communities
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


# Kernels that other kernels call are called from Python through these: see the note in graph.py.


@njit(cache=True)
def arrange(x, y, z, gene, radius):
    return _arrange(x, y, z, gene, radius)


@njit(cache=True)
def adjacency_matrix(graph):
    return _adjacency_matrix(graph)


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
def find_communities(graph, max_dense, max_stored):
    return _find_communities(graph, max_dense, max_stored)


@njit(cache=True)
def shuffled(n, seed):
    return _shuffled(n, seed)


@njit(cache=True)
def climb_dense(near, strength, start):
    return _climb_dense(near, strength, strength.sum(), _shuffled(len(near), start))


@njit(cache=True)
def climb_sparse(graph, strength, start):
    visit = _shuffled(len(strength), start)
    return _climb_sparse(graph, strength, strength.sum(), visit, np.empty(widest_row(graph), np.int32))


@njit(cache=True)
def pairs_of_labels(gene, labels, n_labels, min_transcripts, n_known, gene_count):
    return _pairs_of_labels(gene, labels, n_labels, min_transcripts, n_known, gene_count)


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
        pairs_of_labels=pairs_of_labels,
    )
