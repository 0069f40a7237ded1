"""The judge of cell pairs gives the same figures from wherever the cells come."""

import numpy as np
import pandas as pd
import pytest

from spaf_data import Distances
from spaf_train.evaluation import (
    BASELINES,
    RANDOM,
    EvaluationOptions,
    PlacedCells,
    cells_in_pairs,
    centred_cosine,
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
    scores = {"mine": centred_cosine(embedding, held_out.slide)}
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
    for name in ("PCA pair network", "z-scored PCA of the judged slide", "neighbours, closed form"):
        assert result.interval(name, 30.0, "easy").value > 0.6


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


def test_each_cell_is_seen_from_the_centre_of_its_slide():
    rng = np.random.default_rng(0)
    slide = np.repeat(["a", "b"], 50)
    states = rng.normal(size=(100, 4)) + 10.0 * (slide == "b")[:, None]
    used = np.arange(0, 100, 2)
    left, right = rng.integers(0, 100, (2, 200))
    found = centred_cosine(states, slide, used)(left, right)
    centred = np.vstack([states[:50] - states[used[used < 50]].mean(0), states[50:] - states[used[used >= 50]].mean(0)])
    norms = np.linalg.norm(centred, axis=1)
    np.testing.assert_allclose(found, (centred[left] * centred[right]).sum(1) / norms[left] / norms[right])
    moved = states + 7.0 * (slide == "a")[:, None]
    np.testing.assert_allclose(centred_cosine(moved, slide, used)(left, right), found)
    np.testing.assert_allclose(states, moved - 7.0 * (slide == "a")[:, None])


def test_a_random_encoder_is_a_baseline_and_not_judged(tissue):
    held_out, fitted = regions(tissue)
    rng = np.random.default_rng(0)
    scores = {
        "mine": centred_cosine(np.log1p(held_out.counts.toarray()), held_out.slide),
        RANDOM: centred_cosine(rng.normal(size=(len(held_out), 3)), held_out.slide),
    }
    result = judge_cell_pairs(judged_pairs(held_out, OPTIONS, Distances()), held_out, fitted, scores, options=OPTIONS)
    assert set(result.differences["score"]) == {"mine"}
    assert set(result.differences["baseline"]) == {*BASELINES, RANDOM}
    assert result.difference("mine", RANDOM, 30.0, "easy").value > 0.1


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
