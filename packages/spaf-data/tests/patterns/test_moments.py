"""The closed forms beside every permutation there is."""

import itertools

import numpy as np
import pytest

from spaf_data.patterns._moments import add_joins, add_offsets, add_sums
from spaf_data.patterns._places import distances, ranks

SIZES = np.array([1, 2, 3, 4])  # transcripts of four genes of one cell
RUN = np.repeat(np.arange(4), SIZES)
RUNS = np.arange(4)


def places(seed, n=len(RUN)):
    return np.random.default_rng(seed).random((2, n)) * 3


def moments_of_all(values):
    values = np.asarray(values)
    apart = values - values.mean()
    return values.mean(), (apart**2).mean(), (apart**3).mean()


def pair_sum(weights, members):
    return sum(weights[a, b] for a, b in itertools.combinations(members, 2))


def enumerated(statistic, size):
    return moments_of_all([statistic(members) for members in itertools.combinations(range(len(RUN)), size)])


@pytest.mark.parametrize("seed", range(3))
def test_sums_have_the_moments_of_all_permutations(seed):
    score = places(seed)[0]
    out = np.zeros((4, 4))
    add_sums(score, RUN, SIZES, RUNS, out)
    for run, size in enumerate(SIZES):
        mean, variance, third = enumerated(lambda members: score[list(members)].sum(), size)
        np.testing.assert_allclose(out[run], [score[run == RUN].sum() - mean, variance, third, size], atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("radius", [0.4, 1.0, 1.7, 9.0])
def test_joins_have_the_moments_of_all_permutations(seed, radius):
    x, y = places(seed)
    near = np.hypot(x[:, None] - x, y[:, None] - y) <= radius
    out, joins = np.zeros((4, 4)), np.zeros(4, np.int64)
    add_joins(x, y, RUN, SIZES, RUNS, radius, joins, out)
    for run, size in enumerate(SIZES):
        mean, variance, third = enumerated(lambda members: pair_sum(near, members), size)
        observed = pair_sum(near, np.flatnonzero(run == RUN)) - mean
        np.testing.assert_allclose(out[run], [observed, variance, third, mean], atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_offsets_have_mean_and_variance_of_all_permutations(seed):
    x, y = places(seed)
    offset = np.stack([x - x.mean(), y - y.mean()])
    offset /= np.sqrt((offset**2).sum(axis=0).mean())
    weights = offset.T @ offset
    out = np.zeros((4, 4))
    add_offsets(x, y, RUN, SIZES, RUNS, np.zeros((4, 3)), out)
    for run, size in enumerate(SIZES):
        mean, variance, _ = enumerated(lambda members: pair_sum(weights, members), size)
        observed = pair_sum(weights, np.flatnonzero(run == RUN)) - mean if size > 1 else 0.0
        np.testing.assert_allclose(out[run], [observed, variance, out[run, 2], size * (size - 1) / 2], atol=1e-9)


def test_the_skewness_of_offsets_is_nearly_that_of_permutations():
    rng = np.random.default_rng(0)
    size = np.array([6, 20, 60, 114])
    run = np.repeat(np.arange(4), size)
    x, y = rng.normal(size=(2, 200)) * [[1.0], [0.6]]
    out = np.zeros((4, 4))
    add_offsets(x, y, run, size, RUNS, np.zeros((4, 3)), out)
    offset = np.stack([x - x.mean(), y - y.mean()])
    offset /= np.sqrt((offset**2).sum(axis=0).mean())
    order = np.argsort(rng.random((40_000, 200)), axis=1)
    for gene in range(3):
        drawn = offset[:, order[:, : size[gene]]]
        values = ((drawn.sum(axis=2) ** 2).sum(axis=0) - (drawn**2).sum(axis=(0, 2))) / 2
        _, variance, third = moments_of_all(values)
        assert out[gene, 1] == pytest.approx(variance, rel=0.05)
        assert out[gene, 2] / out[gene, 1] ** 1.5 == pytest.approx(third / variance**1.5, abs=0.25)


def test_a_gene_alone_says_nothing():
    x, y = places(0, 5)
    run, size, runs = np.zeros(5, np.int64), np.array([5]), np.array([0])
    out = np.zeros((1, 4))
    add_sums(x, run, size, runs, out)
    assert out[0, :3] == pytest.approx([0, 0, 0], abs=1e-12)
    out[:] = 0
    add_joins(x, y, run, size, runs, 1.0, np.zeros(1, np.int64), out)
    assert out[0, :3] == pytest.approx([0, 0, 0], abs=1e-9)
    out[:] = 0
    add_offsets(x, y, run, size, runs, np.zeros((1, 3)), out)
    assert out[0, :3] == pytest.approx([0, 0, 0], abs=1e-9)


def test_equal_values_share_their_rank():
    np.testing.assert_allclose(ranks(np.array([3.0, 1.0, 3.0, 2.0, 9.0])), [0.625, 0.0, 0.625, 0.25, 1.0])
    np.testing.assert_allclose(ranks(np.zeros(3)), 0.5)


def test_distances_from_a_square():
    corners = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0], [0.0, 0.0]])
    segments = np.column_stack([corners[:-1], corners[1:]])
    found = distances(np.array([1.0, 2.0, 7.0, 4.0]), np.array([2.0, 2.0, 8.0, 1.0]), 0, 4, segments)
    np.testing.assert_allclose(found, [1.0, 2.0, 5.0, 0.0])
