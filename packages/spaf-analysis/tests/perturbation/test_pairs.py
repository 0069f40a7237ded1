"""Which pairs of cells are chosen."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from spaf_analysis.perturbation import matched_pairs


@pytest.fixture
def cells():
    rng = np.random.default_rng(1)
    xy = rng.random((900, 2)) * 700
    of_type = rng.integers(0, 2, 900)
    return xy, np.repeat(["s", "t"], 450), of_type == 0, of_type == 1, rng.random((900, 20)) < 0.4


OPTIONS = {"near": 30.0, "far": 80.0, "tile": 240.0, "max_pairs": 1000}


@pytest.mark.parametrize("one_type", [False, True])
def test_pairs_are_of_the_types_the_distances_one_tile_and_disjoint(cells, one_type):
    xy, slide, is_left, is_right, genes = cells
    if one_type:
        is_right = is_left
    pairs = matched_pairs(xy, slide, is_left, is_right, genes, **OPTIONS)
    apart = np.linalg.norm(xy[pairs.left] - xy[pairs.right], axis=1)
    assert pairs.near.sum() == (~pairs.near).sum() > 20
    assert (apart[pairs.near] <= 30).all()
    assert (apart[~pairs.near] >= 80).all()
    assert is_left[pairs.left].all()
    assert is_right[pairs.right].all()
    assert (slide[pairs.left] == slide[pairs.right]).all()
    tile = np.floor(xy / 240)
    assert (tile[pairs.left] == tile[pairs.right]).all()
    every = np.concatenate([pairs.left, pairs.right])
    assert len(np.unique(every)) == len(every)
    for one in np.unique(pairs.stratum):
        own = pairs.stratum == one
        assert len(np.unique(np.c_[slide[pairs.left[own]], tile[pairs.left[own]].astype(str)], axis=0)) == 1
        assert pairs.near[own].sum() == (~pairs.near[own]).sum()


def test_near_and_far_pairs_have_as_many_genes(cells):
    # Were far cells searched for by likeness, they would be those of many genes.
    xy, slide, is_left, is_right, genes = cells
    n_genes = genes.sum(axis=1)
    means = []
    for seed in range(20):
        pairs = matched_pairs(xy, slide, is_left, is_right, genes, **OPTIONS, seed=seed)
        means.append(n_genes[pairs.left[pairs.near]].mean() - n_genes[pairs.left[~pairs.near]].mean())
    assert abs(np.mean(means)) < 0.25


def test_matches_are_more_alike_than_chance_and_few_are_drawn_at_random(cells):
    xy, slide, is_left, is_right, genes = cells
    pairs = matched_pairs(xy, slide, is_left, is_right, genes, **OPTIONS)
    chance = 1 - cdist(genes, genes, "jaccard")
    assert pairs.similarity.mean() > chance.mean() + 0.03
    few = matched_pairs(xy, slide, is_left, is_right, genes, **{**OPTIONS, "max_pairs": 7})
    assert few.near.sum() == 7
    again = matched_pairs(xy, slide, is_left, is_right, genes, **{**OPTIONS, "max_pairs": 7})
    np.testing.assert_array_equal(few.left, again.left)


def test_cells_that_are_not_there_make_no_pairs(cells):
    xy, slide, is_left, _, genes = cells
    assert len(matched_pairs(xy, slide, is_left, np.zeros(900, dtype=bool), genes, **OPTIONS)) == 0


@pytest.mark.parametrize("in_one_place", [False, True])
def test_shuffled_rows_give_the_same_pairs(cells, in_one_place):
    xy, slide, is_left, is_right, genes = cells
    if in_one_place:
        xy = np.floor(xy / 20) * 20
    names = np.array([f"c{i}" for i in range(900)])
    rows = np.random.default_rng(5).permutation(900)
    few = {**OPTIONS, "max_pairs": 40}
    pairs = matched_pairs(xy, slide, is_left, is_right, genes, **few, names=names)
    again = matched_pairs(xy[rows], slide[rows], is_left[rows], is_right[rows], genes[rows], **few, names=names[rows])
    assert len(pairs) == 80
    np.testing.assert_array_equal(names[pairs.left], names[rows][again.left])
    np.testing.assert_array_equal(names[pairs.right], names[rows][again.right])
    np.testing.assert_array_equal(pairs.similarity, again.similarity)
