from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from spaf_data.colocalization import louvain, modularity, proximity_graph


def slow_modularity(adjacency: np.ndarray, labels: np.ndarray) -> float:
    """Newman (2006), written as the sum over all pairs of nodes."""
    degree = adjacency.sum(axis=0)
    total = degree.sum()
    same = labels[:, None] == labels[None]
    return float(((adjacency - np.outer(degree, degree) / total) * same).sum() / total)


def slow_louvain(adjacency: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Textbook Louvain on a dense weighted matrix, in random order, trying every community."""
    n = len(adjacency)
    labels = np.arange(n)
    improved = True
    while improved:
        improved = False
        for i in rng.permutation(n):
            trials = np.unique(labels[adjacency[i] > 0])
            scores = []
            for c in [labels[i], *trials]:
                trial = labels.copy()
                trial[i] = c
                scores.append(slow_modularity(adjacency, trial))
            best = int(np.argmax(scores))
            if scores[best] > scores[0] + 1e-12:
                labels[i] = [labels[i], *trials][best]
                improved = True
    _, labels = np.unique(labels, return_inverse=True)
    if labels.max() + 1 == n:
        return labels
    member = np.eye(labels.max() + 1)[labels]
    return slow_louvain(member.T @ adjacency @ member, rng)[labels]


def as_sets(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == c).tolist()) for c in np.unique(labels)}


def ring_of_cliques(n_cliques: int, size: int) -> np.ndarray:
    adjacency = np.kron(np.eye(n_cliques), 1 - np.eye(size))
    for c in range(n_cliques):
        i, j = c * size, ((c + 1) % n_cliques) * size + 1
        adjacency[i, j] = adjacency[j, i] = 1
    return adjacency


@pytest.mark.parametrize(("n_cliques", "size"), [(2, 6), (5, 5), (8, 4)])
def test_ring_of_cliques(n_cliques: int, size: int) -> None:
    adjacency = ring_of_cliques(n_cliques, size)
    labels = louvain(sparse.csr_array(adjacency))
    assert as_sets(labels) == {frozenset(range(c * size, (c + 1) * size)) for c in range(n_cliques)}


def test_nodes_without_edges_stay_alone() -> None:
    assert len(as_sets(louvain(sparse.csr_array((4, 4))))) == 4
    assert louvain(sparse.csr_array((0, 0))).shape == (0,)


def test_modularity_agrees_with_the_sum_over_pairs() -> None:
    rng = np.random.default_rng(0)
    adjacency = proximity_graph(rng.uniform(0, 15, (80, 2))).toarray().astype(float)
    for n in (1, 3, 80):
        labels = rng.integers(0, n, 80)
        assert modularity(sparse.csr_array(adjacency), labels) == pytest.approx(slow_modularity(adjacency, labels))
    assert modularity(sparse.csr_array((3, 3)), np.zeros(3, int)) == 0.0


def test_at_least_as_good_as_textbook_louvain() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        graph = proximity_graph(rng.uniform(0, [25, 15, 4], (40 + 10 * seed, 3)))
        textbook = slow_louvain(graph.toarray().astype(float), rng)
        assert modularity(graph, louvain(graph)) >= 0.99 * modularity(graph, textbook)


def test_no_node_and_no_merge_can_improve() -> None:
    graph = proximity_graph(np.random.default_rng(1).uniform(0, 20, (60, 2)))
    labels = louvain(graph)
    dense = graph.toarray().astype(float)
    best = slow_modularity(dense, labels)
    for i in range(60):
        for c in np.unique(labels):
            moved = labels.copy()
            moved[i] = c
            assert slow_modularity(dense, moved) <= best + 1e-12
    for c in np.unique(labels):
        for d in np.unique(labels):
            assert slow_modularity(dense, np.where(labels == c, d, labels)) <= best + 1e-12


def test_moves_without_a_table_of_links_reach_a_like_modularity(kernels: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    x, y, z = (rng.uniform(0, 60, 600).astype(np.float32) for _ in range(3))
    _, graph, degree = kernels.build_graph(x, y, np.zeros_like(z), np.zeros(600, np.int32), 5.0, 1 << 20)
    adjacency = sparse.csr_array((np.ones(len(graph.indices)), graph.indices, graph.indptr), shape=(600, 600))
    found = {}
    for max_links in (0, 1 << 20):
        labels, n_labels, quality = kernels.climb(graph, degree, max_links)
        assert n_labels == labels.max() + 1
        assert quality / degree.sum() ** 2 == pytest.approx(modularity(adjacency, labels))
        found[max_links] = modularity(adjacency, labels)
    assert found[0] == pytest.approx(found[1 << 20], rel=0.02)


def test_searched_rows_give_the_same_communities(kernels: SimpleNamespace) -> None:
    rng = np.random.default_rng(2)
    x, y, z = (rng.uniform(0, 25, 300).astype(np.float32) for _ in range(3))
    partitions = []
    for max_stored in (0, 1 << 20):
        _, graph, degree = kernels.build_graph(x, y, z, np.zeros(300, np.int32), 5.0, max_stored)
        partitions.append(kernels.find_communities(graph, degree)[0])
    assert np.array_equal(*partitions)
