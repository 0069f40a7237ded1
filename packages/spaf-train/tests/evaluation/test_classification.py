import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from spaf_train.evaluation import spatial_tiles
from spaf_train.evaluation.classification import classification_scores, evaluate_predictions, prediction_differences


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 3], 60)  # class 2 has no cell, class 4 neither cell nor prediction
    predicted = np.where(rng.random(60) < 0.6, labels, rng.integers(0, 4, 60))
    scores = classification_scores(confusion_matrix(labels, predicted, labels=range(5)))
    assert scores.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert scores.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    recall = [(predicted[labels == code] == code).mean() for code in (0, 1, 3)]
    assert scores.balanced_accuracy == pytest.approx(np.mean(recall))


def test_balanced_accuracy_where_every_class_is_there():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    scores = classification_scores(confusion_matrix(labels, predicted))
    assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_intervals_hold_the_value_and_perfect_predictions_have_none():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    tiles = spatial_tiles(rng.random((400, 2)) * 1000)
    guesses = np.where(rng.random(400) < 0.7, labels, (labels + 1) % 3)
    table = evaluate_predictions(
        labels, {"perfect": labels, "guess": guesses}, 3, tiles, n_replicates=200, seed=0
    ).set_index("score")
    assert table.loc["perfect", "macro_f1_low"] == table.loc["perfect", "macro_f1"] == 1.0
    guess = table.loc["guess"]
    assert guess["accuracy"] == pytest.approx((guesses == labels).mean())
    assert guess["accuracy_low"] < guess["accuracy"] < guess["accuracy_high"]


def test_differences_are_paired_and_few_tiles_are_no_verdict():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    places = rng.random((400, 2)) * 1000
    guesses = np.where(rng.random(400) < 0.7, labels, (labels + 1) % 3)
    predictions = {"mine": labels, "same": labels, "guess": guesses}
    many = prediction_differences(labels, predictions, 3, spatial_tiles(places), n_replicates=200, seed=0)
    many = many.set_index("baseline")
    assert many.loc["same", ["macro_f1", "macro_f1_low", "macro_f1_high"]].tolist() == [0.0, 0.0, 0.0]
    assert many["verdict"].to_dict() == {"same": "tied", "guess": "better"}
    expected = 1.0 - f1_score(labels, guesses, average="macro")
    assert many.loc["guess", "macro_f1"] == pytest.approx(expected)
    few = prediction_differences(labels, predictions, 3, spatial_tiles(places, side=300.0), n_replicates=200, seed=0)
    assert few["n_tiles"].tolist() == [16, 16]
    assert few["verdict"].tolist() == ["unknown", "unknown"]
