import numpy as np
import pytest

from spaf_train.evaluation import calibration_error, operating_point, reliability_table


def test_error_equals_a_loop_over_bins():
    rng = np.random.default_rng(0)
    labels = rng.random(300) < 0.3
    probabilities = np.clip(rng.normal(0.3 + 0.2 * labels, 0.2), 0, 1)
    weights = rng.integers(0, 3, (4, 300)).astype(float)
    errors = calibration_error(labels, probabilities, weights)
    for row, error in zip(weights, errors, strict=True):
        share = np.where(labels, 0.5 / row[labels].sum(), 0.5 / row[~labels].sum()) * row
        expected = 0.0
        for low in np.arange(10):
            inside = (probabilities * 10 >= low) & ((probabilities * 10 < low + 1) | (low == 9))
            if share[inside].sum():
                gap = np.average(probabilities[inside] - labels[inside], weights=share[inside])
                expected += share[inside].sum() * abs(gap)
        assert error == pytest.approx(expected)


def test_probabilities_that_mean_what_they_say():
    rng = np.random.default_rng(0)
    probabilities = rng.random(20_000)
    labels = rng.random(20_000) < probabilities
    ones = np.ones((1, 20_000))
    assert calibration_error(labels, probabilities, ones)[0] < 0.02
    overconfident = np.where(probabilities > 0.5, 0.99, 0.01)
    assert calibration_error(labels, overconfident, ones)[0] > 0.2
    table = reliability_table(labels, probabilities, ones[0])
    assert table["n"].sum() == 20_000
    np.testing.assert_allclose(table["probability"], table["observed"], atol=0.05)


def test_bins_at_the_edges():
    table = reliability_table(np.array([True, False]), np.array([1.0, 0.0]), np.ones(2))
    assert table["n"].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert np.isnan(table["observed"].iloc[4])


def test_operating_point_counts():
    labels = np.array([True, True, False, False, False])
    probabilities = np.array([0.9, 0.2, 0.5, 0.4, 0.1])
    weights = np.array([[1.0] * 5, [1.0, 3.0, 2.0, 0.0, 0.0]])
    sensitivity, specificity = operating_point(labels, probabilities, weights)
    np.testing.assert_allclose(sensitivity, [0.5, 0.25])
    np.testing.assert_allclose(specificity, [2 / 3, 0.0])
