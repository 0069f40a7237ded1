"""Metrics of integration against their definitions, and against scib-metrics where it is installed."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

from spaf_analysis.integrate.judging import _batch_share, _weighted_mean
from spaf_analysis.integrate.neighbours import LISI_NEIGHBORS, CellGraph, cilisi, lisi, lisi_of
from spaf_analysis.integrate.scores import silhouettes


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    label, batch = rng.integers(3, size=300), rng.integers(2, size=300)
    label[batch == 1] = np.minimum(label[batch == 1], 1)  # label 2 is in one batch alone
    return 2 * np.eye(3)[label] + 0.5 * batch[:, None] + rng.normal(0, 0.6, (300, 3)), batch, label


def test_nearest_cells_are_exact(cells):
    graph = CellGraph.of(cells[0])
    expected = NearestNeighbors(n_neighbors=14).fit(cells[0]).kneighbors(return_distance=False)
    assert all(set(one) == set(other) for one, other in zip(graph.nearest, expected, strict=True))
    purity = [(cells[2][expected[cell]] == cells[2][cell]).mean() for cell in range(300)]
    np.testing.assert_allclose(graph.purity(cells[2]), purity)


def test_main_components(cells):
    embedding = cells[0].copy()
    label = np.zeros(300, dtype=int)
    embedding[:100] += 100  # one label in two places
    found = CellGraph.of(embedding).in_main_component(label)
    assert not found[:100].any()
    assert found[100:].sum() >= 195  # a cell at the edge is nobody's nearest


def test_lisi_counts_effective_batches():
    rng = np.random.default_rng(1)
    batch = rng.integers(4, size=2_000)
    mixed = rng.normal(size=(2_000, 3))
    assert np.median(lisi(mixed, batch)) == pytest.approx(3.5, abs=0.15)  # of 4, by some 27 effective neighbours
    apart = mixed + 100 * batch[:, None]
    np.testing.assert_allclose(lisi(apart, batch), 1, atol=1e-6)
    assert (lisi(mixed, np.where(batch == 0, 0, 1)) < 2 + 1e-9).all()


def test_lisi_weights_have_the_perplexity():
    rng = np.random.default_rng(2)
    distance = np.sort(rng.gamma(5, 1, (50, 90)), axis=1)
    # Each neighbour a batch of its own: the index is that of the weights, and bounded by their number.
    found = lisi_of(distance, np.tile(np.arange(90), (50, 1)), 90, perplexity=30)
    assert ((found > 10) & (found <= 31)).all()


def test_cilisi_is_within_labels(cells):
    embedding, batch, label = cells
    found = cilisi(embedding, batch, label)
    assert np.isnan(found[label == 2]).all()
    assert np.isfinite(found[label < 2]).all()
    assert ((found[label < 2] > -1e-9) & (found[label < 2] <= 1 + 1e-9)).all()
    one = label == 0
    np.testing.assert_allclose(found[one], lisi(embedding[one], batch[one]) - 1)
    few = np.where(np.arange(300) < 5, 0, 1)
    assert np.isnan(cilisi(embedding, batch, few)[:5]).all()


def test_the_share_of_batches_is_principal_component_regression(cells):
    embedding, batch, _ = cells
    batch = np.where(np.arange(300) % 7 == 0, 2, batch)
    draws = np.vstack([np.ones(300), np.random.default_rng(0).multinomial(300, np.full(300, 1 / 300), 2)])
    found = _batch_share(embedding, batch, np.arange(300), draws)
    for weights, value in zip(draws.astype(int), found, strict=True):
        rows = np.repeat(np.arange(300), weights)
        some = embedding[rows] - embedding[rows].mean(axis=0)
        left, size, _ = np.linalg.svd(some, full_matrices=False)
        parts, one_hot = left * size, np.eye(3)[batch[rows]]
        r2 = [LinearRegression().fit(one_hot, parts[:, [j]]).score(one_hot, parts[:, [j]]) for j in range(3)]
        assert value == pytest.approx(np.average(r2, weights=size**2))


def test_means_of_groups_on_draws_are_those_of_repeated_cells():
    rng = np.random.default_rng(3)
    value, group, unit = rng.random(40), rng.integers(-1, 3, 40), rng.integers(0, 8, 40)
    value[4] = np.nan
    draws = np.vstack([np.ones(8), rng.multinomial(8, np.full(8, 1 / 8), 3)])
    found = _weighted_mean(value, group, unit, draws)
    for weights, mean in zip(draws.astype(int), found, strict=True):
        rows = np.repeat(np.arange(40), weights[unit])
        means = [np.nanmean(value[rows][group[rows] == g]) for g in range(3) if (group[rows] == g).any()]
        assert mean == pytest.approx(np.mean(means))


def test_silhouettes_are_those_of_scib(cells):
    embedding, batch, label = cells
    of_label, of_batch, isolated = silhouettes(embedding, batch, label)
    assert of_label.mean() == pytest.approx((silhouette_score(embedding, label) + 1) / 2)
    assert np.isnan(of_batch[label == 2]).all()
    np.testing.assert_array_equal(np.isfinite(isolated), label == 2)


def test_equal_to_scib_metrics(cells):
    pytest.importorskip("scib_metrics")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of jax and of libraries that it brings
        import scib_metrics
        from scib_metrics.nearest_neighbors import NeighborsResults

        embedding, batch, label = cells
        search = NearestNeighbors(n_neighbors=15).fit(embedding)
        distance, found = search.kneighbors(embedding)
        graph = CellGraph.of(embedding)
        of_label, of_batch, isolated = silhouettes(embedding, batch, label)
        connectivity = np.mean([graph.in_main_component(label)[label == code].mean() for code in range(3)])
        expected = scib_metrics.graph_connectivity(NeighborsResults(indices=found, distances=distance), label)
        assert connectivity == pytest.approx(expected, abs=1e-6)
        assert of_label.mean() == pytest.approx(scib_metrics.silhouette_label(embedding, label), abs=1e-4)
        means = [np.nanmean(of_batch[label == code]) for code in range(2)]
        assert np.mean(means) == pytest.approx(scib_metrics.silhouette_batch(embedding, label, batch), abs=1e-4)
        assert np.nanmean(isolated) == pytest.approx(scib_metrics.isolated_labels(embedding, label, batch), abs=1e-4)
        share = _batch_share(embedding, batch, np.arange(300), np.ones((1, 300)))[0]
        theirs = scib_metrics.utils.principal_component_regression(embedding, batch, categorical=True)
        assert share == pytest.approx(theirs, abs=1e-3)
        distance, found = NearestNeighbors(n_neighbors=LISI_NEIGHBORS).fit(embedding).kneighbors()
        theirs = scib_metrics.lisi_knn(NeighborsResults(indices=found, distances=distance), batch, perplexity=30)
        np.testing.assert_allclose(lisi(embedding, batch), np.asarray(theirs), atol=0.01)
        ilisi = scib_metrics.ilisi_knn(NeighborsResults(indices=found, distances=distance), batch, perplexity=30)
        assert np.median(lisi(embedding, batch)) - 1 == pytest.approx(float(ilisi), abs=0.01)


def test_cells_that_are_all_the_same_warn_of_nothing_and_are_not_their_own_neighbours():
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(80, 3))
    embedding[:40] = embedding[0]  # more than neighbours are searched
    graph = CellGraph.of(embedding)
    assert graph.nearest.shape == (80, 14)
    assert not (graph.nearest == np.arange(80)[:, None]).any()
    distance = np.linalg.norm(embedding[:, None] - embedding[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    found = np.take_along_axis(distance, graph.nearest, axis=1)
    np.testing.assert_allclose(found, np.sort(distance, axis=1)[:, :14], atol=1e-7)
