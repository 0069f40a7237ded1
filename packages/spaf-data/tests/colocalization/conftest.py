from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from numba import njit

from spaf_data import Transcripts
from spaf_data.colocalization.communities import pairs_of_labels as _pairs_of_labels
from spaf_data.colocalization.graph import build_graph as _build_graph
from spaf_data.colocalization.graph import neighbours, widest_row
from spaf_data.colocalization.louvain import _climb, _shuffled
from spaf_data.colocalization.louvain import find_communities as _find_communities


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
def build_graph(x, y, z, gene, radius, max_stored):
    return _build_graph(x, y, z, gene, radius, max_stored)


@njit(cache=True)
def all_neighbours(of_graph):
    buffer = np.empty(widest_row(of_graph), np.int32)
    rows = []
    for i in range(len(of_graph.x)):
        row, start, stop = neighbours(of_graph, i, buffer)
        rows.append(row[start:stop].copy())
    return rows


@njit(cache=True)
def find_communities(of_graph, degree):
    return _find_communities(of_graph, degree)


@njit(cache=True)
def climb(of_graph, degree, max_links):
    strength = degree.astype(np.float64)
    visit = _shuffled(len(degree), 0)
    return _climb(of_graph, strength, strength.sum(), visit, np.empty(0, np.int32), max_links)


@njit(cache=True)
def pairs_of_labels(gene, labels, n_labels, min_transcripts, n_known, gene_count):
    return _pairs_of_labels(gene, labels, n_labels, min_transcripts, n_known, gene_count)


@pytest.fixture(scope="session")
def kernels() -> SimpleNamespace:
    return SimpleNamespace(
        build_graph=build_graph,
        all_neighbours=all_neighbours,
        find_communities=find_communities,
        climb=climb,
        pairs_of_labels=pairs_of_labels,
    )
