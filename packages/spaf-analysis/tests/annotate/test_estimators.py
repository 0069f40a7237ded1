import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from spaf_analysis.annotate import LabelProbe, NearestLabels


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([LabelProbe(), NearestLabels()])
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


@pytest.fixture
def labelled():
    rng = np.random.default_rng(0)
    codes = rng.integers(3, size=240)
    return (2 * np.eye(3)[codes] + rng.normal(0, 1, (240, 3))).astype(np.float32), np.array(["a", "b", "c"])[codes]


def test_a_probe_is_the_regression_that_its_penalty_says(labelled):
    features, labels = labelled
    probe = LabelProbe(penalty=0.01, balanced=False).fit(features, labels)
    centred = features - features.mean(axis=0)
    scaled = centred * np.sqrt(20.0 / centred.var(axis=0).sum())
    twin = LogisticRegression(C=1 / (0.01 * 240), max_iter=1000).fit(scaled, labels)
    np.testing.assert_allclose(probe.predict_proba(features), twin.predict_proba(scaled), atol=2e-3)
    assert probe.predict(features).tolist() == twin.predict(scaled).tolist()


def test_what_is_chosen_depends_on_the_parts_that_are_named(labelled):
    features, labels = labelled
    groups = np.arange(240) % 4
    one = LabelProbe().fit(features, labels, groups)
    other = LabelProbe().fit(features, labels, [f"part {group}" for group in groups])
    np.testing.assert_array_equal(one.logits(features), other.logits(features))
    assert one.probe_.penalty in (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
    assert cross_val_score(LabelProbe(), features, labels, cv=3).mean() > 0.6


def test_votes_are_those_of_the_neighbours_and_nothing_is_impossible(labelled):
    features, labels = labelled
    model = NearestLabels(5).fit(features, labels)
    assert model.predict_proba(features).min() > 0
    shares = model.neighbors_probabilities(features)
    assert set(np.round(shares.ravel() * 5, 6)) <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    np.testing.assert_array_equal(model.logits(features).argmax(axis=1), shares.argmax(axis=1))
