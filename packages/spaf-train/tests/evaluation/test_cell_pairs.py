import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from spaf_model import InputError
from spaf_train.evaluation import Interval, evaluate_cell_pairs, matched_pairs, verdict


@pytest.fixture
def cells():
    return np.random.default_rng(0).random((500, 2)) * 500


def judge(coordinates, scores, **options):
    pairs = matched_pairs(coordinates, radii=(20.0, 30.0), max_pairs=200)
    comparisons = {name: tuple(other for other in scores if other != name) for name in scores}
    options = {"n_replicates": 200, "seed": 0, **options}
    return pairs, evaluate_cell_pairs(pairs, coordinates, scores, comparisons=comparisons, **options)


def test_perfect_and_random_scores(cells):
    rng = np.random.default_rng(0)
    _, result = judge(
        cells,
        {
            "perfect": lambda left, right: -np.linalg.norm(cells[left] - cells[right], axis=1),
            "random": lambda left, right: rng.random(len(left)),
        },
    )
    for kind in ("easy", "hard"):
        assert result.interval("perfect", 30.0, kind) == pytest.approx((1.0, 1.0, 1.0))
        random = result.interval("random", 30.0, kind, "auprc")
        assert random.low < 0.5 < random.high
        assert verdict(result.difference("perfect", "random", 30.0, kind)) == "better"
        assert verdict(result.difference("random", "perfect", 30.0, kind)) == "worse"
    assert len(result.scores) == 2 * 2 * 2


def test_value_is_the_auroc_of_the_pairs(cells):
    feature = np.random.default_rng(1).normal(size=500) + cells[:, 0] / 300

    def similar(left, right):
        return -np.abs(feature[left] - feature[right])

    pairs, result = judge(cells, {"similar": similar})
    rows = pairs.rows(20.0, "hard")
    scores = np.r_[similar(pairs.anchor[rows], pairs.neighbour[rows]), similar(pairs.anchor[rows], pairs.hard[rows])]
    expected = roc_auc_score(np.repeat([1, 0], len(rows)), scores)
    interval = result.interval("similar", 20.0, "hard")
    assert interval.value == pytest.approx(expected)
    assert interval.low < interval.value < interval.high


def test_equal_scores_tie_exactly(cells):
    def near(left, right):
        return np.cos(left * 7.0 + right * 7.0)

    _, result = judge(cells, {"a": near, "b": lambda left, right: 2 * near(left, right)})
    assert result.difference("a", "b", 30.0, "easy") == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)


def test_functions_get_the_positions_in_the_whole_table(cells):
    table = np.r_[np.full((100, 2), 1e6), cells]
    scores = {"near": lambda left, right: -np.linalg.norm(table[left] - table[right], axis=1)}
    _, result = judge(cells, scores, cells=np.arange(100, 600))
    assert result.interval("near", 30.0, "easy").value == pytest.approx(1.0)


def test_same_seed_same_result(cells):
    scores = {"x": lambda left, right: np.sin(left + right)}
    first, second = judge(cells, scores)[1], judge(cells, scores)[1]
    assert first.scores.equals(second.scores)


def test_score_that_is_not_finite_is_refused(cells):
    with pytest.raises(InputError, match="'broken' is not finite for"):
        judge(cells, {"broken": lambda left, right: np.full(len(left), np.nan)})


def test_verdict():
    assert verdict(Interval(0.1, -0.1, 0.3)) == "tied"
    assert verdict(Interval(0.1, 0.01, 0.3)) == "better"
    assert verdict(Interval(-0.1, -0.2, -0.01)) == "worse"
    assert verdict(Interval(0.1, float("nan"), float("nan"))) == "unknown"
