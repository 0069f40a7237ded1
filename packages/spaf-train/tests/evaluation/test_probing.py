import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from spaf_train.evaluation import spatial_tiles
from spaf_train.evaluation.label_baselines import baseline_predictions
from spaf_train.evaluation.probing import (
    PENALTIES,
    Block,
    ProbeSettings,
    choose_probe,
    fit_probe,
    inner_folds,
    is_clearly_better,
    macro_f1,
)


@pytest.fixture
def data():
    """Three classes of 90, 60 and 12 cells, in five features of which two tell."""
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat([0, 1, 2], [90, 60, 12]))
    values = rng.normal(2.0, 1.0, (162, 5))
    values[:, 0] += 1.5 * (codes == 1)
    values[:, 1] += 1.5 * (codes == 2)
    return values.astype(np.float32), codes


@pytest.mark.parametrize("balanced", [False, True])
def test_a_probe_is_logistic_regression_on_scaled_features(data, balanced):
    values, codes = data
    rows = np.arange(0, 162, 2)
    probe = fit_probe([Block(values)], codes, rows, 3, penalty=1e-2, balanced=balanced)
    centred = values[rows] - values[rows].mean(axis=0)
    scaled = centred * np.sqrt(20.0 / (centred**2).sum(axis=1).mean())
    slow = LogisticRegression(
        C=1.0 / (1e-2 * rows.size), tol=1e-8, max_iter=5_000, class_weight="balanced" if balanced else None
    ).fit(scaled.astype(np.float64), codes[rows])
    expected = slow.decision_function(scaled)
    found = probe.logits([Block(values)], rows)
    np.testing.assert_allclose(found - found.mean(axis=1, keepdims=True), expected, atol=2e-2)


def test_a_block_counts_by_its_weight_and_not_by_its_unit(data):
    values, codes = data
    rows = np.arange(162)
    one, other = (
        fit_probe([Block(values[:, :2] * unit, 0.5), Block(values[:, 2:])], codes, rows, 3, penalty=1e-2, balanced=True)
        for unit in (np.float32(1.0), np.float32(1e3))
    )
    np.testing.assert_allclose(one.weight, other.weight, atol=1e-3)
    variance = next((probe.scale**2 * values.var(axis=0)) for probe in (one,))
    assert variance[:2].sum() == pytest.approx(5.0, rel=1e-4)
    assert variance[2:].sum() == pytest.approx(20.0, rel=1e-4)


def test_two_classes_and_features_that_do_not_vary():
    rng = np.random.default_rng(0)
    values = np.c_[rng.normal(size=80), np.ones(80)].astype(np.float32)
    codes = (values[:, 0] > 0).astype(np.int64)
    probe = fit_probe(
        [Block(values[:, :1]), Block(values[:, 1:])], codes, np.arange(80), 2, penalty=1e-3, balanced=False
    )
    assert (probe.predict([Block(values)], np.arange(80)) == codes).mean() > 0.95
    assert np.isfinite(probe.weight).all()


def test_a_class_without_a_cell_is_never_predicted(data):
    values, codes = data
    rows = np.flatnonzero(codes != 1)
    probe = fit_probe([Block(values)], codes, rows, 4, penalty=1e-2, balanced=False)
    assert set(probe.predict([Block(values)], np.arange(162))) <= {0, 2}
    alone = fit_probe([Block(values)], codes, np.flatnonzero(codes == 1), 4, penalty=1e-2, balanced=False)
    assert set(alone.predict([Block(values)], np.arange(162))) == {1}


