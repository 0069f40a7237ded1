import numpy as np
import pytest

from spaf_train import auroc
from spaf_train.objectives.score_summary import ScoreSummary, auroc_of


def draw(seed, n, *, shift=0.0, spread=1.0):
    generator = np.random.default_rng(seed)
    labels = generator.random(n) < 0.05
    return (shift + spread * (generator.normal(size=n) + 0.5 * labels)).astype(np.float32), labels


def area(pieces, **sizes):
    summary = ScoreSummary(**sizes)
    for scores, labels in pieces:
        summary.add(scores, labels)
    return auroc_of([summary.parts()])[0]


def exact(pieces):
    scores, labels = (np.concatenate(side) for side in zip(*pieces, strict=True))
    return auroc(scores, labels)


def test_few_scores_are_exact_ties_included():
    pieces = [draw(seed, 900) for seed in range(5)]
    pieces = [(np.round(scores, 1), labels) for scores, labels in pieces]
    assert area(pieces) == pytest.approx(exact(pieces), abs=1e-12)


@pytest.mark.parametrize(
    "pieces",
    [
        [draw(seed, 5_000) for seed in range(100)],
        [draw(seed, 5_000, shift=-3.0, spread=1e-3) for seed in range(100)],  # nearly equal logits
        [draw(seed, 5_000, shift=0.05 * seed) for seed in range(100)],  # one slide after another
        [draw(seed, 5_000, shift=50.0 * (seed > 50)) for seed in range(100)],
        [tuple(np.sort(side) for side in draw(0, 500_000))],  # all negatives first
    ],
    ids=["plain", "narrow", "drifting", "jumping", "sorted"],
)
def test_many_scores_in_bounded_memory_give_the_same_area_to_a_ten_thousandth(pieces):
    sizes = {"buffer": 20_000, "groups": 8_192}
    assert area(pieces, **sizes) == pytest.approx(exact(pieces), abs=1e-4)
    summary = ScoreSummary(**sizes)
    for scores, labels in pieces:
        summary.add(scores, labels)
        assert summary._values.size <= 8_192 + 1
        assert summary._n_held < 20_000
    assert summary.parts()[1].sum() == sum(scores.size for scores, _ in pieces)


def test_summaries_of_several_processes_add_up():
    pieces = [draw(seed, 5_000) for seed in range(40)]
    summaries = [ScoreSummary(buffer=10_000, groups=4_096) for _ in range(3)]
    for place, (scores, labels) in enumerate(pieces):
        summaries[place % 3].add(scores, labels)
    found, n_negative, n_positive = auroc_of(summary.parts() for summary in summaries)
    assert found == pytest.approx(exact(pieces), abs=1e-4)
    assert (n_negative, n_positive) == tuple(
        sum(int((labels == side).sum()) for _, labels in pieces) for side in (False, True)
    )


def test_one_class_has_no_area():
    assert np.isnan(area([(np.ones(3, np.float32), np.ones(3))]))
    assert np.isnan(area([]))
