"""Near against far within strata, against permutations counted out and against theory."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import norm

from spaf_analysis.perturbation import compare
from spaf_analysis.perturbation.permutation import tail_probability


def slow_p(value, near, stratum):
    """Every way to exchange near and far within two strata, one at a time."""
    known = np.isfinite(value)
    value, near, stratum = value[known], near[known], stratum[known]
    ways = [
        list(combinations(np.flatnonzero(stratum == one), int(near[stratum == one].sum())))
        for one in np.unique(stratum)
    ]
    mean = {one: value[stratum == one].mean() for one in np.unique(stratum)}
    centred = value - np.array([mean[one] for one in stratum])
    sums = np.array([centred[[*first, *second]].sum() for first in ways[0] for second in ways[1]])
    observed = centred[near].sum()
    return (np.abs(sums) >= abs(observed) * (1 - 1e-9)).mean(), observed / sums.std()


def test_z_and_p_are_those_of_all_permutations():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(16, 12)).astype(np.float32)
    near, stratum = np.tile([True, False], 8), np.repeat([5, 2], 8)
    values[:, 0] += 1.5 * near
    values[3, 1] = values[10, 1] = np.nan
    found = compare(values, near, stratum, n_permutations=20_000, seed=1)
    for feature in range(12):
        p, z = slow_p(values[:, feature].astype(float), near, stratum)
        assert found.z[feature] == pytest.approx(z, rel=1e-5)
        assert found.p[feature] == pytest.approx(p, rel=0.75, abs=2e-3)
    assert found.n_near[1] + found.n_far[1] == 14


def test_the_difference_is_that_of_means_where_strata_are_alike():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 3)).astype(np.float32)
    near, stratum = np.tile([True, False], 20), np.repeat(np.arange(4), 10)
    found = compare(values, near, stratum, n_permutations=100)
    np.testing.assert_allclose(found.difference, values[near].mean(axis=0) - values[~near].mean(axis=0), rtol=1e-4)


def test_what_differs_between_strata_alone_is_nothing():
    stratum = np.repeat(np.arange(4), 10)
    near = np.zeros(40, dtype=bool)
    near[[0, 10, 11, 20, 21, 22, 30, 31, 32, 33]] = True
    found = compare(stratum[:, None].astype(float), near, stratum, n_permutations=200)
    assert not found.is_tested[0]  # nothing varies within strata
    noisy = stratum[:, None] * 10.0 + np.random.default_rng(0).normal(size=(40, 30))
    assert (compare(noisy, near, stratum, n_permutations=500).p > 0.01).mean() > 0.9


def test_nothing_gives_uniform_p_and_no_call():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(120, 4000)).astype(np.float32)
    values[rng.random(values.shape) < 0.4] = np.nan
    near, stratum = np.tile([True, False], 60), np.repeat(np.arange(6), 20)
    found = compare(values, near, stratum, n_permutations=2000, seed=3)
    assert 0.04 < (found.p < 0.05).mean() < 0.06
    assert 0.005 < (found.p < 0.01).mean() < 0.015
    assert 0.47 < (found.p < 0.5).mean() < 0.53
    assert found.fdr.min() > 0.05


def test_a_fitted_tail_follows_the_normal_one():
    rng = np.random.default_rng(4)
    values = rng.normal(size=(200, 60)).astype(np.float32)
    near, stratum = np.tile([True, False], 100), np.repeat(np.arange(4), 50)
    values[near] += 0.7
    found = compare(values, near, stratum, n_permutations=5000)
    expected = np.log10(2 * norm.sf(np.abs(found.z)))
    assert found.is_fitted.mean() > 0.9
    assert np.median(np.abs(np.log10(found.p) - expected)) < 1.0
    assert (found.p > 0).all()


def test_no_p_is_below_what_the_permutations_allow():
    values = np.r_[np.ones(3) + 1e-3 * np.arange(3), np.zeros(3)][:, None]
    found = compare(values, np.arange(6) < 3, np.zeros(6, dtype=int), n_permutations=5000)
    assert found.p[0] >= 1 / 20


def test_a_feature_does_not_depend_on_the_others_and_few_pairs_are_left_out():
    rng = np.random.default_rng(5)
    values = rng.normal(size=(60, 50))
    near, stratum = np.tile([True, False], 30), np.repeat(np.arange(3), 20)
    whole = compare(values, near, stratum, n_permutations=1000, seed=9)
    alone = compare(values[:, :10], near, stratum, n_permutations=1000, seed=9)
    np.testing.assert_array_equal(whole.p[:10], alone.p)
    values[5:, 0] = np.nan
    few = compare(values, near, stratum, n_permutations=1000, min_pairs=10)
    assert not few.is_tested[0]
    assert np.isnan(few.fdr[0])


def test_the_tail_of_an_exponential_is_exponential():
    drawn = np.random.default_rng(6).exponential(size=(200, 5000))
    p = tail_probability(drawn, np.full(200, 12.0))
    assert np.median(np.log(p)) == pytest.approx(-12.0, abs=0.7)
