import numpy as np
import pytest
import scipy.sparse as sp

from spaf_model.tissue import PearsonResiduals, closed_form, neighbour_graph, reach_of
from spaf_model.tissue.components import principal_components
from spaf_model.tissue.neighbours import has_neighbour, neighbour_mean


def grid(side: int, spacing: float) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * spacing


def hexagons(side: int, spacing: float) -> np.ndarray:
    x, y = np.meshgrid(np.arange(side, dtype=float), np.arange(side, dtype=float))
    x[1::2] += 0.5
    return np.stack([x * spacing, y * spacing * np.sqrt(0.75)], axis=-1).reshape(-1, 2)


@pytest.fixture
def places() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 200, (400, 2))


def test_cells_in_um_have_neighbours_within_30_um(places):
    reach = reach_of(places)
    assert (reach.radius, reach.nearest, reach.is_lattice) == (30.0, None, False)
    assert "within 30 um" in reach.reason


@pytest.mark.parametrize("pixel", [15.0, 0.001])  # a pixel of .065 um; mm
def test_cells_in_another_unit_have_their_ten_nearest(places, pixel):
    reach = reach_of(places * pixel)
    assert reach.nearest == 10
    assert "unit" in reach.reason
    graph = neighbour_graph(places * pixel, reach)
    assert set(np.diff(graph.indptr)) == {10}
    assert reach.radius == pytest.approx(pixel * reach_of(places, radius=1.0).radius * reach.radius / pixel)


@pytest.mark.parametrize(
    ("spots", "degree"), [(hexagons(20, 100.0), 6), (grid(20, 200.0), 4), (hexagons(20, 137.0), 6)]
)
def test_spots_have_those_beside_them(spots, degree):
    reach = reach_of(spots)
    assert reach.is_lattice
    assert reach.nearest is None
    assert int(np.median(np.diff(neighbour_graph(spots, reach).indptr))) == degree


def test_small_bins_are_cells_in_um():
    assert reach_of(grid(30, 8.0)).radius == 30.0


def test_a_radius_that_is_given_is_taken(places):
    assert reach_of(places, radius=12.5).radius == 12.5


def test_one_place_has_no_neighbours():
    assert reach_of(np.full((50, 2), 3.0)) is None
    assert reach_of(np.zeros((1, 2))) is None
    assert neighbour_graph(np.zeros((5, 2)), None).nnz == 0


@pytest.mark.parametrize("n_threads", [1, 2])
def test_graph_equals_all_distances(places, n_threads):
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    near = distances <= 30.03
    graph = neighbour_graph(places, reach_of(places), at_most=399, n_threads=n_threads)
    np.testing.assert_array_equal(graph.toarray() > 0, near)
    few = neighbour_graph(places, reach_of(places), at_most=5).toarray() > 0
    for cell in range(len(places)):
        nearest = np.argsort(distances[cell])[:5]
        assert set(np.flatnonzero(few[cell])) == set(nearest[near[cell, nearest]])


def test_cells_at_one_place_are_neighbours_and_none_is_its_own(places):
    places = np.concatenate([places, np.tile(places[:1], (60, 1))])
    graph = neighbour_graph(places, reach_of(places), at_most=30)
    assert not graph.diagonal().any()
    assert np.diff(graph.indptr).max() == 30


def test_mean_over_neighbours(places):
    graph = neighbour_graph(places, reach_of(places, radius=6.0))
    values = np.random.default_rng(1).standard_normal((400, 3)).astype(np.float32)
    mean = neighbour_mean(graph, values)
    kept = has_neighbour(graph)
    assert 0 < kept.sum() < 400
    assert not mean[~kept].any()
    cell = int(np.flatnonzero(kept)[3])
    np.testing.assert_allclose(mean[cell], values[graph[[cell]].indices].mean(axis=0), rtol=1e-5)


def slow_closed_form(slide, adjacency, k, n_place, ridge):
    whole = slide.rows(slice(None)).astype(np.float64)
    vectors, deviations = principal_components([slide], k)
    whitening = vectors / np.sqrt(deviations.astype(float) ** 2 + ridge * (deviations.astype(float) ** 2).mean())
    states = whole @ whitening
    kept = adjacency.any(axis=1)
    means = np.stack([states[row].mean(axis=0) if row.any() else 0 * states[0] for row in adjacency])
    covariance = states[kept].T @ means[kept] / kept.sum()
    values, eigenvectors = np.linalg.eigh((covariance + covariance.T) / 2)
    loadings = whitening @ (eigenvectors[:, ::-1][:, :n_place] * np.sqrt(values[::-1][:n_place]))
    return loadings / np.sqrt(((whole @ loadings) ** 2).mean())


def test_closed_form_equals_its_slow_twin(counts, slide):
    residuals = PearsonResiduals(counts)
    graph = neighbour_graph(slide.obsm["spatial"], reach_of(slide.obsm["spatial"]))
    found = closed_form([residuals], [graph], n_components=20, n_place=4)
    expected = slow_closed_form(residuals, graph.toarray() > 0, 20, 4, 0.5)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)
    largest = np.abs(found).argmax(axis=0)
    assert (found[largest, np.arange(4)] > 0).all()


def auroc_of_neighbours(states: np.ndarray, graph: sp.csr_array) -> float:
    states = states - states.mean(axis=0)
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    left, right = graph.tocoo().coords
    near = (states[left] * states[right]).sum(axis=1)
    order = np.random.default_rng(0).permutation(len(left))
    far = (states[left] * states[right[order]]).sum(axis=1)
    return float((near[:, None] > far[None, ::7]).mean())


def test_closed_form_finds_what_is_spatial_and_nothing_in_shuffled_places(simulated):
    train, test = simulated(1200, seed=1), simulated(800, seed=2)
    residuals, judged = (PearsonResiduals(sp.csr_array(one.X).astype(np.float32)) for one in (train, test))
    graph = neighbour_graph(test.obsm["spatial"], reach_of(test.obsm["spatial"]))
    scores = {}
    for name, places in {
        "true": train.obsm["spatial"],
        "shuffled": np.random.default_rng(0).permutation(train.obsm["spatial"]),
    }.items():
        loadings = closed_form([residuals], [neighbour_graph(places, reach_of(places))], n_place=5)
        scores[name] = auroc_of_neighbours(judged.project(loadings), graph)
    pca = auroc_of_neighbours(judged.project(principal_components([judged], 30)[0]), graph)
    assert scores["true"] > pca + 0.02
    assert scores["shuffled"] < scores["true"] - 0.04


def test_closed_form_leaves_out_what_neighbours_do_not_share(counts, slide):
    residuals = PearsonResiduals(counts)
    graph = neighbour_graph(slide.obsm["spatial"], reach_of(slide.obsm["spatial"]))
    loadings = closed_form([residuals], [graph], n_place=40)
    assert loadings.shape[1] < 40  # the other eigenvalues are negative
