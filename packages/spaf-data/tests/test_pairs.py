import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaf_data import InputError
from spaf_data.pairs import easy_negatives, hard_negatives, positive_pairs


def slides(n_cells: int, n_slides: int, seed: int, side: float = 400.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return coordinates on a lattice of 10 um (so that distances fall on the limits), slides and all distances."""
    rng = np.random.default_rng(seed)
    coordinates = np.round(rng.random((n_cells, 2)) * side, -1)
    slide = rng.choice([f"s{i}" for i in range(n_slides)], n_cells)
    distances = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=2)
    distances[slide[:, None] != slide[None]] = np.nan
    np.fill_diagonal(distances, np.nan)
    return coordinates, slide, distances


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 120), st.integers(1, 3), st.sampled_from([10.0, 30.0, 50.0]), st.integers(0, 9))
def test_positive_pairs_agree_with_all_distances(n_cells: int, n_slides: int, radius: float, seed: int) -> None:
    coordinates, slide, distances = slides(n_cells, n_slides, seed)
    expected = np.argwhere(np.triu(distances <= radius))
    np.testing.assert_array_equal(positive_pairs(coordinates, radius, slide=slide), expected.reshape(-1, 2))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 120), st.integers(1, 3), st.integers(1, 200), st.integers(0, 9))
def test_negatives_agree_with_all_distances(n_cells: int, n_slides: int, per_anchor: int, seed: int) -> None:
    coordinates, slide, distances = slides(n_cells, n_slides, seed)
    hard = hard_negatives(coordinates, 80.0, 150.0, per_anchor=per_anchor, seed=seed, slide=slide)
    easy = easy_negatives(coordinates, 150.0, per_anchor=per_anchor, seed=seed, slide=slide)
    for pairs, allowed in ((hard, (distances >= 80.0) & (distances <= 150.0)), (easy, distances > 150.0)):
        assert allowed[pairs[:, 0], pairs[:, 1]].all()
        assert len(np.unique(pairs, axis=0)) == len(pairs)
        np.testing.assert_array_equal(pairs, pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])
        drawn = np.bincount(pairs[:, 0], minlength=n_cells)
        np.testing.assert_array_equal(drawn, np.minimum(allowed.sum(axis=1), per_anchor))


def check_uniform(drawn: np.ndarray, candidates: np.ndarray) -> None:
    """Hold Pearson's statistic against its mean, the number of candidates, with a margin of 5 deviations."""
    counts = np.bincount(drawn, minlength=candidates.max() + 1)[candidates]
    assert counts.sum() == len(drawn)
    expected = len(drawn) / len(candidates)
    assert ((counts - expected) ** 2 / expected).sum() < len(candidates) + 5 * np.sqrt(2 * len(candidates))


def test_every_cell_that_may_be_drawn_is_drawn_equally_often() -> None:
    coordinates, _, distances = slides(150, 1, 0, side=300.0)
    # Copies of one slide far apart: the draws of one cell in each.
    copies = np.stack(np.divmod(np.arange(2000), 50), axis=1) * 1000.0
    many = (copies[:, None] + coordinates[None]).reshape(-1, 2)
    hard = hard_negatives(many, per_anchor=5, seed=1, anchors=np.arange(2000) * 150 + 7)
    assert len(hard) == 10_000
    check_uniform(hard[:, 1] % 150, np.flatnonzero((distances[7] >= 80) & (distances[7] <= 150)))
    easy = [easy_negatives(coordinates, 100.0, per_anchor=8, seed=seed, anchors=[7])[:, 1] for seed in range(500)]
    check_uniform(np.concatenate(easy), np.flatnonzero(distances[7] > 100))


def test_draws_depend_on_the_seed_and_on_nothing_else() -> None:
    coordinates, _, _ = slides(300, 1, 0)
    before = numba.get_num_threads()
    results = []
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            results.append((hard_negatives(coordinates, seed=4), easy_negatives(coordinates, seed=4)))
    finally:
        numba.set_num_threads(before)
    for one, many in zip(*results, strict=True):
        np.testing.assert_array_equal(one, many)
    assert not np.array_equal(hard_negatives(coordinates, seed=5), results[0][0])
    # The draws of an anchor are the same whichever other anchors there are.
    hard = results[0][0]
    np.testing.assert_array_equal(
        hard_negatives(coordinates, seed=4, anchors=[10, 3]), hard[np.isin(hard[:, 0], [3, 10])]
    )


def test_an_outlier_far_away_costs_no_memory() -> None:
    coordinates = np.concatenate([slides(100, 1, 0)[0], [[1e9, 1e9]]])
    pairs = hard_negatives(coordinates, per_anchor=200)
    np.testing.assert_array_equal(pairs, hard_negatives(coordinates[:-1], per_anchor=200))


def test_easy_negatives_are_found_when_nearly_all_cells_are_near() -> None:
    coordinates = np.concatenate([np.random.default_rng(0).random((3000, 2)), [[500.0, 0.0], [0.0, 500.0]]])
    pairs = easy_negatives(coordinates, per_anchor=2, anchors=[0, 3000])
    np.testing.assert_array_equal(pairs[:2], [[0, 3000], [0, 3001]])
    assert len(pairs) == 4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_coordinates_are_named(value: float) -> None:
    coordinates = np.zeros((5, 2))
    coordinates[3, 1] = value
    for function in (positive_pairs, hard_negatives, easy_negatives):
        with pytest.raises(InputError, match="cell 3 are not finite"):
            function(coordinates)
        with pytest.raises(InputError, match=r"\(n_cells, 2\)"):
            function(np.zeros(5))


def test_bad_options_are_named() -> None:
    coordinates = np.zeros((5, 2))
    with pytest.raises(InputError, match="radius"):
        positive_pairs(coordinates, 0.0)
    with pytest.raises(InputError, match="inner <= outer"):
        hard_negatives(coordinates, 80.0, 50.0)
    with pytest.raises(InputError, match="distance"):
        easy_negatives(coordinates, -1.0)
    for function in (hard_negatives, easy_negatives):
        with pytest.raises(InputError, match="per_anchor"):
            function(coordinates, per_anchor=0)
        with pytest.raises(InputError, match="no anchor 5: there are 5 cells"):
            function(coordinates, anchors=[0, 5])
    with pytest.raises(InputError, match="3 cells, but there are 5"):
        positive_pairs(coordinates, slide=["a"] * 3)
