import numpy as np
import pytest
import torch

from spaf_train.objectives.base import Loss
from spaf_train.objectives.counts import Answers
from spaf_train.objectives.explained import Explained, ExplainedScores, explained_shares, packed


def scored(ids, truth, answer, totals, baseline=None, pieces=1):
    parts = []
    for piece in np.array_split(np.arange(ids.size), pieces):
        scores = ExplainedScores()
        index = torch.from_numpy(piece)
        found = Answers(
            torch.from_numpy(ids)[index], torch.from_numpy(truth).float()[index],
            torch.from_numpy(answer).float()[index], torch.zeros(piece.size), None if totals is None else
            torch.from_numpy(totals).float()[index],
        )  # fmt: skip
        given = None if baseline is None else torch.from_numpy(baseline).float()[index]
        scores.add(Loss(torch.zeros(()), 1.0, packed(found, given)), None)
        parts.append(scores.parts())
    return explained_shares(parts)


def deviance(truth, means):
    return sum(2 * ((t * np.log(t / m) if t else 0.0) - (t - m)) for t, m in zip(truth, means, strict=True))


@pytest.mark.parametrize("pieces", [1, 3])
def test_counts_agree_with_a_slow_deviance(pieces):
    rng = np.random.default_rng(1)
    ids, totals = rng.integers(2, 6, 200), rng.uniform(50, 200, 200)
    truth = rng.poisson(totals / 50).astype(float)
    answer, baseline = rng.normal(1.0, 0.3, 200), rng.normal(1.0, 0.6, 200)
    means = {gene: truth[ids == gene].sum() / totals[ids == gene].sum() for gene in np.unique(ids)}
    of_means = deviance(truth, [total * means[gene] for gene, total in zip(ids, totals, strict=True)])
    share, of_baseline = scored(ids, truth, answer, totals, baseline, pieces)
    assert share == pytest.approx(1 - deviance(truth, np.exp(answer)) / of_means, rel=1e-4)
    assert of_baseline == pytest.approx(1 - deviance(truth, np.exp(baseline)) / of_means, rel=1e-4)


def test_values_agree_with_a_slow_r2():
    rng = np.random.default_rng(2)
    ids, truth = rng.integers(0, 3, 100), rng.normal(5, 2, 100)
    answer = truth + rng.normal(0, 1, 100)
    left = sum(((truth[ids == gene] - truth[ids == gene].mean()) ** 2).sum() for gene in range(3))
    share, baseline = scored(ids, truth, answer, None)
    assert share == pytest.approx(1 - ((truth - answer) ** 2).sum() / left, rel=1e-4)
    assert baseline is None


def test_a_verdict_says_what_was_not_learnt():
    assert Explained("x", 0.2).learnt
    assert not Explained("x", 0.001).learnt
    assert "Nothing was learnt of x" in Explained("x", -0.5).sentence()
    beaten = Explained("x", 0.2, 0.3, "the mean")
    assert not beaten.learnt
    assert beaten.sentence() == (
        "Of x no more was learnt than the mean says: on the validation split it explains 0.200 of what the gene means "
        "leave, and the mean 0.300."
    )
