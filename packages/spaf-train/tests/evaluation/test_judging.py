"""The judge of cell pairs gives the same figures from wherever the cells come."""

import numpy as np
import pandas as pd
import pytest

from spaf_data import Distances
from spaf_train.evaluation import (
    BASELINES,
    EvaluationOptions,
    PlacedCells,
    cells_in_pairs,
    centred_cosine,
    centring_cells,
    drawn_tissue,
    judge_cell_pairs,
    judged_pairs,
    pair_network,
    read_cells,
    read_tissue,
)

OPTIONS = EvaluationOptions(max_pairs=50, n_replicates=20, radii=(20.0, 30.0))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(pair_network, "_MAX_EPOCHS", 3)


def regions(tissue, order=None):
    """Held-out and training cells of a tissue, in an order of their own."""
    order = np.arange(tissue.n_obs) if order is None else order
    split = tissue.obs["split"].to_numpy()[order]
    return [
        PlacedCells.of(tissue.X[order[split == part]], tissue.obsm["spatial"][order[split == part]])
        for part in ("validation", "train")
    ]


def judged(tissue, order=None):
    held_out, fitted = regions(tissue, order)
    embedding = np.log1p(held_out.counts.toarray())
    scores = {"mine": centred_cosine(embedding, np.log1p(fitted.counts.toarray()).mean(axis=0))}
    return judge_cell_pairs(judged_pairs(held_out, OPTIONS, Distances()), held_out, fitted, scores, options=OPTIONS)


def test_any_score_stands_beside_all_baselines_with_differences(tissue):
    result = judged(tissue)
    assert set(result.scores["score"]) == {"mine", *BASELINES}
    assert set(result.differences["baseline"]) == set(BASELINES)
    assert set(result.differences["score"]) == {"mine"}
    for name in BASELINES:
        minus = result.difference("mine", name, 30.0, "easy")
        expected = result.interval("mine", 30.0, "easy").value - result.interval(name, 30.0, "easy").value
        assert minus.value == pytest.approx(expected)
        assert minus.low <= minus.value <= minus.high
    assert result.interval("PCA pair network", 30.0, "easy").value > 0.6


def test_the_order_of_the_cells_changes_nothing(tissue):
    one, other = judged(tissue), judged(tissue, np.random.default_rng(0).permutation(tissue.n_obs))
    pd.testing.assert_frame_equal(one.scores, other.scores)
    pd.testing.assert_frame_equal(one.differences, other.differences)


def test_only_cells_in_pairs_need_be_read(tissue):
    held_out, _ = regions(tissue)
    pairs = judged_pairs(held_out, OPTIONS, Distances())
    used = cells_in_pairs(pairs)
    assert used.min() >= 0
    assert set(pairs.anchor) | set(pairs.neighbour) <= set(used.tolist())
    assert len(used) < len(held_out)


def test_the_centre_is_of_the_same_cells_in_any_order(tissue):
    _, fitted = regions(tissue)
    usable = np.arange(len(fitted)) % 3 > 0
    order = np.random.default_rng(1).permutation(len(fitted))
    one = centring_cells(fitted, usable, 0)
    other = order[centring_cells(fitted.take(order), usable[order], 0)]
    assert set(one) == set(other.tolist()) == set(np.flatnonzero(usable))


@pytest.fixture
def large():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 3_000, (4_000, 2)), rng.choice(["a", "b"], 4_000)


def test_drawn_tissue_is_whole_tiles_in_any_order(large):
    xy, slide = large
    drawn = drawn_tissue(xy, slide, max_cells=1_000, seed=2)
    assert 1_000 <= len(drawn) < 1_100
    tiles = {(s, *cell) for s, cell in zip(slide[drawn], np.floor(xy[drawn] / 300).astype(int).tolist(), strict=True)}
    every = zip(slide, np.floor(xy / 300).astype(int).tolist(), strict=True)
    assert sum((s, *cell) in tiles for s, cell in every) == len(drawn)
    order = np.random.default_rng(1).permutation(len(xy))
    assert set(order[drawn_tissue(xy[order], slide[order], max_cells=1_000, seed=2)]) == set(drawn)
    assert set(drawn_tissue(xy, slide, max_cells=1_000, seed=3)) != set(drawn)
    np.testing.assert_array_equal(drawn_tissue(xy, slide, max_cells=4_000), np.arange(4_000))


def test_a_corpus_and_a_table_draw_the_same_tissue(corpus):
    whole = read_cells(corpus, "train", max_cells=10**6, seed=0)
    assert len(read_tissue(corpus, "train", max_cells=10**6, seed=0)) == len(whole)
    few = read_tissue(corpus, "train", max_cells=40, seed=1)
    expected = whole.take(drawn_tissue(whole.coordinates, whole.slide, max_cells=40, seed=1))
    assert 40 <= len(few) < len(whole)
    np.testing.assert_array_equal(few.coordinates, expected.coordinates)
    np.testing.assert_array_equal(few.counts.toarray(), expected.counts.toarray())
    np.testing.assert_array_equal(few.edges, expected.edges)
