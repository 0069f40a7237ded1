"""The sentences of a report that depend on its numbers, so that no page can claim what its intervals do not carry."""

import math

from spaf_analysis.cell_pairs import SCORES, CellPairBenchmark
from spaf_analysis.gene_pairs import GenePairs
from spaf_analysis.metrics import CellPairEvaluation, Interval, verdict
from spaf_data import Distances


def far_of(distances: Distances) -> dict[str, str]:
    """Say for each kind of negatives how far apart its cells are."""
    return {
        "easy": f"more than {distances.easy_min:g} µm apart",
        "hard": f"{distances.hard_min:g}–{distances.hard_max:g} µm apart",
    }


def interval_text(interval: Interval, *, signed: bool = False) -> str:
    """Write a value and its 95 % interval, such as "0.772 (0.741 to 0.803)"."""
    value = number_text(interval.value, signed=signed)
    if not math.isfinite(interval.low):
        return f"{value} (too little tissue for an interval)"
    return f"{value} ({number_text(interval.low, signed=signed)} to {number_text(interval.high, signed=signed)})"


def pair_headline(benchmark: CellPairBenchmark) -> str:
    """Write one sentence for the summary: how well neighbours are told apart, and whether PCA does as well."""
    if benchmark.evaluation is None:
        return f"How well the model recognises neighbouring cells could not be judged: {benchmark.reason}."
    sentences = (_headline(benchmark, negatives) for negatives in far_of(benchmark.distances))
    radius = benchmark.main_radius
    nothing = f"The held-out region is too small to judge neighbours within {radius:g} µm against other cells."
    return next((sentence for sentence in sentences if sentence), nothing)


def _headline(benchmark: CellPairBenchmark, negatives: str) -> str:
    """Write the headline for one kind of negatives, or nothing where the held-out region has none."""
    evaluation, radius, far = benchmark.evaluation, benchmark.main_radius, far_of(benchmark.distances)
    assert evaluation is not None, "asked for by who has one"
    try:
        ours = evaluation.interval("model", radius, negatives)
        pca = evaluation.interval("pca", radius, negatives)
        difference = evaluation.difference("model", "pca", radius, negatives)
    except KeyError:
        return ""
    outcome = {
        "better": "better than",
        "worse": "worse than",
        "tied": "which cannot be told apart from",
        "unknown": "with too little tissue to compare it with",
    }[verdict(difference)]
    return (
        f"In tissue held out from training, its cell-pair score ranks neighbours (within {radius:g} µm) above "
        f"cells {far[negatives]} with an AUROC of {interval_text(ours)}, {outcome} the {pca.value:.3f} of a principal "
        "component analysis, which needs no training."
    )


def pair_verdicts(benchmark: CellPairBenchmark) -> list[str]:
    """Write sentences that say whether the model wins, ties or loses against each baseline at the main radius."""
    if benchmark.evaluation is None:
        return []
    sentences = []
    radius = benchmark.main_radius
    for negatives, far in far_of(benchmark.distances).items():
        parts = []
        for baseline in ("pca", "logistic"):
            part = _comparison(benchmark.evaluation, baseline, radius, negatives)
            if part:
                parts.append(part)
        if parts:
            sentences.append(f"Neighbours within {radius:g} µm against cells {far}: {'; '.join(parts)}.")
    return sentences + not_judged(benchmark)


def not_judged(benchmark: CellPairBenchmark) -> list[str]:
    """Write sentences that say what could not be judged, and why."""
    evaluation, far = benchmark.evaluation, far_of(benchmark.distances)
    if evaluation is None:
        return [f"Neighbouring cells were not judged: {benchmark.reason}."]
    sentences = [
        f"Neighbours were not judged against cells {far[kind]}: the held-out region has no cells at such a distance."
        for kind in evaluation.unjudged
    ]
    sentences += [
        f"“{SCORES[name]}” was not judged: the training region has no neighbours with cells far enough apart to learn "
        "from."
        for name in SCORES
        if not (evaluation.scores["score"] == name).any()
    ]
    return sentences


def _comparison(evaluation: CellPairEvaluation, baseline: str, radius: float, negatives: str) -> str:
    try:
        difference = evaluation.difference("model", baseline, radius, negatives)
    except KeyError:
        return ""
    outcome = {
        "better": "the model wins against",
        "worse": "the model loses against",
        "tied": "the model ties with",
        "unknown": "no verdict against",
    }[verdict(difference)]
    return f"{outcome} “{SCORES[baseline]}”, difference in AUROC {interval_text(difference, signed=True)}"


def gene_pair_method(ranked: GenePairs) -> str:
    """Say what the expectation of the gene pairs is, and what it cannot tell."""
    if ranked.method == "enrichment":
        return (
            "For each pair of genes, the number of neighbouring transcript pairs (one of each gene, in the same cell) "
            "is compared with its expectation when one gene is held in place and the labels of all others are shuffled "
            "among their transcripts, within the nucleus and within the rest of each cell; of the two directions the "
            "weaker counts. This accounts for how much of either gene a cell has, so the pairs below sit together more "
            "than their abundance explains. Ranked by z, the excess in standard deviations."
        )
    return (
        "For each pair of genes, the number of cells in which the two are co-localised is compared with what is "
        "expected if the cells in which either takes part in any co-localised pair were spread independently "
        "(hypergeometric test). This corrects for how common either gene is, but genes of the same cell type come out "
        "high as well: it does not separate sitting together from being expressed together."
    )


def number_text(value: float, *, signed: bool = False) -> str:
    """Write three decimals, with a sign for differences."""
    return f"{value:+.3f}".replace("-", "−") if signed else f"{value:.3f}"
