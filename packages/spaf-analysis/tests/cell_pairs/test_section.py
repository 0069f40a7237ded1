from dataclasses import replace

import pandas as pd
import pytest

from spaf_analysis.cell_pairs import CellPairBenchmark
from spaf_analysis.cell_pairs import section as wording
from spaf_analysis.metrics import CellPairEvaluation, Tiles


def benchmark(low, high):
    """A benchmark in which the difference of model and baselines has these bounds."""
    case = {"radius": 30.0, "n_positives": 10}
    bounds = {"auroc": 0.7, "auroc_low": 0.6, "auroc_high": 0.8, "auprc": 0.7, "auprc_low": 0.6, "auprc_high": 0.8}
    scores = [
        {"score": name, "negatives": kind, **case, **bounds}
        for name in ("model", "PCA cosine")
        for kind in ("easy", "hard")
    ]
    difference = {"auroc": (low + high) / 2, "auroc_low": low, "auroc_high": high}
    differences = [
        {"score": "model", "baseline": baseline, "negatives": kind, **case, **difference}
        for baseline in ("PCA cosine", "PCA logistic")
        for kind in ("easy", "hard")
    ]
    evaluation = CellPairEvaluation(pd.DataFrame(scores), pd.DataFrame(differences), Tiles([], 30, 50.0), 10)
    return CellPairBenchmark(evaluation, "", 20, 10, 60.0)


@pytest.mark.parametrize(
    ("low", "high", "headline", "verdict"),
    [
        (0.01, 0.05, "better than the 0.700", "the model wins against"),
        (-0.05, -0.01, "worse than the 0.700", "the model loses against"),
        (-0.05, 0.01, "which cannot be told apart from the 0.700", "the model ties with"),
        (float("nan"), float("nan"), "too little tissue", "no verdict"),
    ],
)
def test_sentences_follow_the_interval(low, high, headline, verdict):
    judged = benchmark(low, high)
    assert headline in wording.pair_headline(judged)
    sentences = wording.pair_verdicts(judged)
    sentences = [sentence for sentence in sentences if "not judged" not in sentence]  # the two scores made up here
    assert len(sentences) == 2
    assert all(sentence.count(verdict) == 2 for sentence in sentences)


def test_the_headline_is_of_what_could_be_judged():
    judged = benchmark(0.01, 0.05)
    table, differences = (
        frame[frame.negatives == "hard"] for frame in (judged.evaluation.scores, judged.evaluation.differences)
    )
    hard = CellPairBenchmark(replace(judged.evaluation, scores=table, differences=differences), "", 20, 10, 60.0)
    assert "80–150 µm apart with an AUROC of 0.700" in wording.pair_headline(hard)
    assert "not judged against cells more than 150 µm apart" in wording.not_judged(hard)[0]


def test_no_evaluation_gives_the_reason():
    none = CellPairBenchmark(None, "only 2 cells were held out", 20, 2, float("nan"))
    assert wording.pair_headline(none).endswith("could not be judged: only 2 cells were held out.")
    assert wording.pair_verdicts(none) == []


def test_intervals_over_few_tiles_are_marked_in_the_tables():
    for n_tiles, rough in ((19, True), (20, False)):
        judged = benchmark(0.01, 0.05)
        judged = replace(judged, evaluation=replace(judged.evaluation, tiles=Tiles([], n_tiles, 50.0)))
        table = judged.evaluation.differences.assign(auprc=0.03, auprc_low=0.01, auprc_high=0.05)
        judged = replace(judged, evaluation=replace(judged.evaluation, differences=table))
        cells = [cell for row in wording._rows(judged) for cell in row["auroc"].values()]
        assert all(("rough" in cell) is rough for cell in cells)
        assert wording.pair_numbers(judged)["pair_intervals_rough"] is rough


def test_the_headline_compares_with_the_best_baseline():
    judged = benchmark(0.01, 0.05)
    scores = judged.evaluation.scores
    best = scores[scores["score"] == "PCA cosine"].assign(score="neighbours, closed form", auroc=0.75)
    lost = judged.evaluation.differences
    lost = lost[lost["baseline"] == "PCA cosine"].assign(
        baseline="neighbours, closed form", auroc=-0.05, auroc_low=-0.07, auroc_high=-0.03
    )
    evaluation = replace(
        judged.evaluation,
        scores=pd.concat([scores, best]),
        differences=pd.concat([judged.evaluation.differences, lost]),
    )
    judged = replace(judged, evaluation=evaluation)
    headline = wording.pair_headline(judged)
    assert "worse than the 0.750 of the best baseline (“neighbours in closed form, cosine”)" in headline


def test_few_tiles_are_no_verdict():
    judged = benchmark(0.01, 0.05)
    judged = replace(judged, evaluation=replace(judged.evaluation, tiles=Tiles([], 12, 50.0)))
    assert "with too little tissue to compare it with the 0.700" in wording.pair_headline(judged)
    sentences = wording.pair_verdicts(judged)
    assert "The held-out region has 12 tiles of tissue, too few for any verdict." in sentences
    assert not any("the model wins" in sentence for sentence in sentences)
