import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from spaf_train.evaluation import discrimination


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 3)), min_size=4, max_size=60),
)
@settings(max_examples=100, deadline=None)
def test_equals_scikit_learn_with_weights_and_ties(items):
    labels, scores, weights = (np.array(column) for column in zip(*items, strict=True))
    labels = labels.astype(bool)
    result = discrimination(labels, scores.astype(float), np.stack([np.ones(len(labels)), weights]))
    for row, given_weights in enumerate([np.ones(len(labels)), weights.astype(float)]):
        positive, negative = given_weights[labels].sum(), given_weights[~labels].sum()
        if positive == 0 or negative == 0:
            assert np.isnan(result.auroc[row])
            assert np.isnan(result.auprc[row])
            continue
        balanced = np.where(labels, given_weights / positive, given_weights / negative)
        np.testing.assert_allclose(result.auroc[row], roc_auc_score(labels, scores, sample_weight=balanced), atol=1e-12)
        expected = average_precision_score(labels, scores, sample_weight=balanced)
        np.testing.assert_allclose(result.auprc[row], expected, atol=1e-12)


def test_chance_is_one_half_whatever_the_prevalence():
    rng = np.random.default_rng(0)
    labels = rng.random(20_000) < 0.05
    result = discrimination(labels, rng.random(20_000), np.ones((1, 20_000)))
    assert abs(result.auroc[0] - 0.5) < 0.02
    assert abs(result.auprc[0] - 0.5) < 0.03


def test_integer_weights_equal_repeated_items():
    rng = np.random.default_rng(1)
    labels, scores, weights = rng.random(40) < 0.5, rng.integers(0, 9, 40).astype(float), rng.integers(0, 4, 40)
    weighted = discrimination(labels, scores, weights[None].astype(float))
    repeated = discrimination(np.repeat(labels, weights), np.repeat(scores, weights), np.ones((1, int(weights.sum()))))
    np.testing.assert_allclose(weighted, repeated)
