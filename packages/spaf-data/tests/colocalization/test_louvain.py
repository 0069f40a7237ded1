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


def slow_climb(near: np.ndarray, visit: np.ndarray) -> np.ndarray:
    """The moves of `climb_dense`, with every gain counted anew."""
    strength = near.sum(axis=0)
    total = int(strength.sum())

    def gain(node: np.ndarray, labels: np.ndarray, c: int) -> int:
        others = (labels == c) & ~node
        return int(near[node][:, others].sum()) * total - int(strength[node].sum()) * int(strength[others].sum())

    def better(node: np.ndarray, labels: np.ndarray) -> int:
        own = labels[node][0]
        linked = [c for c in np.unique(labels) if c != own and near[node][:, (labels == c) & ~node].any()]
        best = max(linked, key=lambda c: (gain(node, labels, c), -c), default=own)
        return best if best != own and gain(node, labels, best) > gain(node, labels, own) else own

    n = len(near)
    labels = np.full(n, -1)
    for i in visit:
        if labels[i] < 0:
            labels[(near[i] & (labels < 0)) | (np.arange(n) == i)] = labels.max() + 1
    merged = True
    while merged:
        moved = True
        while moved:
            moved = False
            wanted = [better(np.arange(n) == i, labels) != labels[i] for i in range(n)]
            for i in visit[np.array(wanted)[visit]]:
                best = better(np.arange(n) == i, labels)
                moved |= best != labels[i]
                labels[i] = best
        merged = False
        moved = True
        groups = np.unique(labels, return_inverse=True)[1]
        members = [groups == c for c in range(groups.max() + 1)]
        labels = groups.copy()
        while moved:
            moved = False
            for c in members:
                best = better(c, labels)
                moved |= best != labels[c][0]
                labels[c] = best
            merged |= moved
    return labels


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_dense_moves_are_those_of_a_slow_twin(kernels: SimpleNamespace, dtype: type) -> None:
    for seed in range(24):
        rng = np.random.default_rng(seed)
        size = [[18, 12, 5], [30, 20, 5]][seed % 2]  # dense ones, and sparse ones that leave communities empty
        graph = proximity_graph(rng.uniform(0, size, (30 + 2 * seed, 3)))
        near = graph.toarray() != 0
        near = near[np.ix_(near.any(axis=0), near.any(axis=0))]
        labels, n_labels, quality = kernels.climb_dense(near.astype(np.uint8), near.sum(axis=0).astype(dtype), seed)
        visit = kernels.shuffled(len(near), seed)
        assert sorted(visit) == list(range(len(near)))
        assert as_sets(labels) == as_sets(slow_climb(near, visit))
        assert n_labels == labels.max() + 1 == len(np.unique(labels))
        assert quality / near.sum() ** 2 == pytest.approx(slow_modularity(near.astype(float), labels))


@pytest.mark.parametrize("max_stored", [0, 1 << 20])
def test_moves_over_lists_of_neighbours_reach_a_like_modularity(kernels: SimpleNamespace, max_stored: int) -> None:
    rng = np.random.default_rng(0)
    x, y, z = (rng.uniform(0, 60, 600).astype(np.float32) for _ in range(3))
    _, graph = kernels.arrange(x, y, np.zeros_like(z), np.zeros(600, np.int32), 5.0)
    near = sparse.csr_array(kernels.adjacency_matrix(graph).astype(float))
    strength = near.sum(axis=0)
    stored, degree = kernels.store_rows(graph, max_stored)
    assert np.array_equal(degree, strength)
    labels, n_labels, quality = kernels.climb_sparse(stored, strength, 0)
    assert n_labels == labels.max() + 1
    assert quality / strength.sum() ** 2 == pytest.approx(modularity(near, labels))
    dense, _, _ = kernels.climb_dense(near.toarray().astype(np.uint8), strength.astype(np.int64), 0)
    assert modularity(near, labels) == pytest.approx(modularity(near, dense), rel=0.02)


def test_gains_beyond_32_bits() -> None:
    # Two cliques of 700 nodes: a gain of 700 links times 978,600 ends of edges does not fit.
    near = sparse.block_diag([1 - np.eye(700, dtype=np.int8)] * 2, format="csr")
    assert as_sets(louvain(near)) == {frozenset(range(700)), frozenset(range(700, 1400))}


def test_graphs_too_large_for_a_matrix(kernels: SimpleNamespace) -> None:
    rng = np.random.default_rng(2)
    x, y, z = (rng.uniform(0, 25, 300).astype(np.float32) for _ in range(3))
    x[:3] = [100.0, 110.0, 120.0]  # without an edge
    _, graph = kernels.arrange(x, y, z, np.zeros(300, np.int32), 5.0)
    near = sparse.csr_array(kernels.adjacency_matrix(graph).astype(float))
    found = {
        (max_dense, max_stored): kernels.find_communities(graph, max_dense, max_stored)
        for max_dense, max_stored in ((300, 0), (0, 0), (0, 1 << 20))
    }
    assert np.array_equal(found[0, 0][0], found[0, 1 << 20][0])
    best = modularity(near, found[300, 0][0])
    for labels, n_labels in found.values():
        assert n_labels == len(np.unique(labels)) == labels.max() + 1
        for alone in np.flatnonzero(near.sum(axis=0) == 0):
            assert (labels == labels[alone]).sum() == 1
        assert modularity(near, labels) == pytest.approx(best, rel=0.01)
