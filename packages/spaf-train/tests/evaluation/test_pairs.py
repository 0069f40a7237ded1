import numpy as np
import pytest

from spaf_train.evaluation import matched_pairs


@pytest.fixture
def cells():
    return np.random.default_rng(0).random((600, 2)) * 500


def distances(xy, pairs, partner):
    return np.linalg.norm(xy[pairs.anchor] - xy[partner], axis=1)


def test_distances_are_what_they_are_called(cells):
    cells = cells.astype(np.float32).astype(np.float64)  # as a corpus holds them
    pairs = matched_pairs(cells, max_pairs=300)
    np.testing.assert_allclose(distances(cells, pairs, pairs.neighbour), pairs.distance)
    assert pairs.distance.max() <= 50
    hard, easy = (distances(cells, pairs, partner) for partner in (pairs.hard, pairs.easy))
    assert ((hard >= 80) & (hard <= 150)).all()
    assert (easy > 150).all()


def test_places_from_a_corpus_give_the_pairs_of_the_table_it_was_made_from(cells):
    ours, theirs = (matched_pairs(places, max_pairs=300, seed=2) for places in (cells, cells.astype(np.float32)))
    for name in ("anchor", "neighbour", "hard", "easy", "distance"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_every_radius_gets_its_number_of_pairs(cells):
    pairs = matched_pairs(cells, radii=(20.0, 50.0), max_pairs=100)
    all_distances = np.linalg.norm(cells[:, None] - cells[None], axis=-1)
    available = int((all_distances[np.triu_indices(600, 1)] <= 20).sum())
    assert len(pairs.rows(20.0, "easy")) == min(100, available) == 100
    assert len(pairs.rows(50.0, "hard")) == 100
    assert (pairs.distance[pairs.rows(20.0, "easy")] <= 20).all()
    every = matched_pairs(cells, radii=(20.0,), max_pairs=10**6)
    assert len(every) == available
    assert len({frozenset(pair) for pair in zip(every.anchor, every.neighbour, strict=True)}) == available


def test_pairs_do_not_depend_on_the_order_of_cells(cells):
    order = np.random.default_rng(1).permutation(len(cells))
    first, second = matched_pairs(cells, max_pairs=200), matched_pairs(cells[order], max_pairs=200)
    for name in ("anchor", "neighbour", "hard", "easy"):
        np.testing.assert_array_equal(getattr(first, name), order[getattr(second, name)])


def test_another_seed_draws_other_pairs(cells):
    first, second = (matched_pairs(cells, max_pairs=50, seed=seed) for seed in (0, 1))
    assert not np.array_equal(first.anchor, second.anchor)


def test_pairs_never_span_slides(cells):
    slide = np.random.default_rng(2).choice(["a", "b"], len(cells))
    pairs = matched_pairs(cells, slide, max_pairs=500)
    for partner in (pairs.neighbour, pairs.hard, pairs.easy):
        exists = partner >= 0
        assert exists.any()
        assert (slide[pairs.anchor[exists]] == slide[partner[exists]]).all()


def test_a_negative_is_dealt_once_to_an_anchor(cells):
    pairs = matched_pairs(cells, max_pairs=10**6)
    for partner in (pairs.hard, pairs.easy):
        dealt = [pair for pair in zip(pairs.anchor, partner, strict=True) if pair[1] >= 0]
        assert len(dealt) == len(set(dealt))


def test_small_region_has_no_easy_negatives():
    xy = np.random.default_rng(0).random((50, 2)) * 100
    pairs = matched_pairs(xy)
    assert len(pairs) > 0
    assert (pairs.easy == -1).all()
    assert len(pairs.rows(50.0, "easy")) == 0


def test_cells_without_neighbours_make_no_pairs():
    assert len(matched_pairs(np.arange(10.0)[:, None] * np.array([[1_000.0, 0.0]]))) == 0
