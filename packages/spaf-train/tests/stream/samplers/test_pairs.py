import dataclasses

import numpy as np
import pytest

from spaf_model import InputError
from spaf_train.stream.samplers import SamplingConfig, block_order, draw_pairs, single_cells


@pytest.fixture
def blocks(corpus):
    blocks = [corpus.read(ref) for ref in corpus.block_refs("train")]
    return blocks, np.cumsum([0, *(block.n_cells for block in blocks)])[:-1]


def draw(blocks, seed=0, **options):
    config = SamplingConfig(**options)
    generators = [np.random.default_rng([seed, place]) for place in range(len(blocks[0]))]
    return draw_pairs(*blocks, generators, config)


def distances(blocks, inputs):
    coordinates = np.concatenate([block.coordinates for block in blocks[0]])
    return np.linalg.norm(coordinates[inputs.left] - coordinates[inputs.right], axis=1)


def test_block_order_is_a_permutation_that_changes_with_the_epoch():
    orders = [block_order(20, seed=1, epoch=epoch) for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == list(range(20))
    assert (orders[0] != orders[1]).any()
    assert (orders[0] == orders[2]).all()


def test_every_positive_pair_once_and_negatives_at_their_distances(blocks):
    inputs = draw(blocks, hard_negatives=2, easy_negatives=1)
    n_positive = sum(block.n_pairs for block in blocks[0])
    expected = set()
    for block, offset in zip(*blocks, strict=True):
        expected |= {frozenset((block.positive_pairs[row] + offset).tolist()) for row in range(block.n_pairs)}
    positive = inputs.take(np.flatnonzero(inputs.label))
    pairs = {frozenset(pair) for pair in zip(positive.left.tolist(), positive.right.tolist(), strict=True)}
    assert len(positive) == len(pairs) == n_positive
    assert pairs == expected

    negative = inputs.take(np.flatnonzero(inputs.label == 0))
    apart = distances(blocks, negative)
    hard = (apart >= 80) & (apart <= 150)
    assert (hard | (apart > 150)).all()
    assert hard.sum() == pytest.approx(2 * n_positive, rel=0.1)
    assert (~hard).sum() == pytest.approx(n_positive, rel=0.1)
    slide = np.concatenate([np.full(block.n_cells, block.slide) for block in blocks[0]])
    assert (slide[inputs.left] == slide[inputs.right]).all()


def test_a_share_of_the_positives(blocks):
    inputs = draw(blocks, positives=0.25)
    expected = sum(round(0.25 * block.n_pairs) for block in blocks[0])
    assert inputs.label.sum() == expected


def test_either_cell_may_come_first(blocks):
    inputs = draw(blocks)
    positive = inputs.take(np.flatnonzero(inputs.label))
    assert 0.35 < (positive.left < positive.right).mean() < 0.65


def test_draws_are_those_of_the_generator(blocks):
    first, again, other = draw(blocks), draw(blocks), draw(blocks, seed=1)
    assert (first.right == again.right).all()
    assert len(first) != len(other) or (first.right != other.right).any()


def test_hard_negatives_are_drawn_evenly(blocks):
    """Over many draws, each cell at the right distance of an anchor is drawn about equally often."""
    block = max(blocks[0], key=lambda block: block.n_cells)
    many = dataclasses.replace(block, positive_pairs=np.tile([[0, 0]], (20_000, 1)).astype(np.int32))
    inputs = draw_pairs([many], np.array([0]), [np.random.default_rng(0)], SamplingConfig(easy_negatives=0))
    negative = inputs.take(np.flatnonzero(inputs.label == 0))
    partners, counts = np.unique(negative.left + negative.right, return_counts=True)
    apart = np.linalg.norm(block.coordinates - block.coordinates[0], axis=1)
    assert set(partners) == set(np.flatnonzero((apart >= 80) & (apart <= 150)))
    assert counts.min() > 0.85 * counts.mean()
    assert counts.max() < 1.15 * counts.mean()


def test_single_cells_are_the_owned_ones_once(blocks):
    inputs = single_cells(*blocks)
    names = np.concatenate([block.cell_ids for block in blocks[0]])[inputs.left]
    expected = np.concatenate([block.cell_ids[: block.n_owned] for block in blocks[0]])
    assert sorted(names) == sorted(expected)
    assert (inputs.right == -1).all()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"positives": 0.0}, "positives"),
        ({"hard_min": 200.0}, "hard_max"),
        ({"token_budget": 0}, "token_budget"),
        ({"thinning": 1.0}, "thinning"),
        ({"hard_negatives": 0, "easy_negatives": 0}, "hard_negatives"),
    ],
)
def test_impossible_options_are_named(options, name):
    with pytest.raises(InputError, match=name):
        SamplingConfig(**options)
