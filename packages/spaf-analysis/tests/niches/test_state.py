"""The state of a cell with its neighbours', against means written out."""

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial import cKDTree

from spaf_analysis.niches.state import expression_components, niche_state
from spaf_model import averaging_weights


def test_weights_are_the_mean_of_the_nearest_and_the_cell_itself():
    xy = np.random.default_rng(0).random((200, 2)) * 100
    weights = averaging_weights(xy, n_neighbors=5).toarray()
    for cell in (0, 17, 199):
        near = np.argsort(np.linalg.norm(xy - xy[cell], axis=1))[:6]
        expected = np.zeros(200)
        expected[near] = 1 / 6
        np.testing.assert_allclose(weights[cell], expected, atol=1e-7)


def test_cells_beyond_the_radius_do_not_count():
    xy = np.random.default_rng(1).random((300, 2)) * 100
    weights = averaging_weights(xy, n_neighbors=15, radius=6.0)
    near = cKDTree(xy).query_ball_point(xy, 6.0)
    assert np.diff(weights.indptr).tolist() == [min(len(cells), 16) for cells in near]
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)


def test_spots_on_a_grid_have_whole_rings():
    column, row = np.meshgrid(np.arange(12), np.arange(12))
    hexagonal = np.c_[(column + 0.5 * (row % 2)).ravel(), row.ravel() * np.sqrt(3) / 2] * 100
    square = np.c_[column.ravel(), row.ravel()] * 200.0
    inside = 5 * 12 + 6
    assert np.diff(averaging_weights(hexagonal).indptr)[inside] == 19
    assert np.diff(averaging_weights(square).indptr)[inside] == 21


def test_cells_at_one_place_keep_themselves():
    weights = averaging_weights(np.zeros((40, 2)), n_neighbors=3)
    assert (weights.diagonal() > 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)


def test_scales_are_repeated_means_of_each_slide_alone():
    rng = np.random.default_rng(2)
    xy, state = rng.random((120, 2)) * 50, rng.normal(size=(120, 4)) + np.repeat([0, 5], 60)[:, None]
    slide = np.repeat(["a", "b"], 60)
    found = niche_state([state], xy, slide, n_neighbors=4, scales=(0, 2))
    spread = np.sqrt(((state - state.mean(axis=0)) ** 2).sum(axis=1).mean())
    for name in ("a", "b"):
        cells = np.flatnonzero(slide == name)
        own = (state[cells] - state[cells].mean(axis=0)) / spread
        mean = np.linalg.matrix_power(averaging_weights(xy[cells], n_neighbors=4).toarray(), 2) @ own
        expected = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (own, mean)]
        np.testing.assert_allclose(found[cells], np.hstack(expected), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found[:, :4], axis=1), 1, atol=1e-5)


def test_states_weigh_the_same_whatever_their_units():
    rng = np.random.default_rng(3)
    xy, one, other = rng.random((80, 2)), rng.normal(size=(80, 3)), rng.normal(size=(80, 2))
    slide = np.full(80, "")
    found = niche_state([one, other], xy, slide)
    np.testing.assert_allclose(found, niche_state([one * 1000, other + 7], xy, slide), atol=1e-4)


def test_components_of_expression_find_what_varies_and_not_the_slide(monkeypatch):
    rng = np.random.default_rng(4)
    kind, slide = rng.integers(0, 2, 400), np.repeat(["a", "b"], 200)
    rates = np.where(kind[:, None] == 1, [9, 9, 1, 1, 4, 4], [1, 1, 9, 9, 4, 4]) * np.where(slide == "a", 1, 3)[:, None]
    counts = sparse.csr_matrix(rng.poisson(rates))
    for components in expression_components(counts, slide, n_components=3):
        assert components.shape == (400, 3)
        assert abs(np.corrcoef(components[:, 0], kind)[0, 1]) > 0.85
        assert abs(np.corrcoef(components[:, 0], slide == "a")[0, 1]) < 0.2
    whole = expression_components(counts, slide)[0]
    monkeypatch.setattr("spaf_analysis.niches.state._CHUNK", 60)
    np.testing.assert_allclose(np.abs(expression_components(counts, slide)[0]), np.abs(whole), atol=1e-8)


def test_components_of_logs_are_those_of_a_dense_twin():
    rng = np.random.default_rng(5)
    counts = rng.poisson(rng.gamma(1, 3, (150, 8)))
    logs = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    scores = (logs - logs.mean(axis=0)) / logs.std(axis=0)
    left, size, _ = np.linalg.svd(scores, full_matrices=False)
    found = expression_components(sparse.csr_matrix(counts), np.full(150, ""), n_components=3)[0]
    np.testing.assert_allclose(np.abs(found), np.abs(left[:, :3] * size[:3]), atol=1e-6)
    assert pytest.approx(0, abs=1e-8) == found.mean()
