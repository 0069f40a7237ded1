"""Comparisons with donors as units: right values, and as many false alarms as promised."""

from itertools import combinations, product

import numpy as np
import pytest

from spaf_analysis.donors import compare_conditions, compare_with_zero


def slow_t(first, second, offset):
    n, m = len(first), len(second)
    square = ((first - first.mean()) ** 2).sum() + ((second - second.mean()) ** 2).sum()
    return (first.mean() - second.mean()) / (np.sqrt(square / (n + m - 2) * (1 / n + 1 / m)) + offset)


def test_permutation_of_donors_agrees_with_a_slow_twin():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 4)) + np.r_[np.full(3, 1.5), np.zeros(4)][:, None] * [1, 0, 0, 0]
    is_first = np.arange(7) < 3
    found = compare_conditions(values, is_first)
    errors = values.std(axis=0, ddof=1) / np.sqrt(7)
    offset = np.quantile(errors, 0.05)
    every = []
    for chosen in combinations(range(7), 3):
        inside = np.isin(np.arange(7), chosen)
        every.append([slow_t(values[inside, j], values[~inside, j], offset) for j in range(4)])
    every = np.abs(every)
    observed = np.abs([slow_t(values[is_first, j], values[~is_first, j], offset) for j in range(4)])
    np.testing.assert_allclose(np.abs(found.statistic), observed)
    np.testing.assert_allclose(found.p, (every >= observed - 1e-9).mean(axis=0))
    np.testing.assert_allclose(found.p_adjusted, (every.max(axis=1)[:, None] >= observed - 1e-9).mean(axis=0))
    assert found.n_arrangements == 35
    assert found.is_exact
    assert found.smallest_p == pytest.approx(1 / 35)


def test_sign_flips_agree_with_a_slow_twin():
    rng = np.random.default_rng(1)
    values = rng.normal(0.8, 1, (6, 3))
    found = compare_with_zero(values)
    offset = np.quantile(values.std(axis=0, ddof=1) / np.sqrt(6), 0.05)

    def t(flipped):
        return np.abs(flipped.mean(axis=0) / (flipped.std(axis=0, ddof=1) / np.sqrt(6) + offset))

    every = np.array([t(values * np.array(signs)[:, None]) for signs in product((1, -1), repeat=6)])
    np.testing.assert_allclose(found.p, (every >= t(values) - 1e-9).mean(axis=0))
    np.testing.assert_allclose(found.p_adjusted, (every.max(axis=1)[:, None] >= t(values) - 1e-9).mean(axis=0))
    assert found.smallest_p == 2 / 64


def test_three_donors_against_three_cannot_fall_below_a_tenth():
    values = np.r_[np.full((3, 1), 10.0), np.zeros((3, 1))] + np.random.default_rng(0).normal(0, 0.01, (6, 1))
    found = compare_conditions(values, np.arange(6) < 3)
    assert found.p[0] == found.smallest_p == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["conditions", "zero"])
def test_false_alarms_are_as_many_as_promised(kind):
    rng = np.random.default_rng(2)
    single, family = [], []
    for _ in range(300):
        values = rng.normal(size=(12, 6)) + rng.normal(size=(12, 1))
        found = (
            compare_conditions(values, rng.permutation(12) < 6, n_permutations=499, seed=int(rng.integers(1 << 30)))
            if kind == "conditions"
            else compare_with_zero(values, n_permutations=499, seed=int(rng.integers(1 << 30)))
        )
        single.append(found.p[0] <= 0.05)
        family.append(found.p_adjusted.min() <= 0.05)
    assert 0.02 <= np.mean(single) <= 0.08
    assert 0.02 <= np.mean(family) <= 0.08


def test_donors_without_a_value_are_left_out_of_that_feature():
    values = np.array([[1.0, np.nan], [1.2, np.nan], [0.9, 3.0], [0.0, 1.0], [0.1, 2.0], [-0.1, 2.0]])
    found = compare_conditions(values, np.arange(6) < 3)
    assert found.n_donors.tolist() == [6, 4]
    assert np.isfinite(found.p[0])
    assert np.isnan(found.p[1])
    assert found.p_adjusted[0] == found.p[0]
    assert found.difference[0] == pytest.approx(values[:3, 0].mean() - values[3:, 0].mean())


def test_donors_without_a_value_are_not_arranged() -> None:
    values = np.full((12, 2), np.nan)
    is_first = np.arange(12) < 6
    values[[0, 1, 6, 7], 0] = [5.0, 5.1, 1.0, 1.2]
    found = compare_conditions(values[:, :1], is_first)
    assert found.n_arrangements == 6
    assert found.p[0] == found.p_adjusted[0] == found.smallest_p == pytest.approx(2 / 6)
    values[:, 1] = np.random.default_rng(0).normal(size=12)
    found = compare_conditions(values, is_first)
    assert found.n_arrangements == 924
    assert found.p[0] == pytest.approx(2 / 6), "only its four donors are arranged"
    assert found.p_adjusted[0] >= found.p[0]
    assert found.smallest_p == pytest.approx(2 / 924)


def test_signs_of_donors_without_a_value_are_none() -> None:
    values = np.array([[1.0], [1.1], [0.9], [np.nan], [np.nan]])
    found = compare_with_zero(values)
    assert found.p[0] == found.smallest_p == 2 / 8