def test_what_is_chosen_is_the_best_on_the_folds(data):
    values, codes = data
    rows = np.arange(162)
    folds = rows % 3
    chosen = choose_probe([Block(values)], codes, rows, folds)
    scores = {}
    for balanced in (False, True):
        for penalty in PENALTIES:
            predicted = np.zeros(162, dtype=np.int64)
            for fold in range(3):
                probe = fit_probe([Block(values)], codes, rows[folds != fold], 3, penalty=penalty, balanced=balanced)
                predicted[folds == fold] = probe.predict([Block(values)], rows[folds == fold])
            scores[penalty, balanced] = f1_score(codes, predicted, average="macro")
    assert chosen.macro_f1 == pytest.approx(max(scores.values()), abs=0.02)
    assert scores[chosen.penalty, chosen.balanced] == pytest.approx(chosen.macro_f1, abs=0.02)
    given = choose_probe([Block(values)], codes, rows, folds, ProbeSettings(penalty=1e-1, balanced=False))
    assert (given.penalty, given.balanced) == (1e-1, False)


def test_macro_f1_is_that_of_scikit_learn(data):
    codes = data[1]
    predicted = np.roll(codes, 1)
    assert macro_f1(codes, predicted, 3) == pytest.approx(f1_score(codes, predicted, average="macro"))


def test_folds_are_strips_of_each_slide_or_whole_groups():
    rng = np.random.default_rng(0)
    places = rng.random((300, 2)) * [900, 300]
    slide = np.where(np.arange(300) < 200, "a", "b")
    rows = np.arange(0, 300, 2)
    folds = inner_folds(rows, coordinates=places, slide=slide)
    for name in "ab":
        here = rows[slide[rows] == name]
        ends = [places[here[folds[slide[rows] == name] == fold], 0] for fold in range(3)]
        assert ends[0].max() <= ends[1].min()
        assert ends[1].max() <= ends[2].min()
        assert np.ptp([end.size for end in ends]) <= 1
    by_slide = inner_folds(rows, coordinates=places, slide=slide, groups=slide)
    assert sorted({tuple(set(by_slide[slide[rows] == name])) for name in "ab"}) == [(0,), (1,)]
    one_group = inner_folds(rows, coordinates=places, slide=slide, groups=np.full(300, "x"))
    np.testing.assert_array_equal(one_group, folds)
    nowhere = inner_folds(rows, seed=3)
    assert np.bincount(nowhere).tolist() == [50, 50, 50]
    np.testing.assert_array_equal(inner_folds(rows, slide=slide), by_slide)
    unknown = np.where(np.arange(300)[:, None] == rows[0], np.nan, places)
    np.testing.assert_array_equal(inner_folds(rows, coordinates=unknown, slide=slide), by_slide)
    np.testing.assert_array_equal(inner_folds(rows, slide=np.full(300, "x"), seed=3), nowhere)


def test_the_better_of_two_equals_is_not_clearly_better():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    tiles = spatial_tiles(rng.random((600, 2)) * 1000)
    one, other = (np.where(rng.random(600) < 0.8, labels, (labels + 1) % 3) for _ in range(2))
    assert is_clearly_better(labels, labels, one, tiles)
    assert not is_clearly_better(labels, one, labels, tiles)
    assert not is_clearly_better(labels, one, one, tiles)
    assert not (is_clearly_better(labels, one, other, tiles) and is_clearly_better(labels, other, one, tiles))


def test_baselines_see_training_cells_alone():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    counts = rng.poisson(np.where(labels[:, None] == np.arange(6) % 2, 6, 1))
    fit, judged = np.arange(120), np.arange(120, 200)
    logs = np.log1p(counts).astype(np.float32)
    predictions = baseline_predictions(counts, labels, fit, judged, fit % 3, log_counts=logs)
    assert set(predictions) == {
        "most frequent class", "PCA, 15 neighbours", "PCA, logistic regression", "log counts, logistic regression",
    }  # fmt: skip
    for name in ("PCA, logistic regression", "log counts, logistic regression"):
        assert (predictions[name] == labels[judged]).mean() > 0.9
    assert (predictions["most frequent class"] == np.bincount(labels[:120]).argmax()).all()
    hidden = labels.copy()
    hidden[judged] = -1
    first_only = baseline_predictions(counts, hidden, fit, judged[:1], fit % 3, log_counts=logs)
    for name, predicted in predictions.items():
        assert first_only[name][0] == predicted[0]
