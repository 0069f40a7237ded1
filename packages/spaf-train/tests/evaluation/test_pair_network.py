import numpy as np
import pytest
import torch

from spaf_model import InputError
from spaf_train.evaluation import PairNetwork, matched_pairs, pair_network, pca_embedding


@pytest.fixture
def cells(tissue):
    """Components of all cells, and where the training cells, which come first, are."""
    order = np.argsort(tissue.obs["split"].to_numpy() != "train", kind="stable")
    tissue = tissue[order].copy()
    n_train = int((tissue.obs["split"] == "train").sum())
    embedding = pca_embedding(tissue.X, np.arange(n_train), n_components=4).coordinates
    xy = tissue.obsm["spatial"][:n_train]
    return embedding, xy, np.full(n_train, "one")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(pair_network, "_MAX_EPOCHS", 3)
    monkeypatch.setattr(pair_network, "_BATCH_PAIRS", 64)


def test_it_is_symmetric_and_learns(cells, tissue):
    network = PairNetwork(*cells, 30.0)
    held = matched_pairs(cells[1], radii=(30.0,), max_pairs=200, seed=5)
    scores = network.score(held.anchor, held.neighbour)
    np.testing.assert_allclose(scores, network.score(held.neighbour, held.anchor), rtol=1e-5)
    far = held.easy[held.easy >= 0]
    assert (scores[:, None] > network.score(held.anchor[held.easy >= 0], far)[None]).mean() > 0.65
    assert 1 <= network.epochs <= 3


def test_equal_seeds_give_equal_networks_and_leave_the_state_of_torch_alone(cells):
    left, right = np.arange(20), np.arange(20, 40)
    state = torch.random.get_rng_state()
    one, same, other = (PairNetwork(*cells, 30.0, seed=seed).score(left, right) for seed in (3, 3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_cells_to_be_scored_change_nothing(cells):
    embedding, xy, slide = cells
    changed = embedding.copy()
    changed[len(xy) :] += 7.0
    left, right = np.arange(20), np.arange(20, 40)
    first, second = (PairNetwork(values, xy, slide, 30.0).score(left, right) for values in (embedding, changed))
    np.testing.assert_array_equal(first, second)


def test_the_number_of_epochs_is_chosen_apart_from_what_is_trained_on(cells):
    _, xy, slide = cells
    parts = pair_network._stopping_strips(xy, slide)
    train, stop = xy[parts == "train"], xy[parts == "validation"]
    assert 0 < len(stop) < len(train)
    assert np.linalg.norm(train[:, None] - stop[None], axis=2).min() > 60.0


def test_slides_too_small_for_a_strip_are_trained_on_whole(monkeypatch):
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 40, (30, 2))
    assert set(pair_network._stopping_strips(xy, np.repeat("small", 30))) == {"train"}


def test_cells_without_neighbours_cannot_be_trained_on():
    apart = np.stack([np.arange(12) * 500.0, np.zeros(12)], axis=1)
    with pytest.raises(InputError, match="no two training cells lie within 30 um of each other"):
        PairNetwork(np.random.default_rng(0).normal(size=(12, 3)), apart, np.repeat("wide", 12), 30.0)


def test_epochs_that_draw_no_negative_are_passed_over(monkeypatch):
    """Of two neighbours one alone has a cell far enough away, and which of them is the anchor is drawn."""
    xy = np.array([[0.0, 0.0], [10.0, 0.0], [85.0, 0.0]] * 2)
    slide = np.repeat(["a", "b"], 3)
    drawn = [
        pair_network.matched_pairs(xy, slide, radii=(30.0,), max_pairs=100, seed=seed).labelled(30.0)[2].all()
        for seed in range(1, 40)
    ]
    assert 0 < sum(drawn) < len(drawn)
    monkeypatch.setattr(pair_network, "_MAX_EPOCHS", 12)
    embedding = np.random.default_rng(0).normal(size=(6, 3))
    for seed in range(5):
        network = PairNetwork(embedding, xy, slide, 30.0, seed=seed)
        assert np.isfinite(network.score(np.array([0]), np.array([1]))).all()
