"""Types around types: against loops, permutations and the published definitions written out."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from spaf_analysis.type_pairs import compute, count_types_around, l_statistic, of_donors


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    return rng.random((240, 2)) * 200, rng.integers(0, 4, 240), np.repeat([0, 1, 2], [100, 90, 50])


def brute(xy, code, image, n_types, radius):
    found = np.zeros((3, n_types, n_types))
    for i in range(len(xy)):
        for j in range(len(xy)):
            if i != j and image[i] == image[j] and np.linalg.norm(xy[i] - xy[j]) <= radius:
                found[image[i], code[i], code[j]] += 1
    return found


def test_counts_are_those_of_a_loop_whatever_is_done_at_once(cells, monkeypatch):
    expected = brute(*cells, 4, 25.0)
    np.testing.assert_array_equal(count_types_around(*cells, 4, radius=25.0).observed, expected)
    monkeypatch.setattr(compute, "_CELLS_AT_ONCE", 7)
    np.testing.assert_array_equal(count_types_around(*cells, 4, radius=25.0).observed, expected)


def test_the_expectation_is_what_permutations_come_to(cells):
    """The labels of all cells but one are exchanged, for each cell of a type in turn."""
    xy, code, _ = (part[:60] for part in cells)
    image, rng = np.zeros(60, dtype=int), np.random.default_rng(1)
    found = count_types_around(xy, code, image, 4, radius=40.0)
    near = (np.linalg.norm(xy[:, None] - xy[None], axis=2) <= 40) & ~np.eye(60, dtype=bool)
    total = np.zeros((4, 4))
    n_permutations = 400
    for _ in range(n_permutations):
        for cell in range(60):
            labels = code.copy()
            others = np.delete(np.arange(60), cell)
            labels[others] = rng.permutation(code[others])
            total[code[cell]] += np.bincount(labels[near[cell]], minlength=4)
    np.testing.assert_allclose(total / n_permutations, found.expected[0], rtol=0.03, atol=0.5)


def test_expected_and_observed_have_the_same_sums(cells):
    for options in ({"radius": 30.0}, {"n_neighbors": 6}):
        found = count_types_around(*cells, 4, **options)
        np.testing.assert_allclose(found.expected.sum(axis=2), found.observed.sum(axis=2))
    assert found.observed[0].sum() == 100 * 6


def test_nearest_neighbours_give_the_proportion_ratio(cells):
    """Mean share of a type among the k nearest of another, over its share of all cells (spicyR's getPairwiseProp)."""
    xy, code, image = cells
    found = count_types_around(xy, code, image, 4, n_neighbors=5)
    here = np.flatnonzero(image == 1)
    distance = np.linalg.norm(xy[here][:, None] - xy[here][None], axis=2)
    np.fill_diagonal(distance, np.inf)
    near = code[here][np.argsort(distance, axis=1)[:, :5]]
    for a in range(4):
        for b in range(4):
            share = (near[code[here] == a] == b).mean() / (code[here] == b).mean()
            sizes = found.sizes[1]
            ours = found.observed[1, a, b] / (5 * sizes[a]) / (sizes[b] / sizes.sum())
            assert ours == pytest.approx(share)
            # Ours leaves the cell itself out of what is expected, so it is larger by (n - 1) / n, or for a type
            # around itself by what one cell less makes.
            exact = found.observed[1, a, b] / found.expected[1, a, b]
            assert exact == pytest.approx(share * sizes[b] / sizes.sum() * (sizes.sum() - 1) / (sizes[b] - (a == b)))


def test_the_l_statistic_is_that_of_its_definition(cells):
    """Sum over radii of sqrt(K / pi) - r with K = area * pairs / (n_a n_b), in the convex hull."""
    xy, code, image = cells
    radii = [20.0, 50.0, 100.0]
    found = l_statistic([count_types_around(*cells, 4, radius=radius) for radius in radii], radii)
    for index in range(3):
        here = image == index
        area = ConvexHull(xy[here]).volume
        sizes = np.bincount(code[here], minlength=4)
        expected = np.zeros((4, 4))
        for radius in radii:
            pairs = brute(xy, code, image, 4, radius)[index]
            expected += np.sqrt(area * pairs / np.outer(sizes, sizes) / np.pi) - radius
        np.testing.assert_allclose(found[index], expected)


def test_images_of_a_donor_are_summed_and_too_little_is_no_value(cells):
    found = count_types_around(*cells, 4, radius=25.0)
    excess, observed, expected = of_donors(found, np.array([0, 0, 1]), 2, min_expected=5.0)
    np.testing.assert_allclose(observed[0], found.observed[:2].sum(axis=0))
    np.testing.assert_allclose(excess[0], found.observed[:2].sum(axis=0) / found.expected[:2].sum(axis=0) - 1)
    assert np.isnan(excess[1][expected[1] < 5]).all()
    assert np.isfinite(excess[1][expected[1] >= 5]).all()


def test_images_of_few_cells_have_no_area_and_no_expectation():
    xy, code = np.array([[0, 0], [0, 1], [5, 5.0]]), np.array([0, 1, 1])
    found = count_types_around(xy, code, np.array([0, 0, 1]), 2, radius=2.0)
    assert np.isnan(found.area).all()
    assert np.isnan(found.expected[1]).all()
    np.testing.assert_array_equal(found.expected[0], [[0, 1], [1, 0]])
    line = count_types_around(np.c_[np.arange(5.0), np.zeros(5)], np.zeros(5, int), np.zeros(5, int), 1, radius=2)
    assert np.isnan(line.area).all()
