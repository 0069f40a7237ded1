"""The section of the report on whether neighbours look like neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from markupsafe import Markup

from spaf_analysis.cell_pairs.compute import SCORES, CellPairBenchmark
from spaf_analysis.cell_pairs.plot import far_titles, pair_intervals
from spaf_analysis.cell_pairs.tool import benchmark_cell_pairs
from spaf_analysis.metrics import (
    BASELINES,
    EMBEDDING,
    FURTHER_BASELINES,
    LOGISTIC,
    MODEL,
    NEIGHBOURS,
    NETWORK,
    OWN_PCA,
    PCA,
    PEARSON,
    RANDOM,
    TOWER,
    Z_PCA,
    Interval,
    verdict,
)
from spaf_analysis.report.options import ReportOptions
from spaf_analysis.report.section import Card, Context, Picture, Section
from spaf_analysis.report.words import figure, interval_entry, interval_text, number_text, plain_rows

if TYPE_CHECKING:
    from spaf_data import Distances

# What the scores are called in summary.json.
NAMES = {
    MODEL: "model",
    EMBEDDING: "embedding",
    PCA: "pca",
    PEARSON: "pearson",
    OWN_PCA: "own_pca",
    Z_PCA: "z_pca",
    NEIGHBOURS: "neighbours",
    LOGISTIC: "logistic",
    NETWORK: "network",
    TOWER: "tower",
    RANDOM: "random",
}
_COMPARED = (*BASELINES, *FURTHER_BASELINES)


@dataclass(frozen=True)
class CellPairsSection(Section):
    """Cell pairs in the validation region.

    Attributes
    ----------
    benchmark
        What was judged.
    options
        On how much.
    best_step
        The step of training whose weights were kept.
    """

    benchmark: CellPairBenchmark
    options: ReportOptions
    best_step: int | None
    figures: tuple[Picture, ...]

    anchor = "pairs"
    title = "Do neighbours look like neighbours?"
    doing = "judging cell pairs"
    template = """
{% if section.benchmark.evaluation is none %}
<p class="note">Not judged: {{ section.benchmark.reason }}.</p>
{% else %}
<p>Cells that sit side by side share their surroundings. A model that has learned something about tissue should rank two
neighbours above two cells of different places. Each pair of neighbours in the validation region is compared with a pair
of the same first cell and a cell further away: more than {{ far.easy_min | figure(0) }} µm (which mostly asks whether
the model sees tissue regions), or {{ far.hard_min | figure(0) }}–{{ far.hard_max | figure(0) }} µm (which asks for the
neighbourhood itself and is harder).</p>
<div class="note">
<b>What the intervals allow to say</b>
<ul>
{% for sentence in verdicts %}
<li>{{ sentence }}</li>
{% endfor %}
{% if section.best_step is not none %}
<li>The weights kept are those that did best on this validation region (step {{ section.best_step | count }}), a small
advantage for the model over the baselines.</li>
{% endif %}
</ul>
</div>
{{ show(section.figures, "wide") }}
{% for measure, name in (("auroc", "AUROC"), ("auprc", "AUPRC")) %}
<div class="scroll">
<table class="scores">
<caption>{{ name }} in the validation region with 95 % intervals
{%- if measure == "auprc" %} (area under the precision-recall curve){% endif %};
positives and negatives 1 : 1, so 0.5 is chance.
{%- if tiles.are_few %} Intervals are rough: they come from {{ tiles.n | count }} tiles of tissue.{% endif %}</caption>
<thead><tr><th class="text">Neighbours within</th><th>Pairs</th>
{% for label in scores.values() %}<th>{{ label }}</th>{% endfor %}
<th>{{ first }} minus the best of the others</th></tr></thead>
<tbody>
{% for row in rows %}
{% if loop.changed(row.negatives) %}
<tr class="group"><td class="text" colspan="{{ scores | length + 3 }}">against cells {{ row.negatives }}</td></tr>
{% endif %}
<tr><td class="text">{{ row.radius | figure(0) }} µm</td><td>{{ row.n | count }}</td>
{% for score in scores %}<td>{{ row[measure][score] }}</td>{% endfor %}
<td>{{ row[measure].difference }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
<h3>How it was measured</h3>
<p>At most {{ section.options.max_pairs | count }} pairs of neighbours at each radius, drawn by seed
{{ section.options.seed }} from {{ section.benchmark.n_validation | count }} held-out cells.
{%- if has_head %} <b>Pair head</b>: the model reads both cells and gives the probability that they are neighbours.
{%- endif %} <b>Cosine</b> is that of two embeddings, seen from the centre of the judged slide. <b>PCA</b>: 30 principal
components of log-normalised counts, fitted on {{ section.benchmark.n_train | count }} training cells; <b>Pearson
residual PCA</b>: 50 of analytic Pearson residuals. <b>PCA of the judged slide</b>: 30 components of the held-out cells
themselves, plain or of z-scores. <b>Neighbours in closed form</b>: what a training cell shares with the mean of its
neighbours. <b>Logistic regression</b>: trained on pairs of the training region within
{{ section.benchmark.main_radius | figure(0) }} µm, from differences and products of the principal components.
<b>Pair network</b>: a small neural network trained on the same question with 50 components. <b>Tower</b>: a small
network trained by contrast of neighbours, with 1,500 training cells or more. <b>Random encoder</b>: the model with
random weights.</p>
<p>Intervals come from {{ section.options.n_replicates | count }} resampled tissues, put together from
{{ tiles.n | count }} square tiles of {{ tiles.side | figure(0) }} µm drawn with replacement. Pairs share cells and
cells share surroundings, so resampling pairs one by one would give intervals that are much too narrow. All scores and
differences are computed on the same resampled tissues.
{%- if tiles.are_few %} With fewer than 20 tiles the intervals are rough, and no ground for a verdict.{% endif %}</p>
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Judge, and draw the AUROC of all scores at all radii."""
        options, inputs = context.options, context.inputs
        benchmark = benchmark_cell_pairs(
            inputs.adata, inputs.model, key=options.key, distances=inputs.distances, max_pairs=options.max_pairs,
            n_replicates=options.n_replicates, seed=options.seed,
        )  # fmt: skip
        return cls(benchmark, options, inputs.best_step, _pictures(benchmark))

    def numbers(self) -> dict[str, Any]:
        """Return the AUROCs at the main radius, and every row of the table."""
        return pair_numbers(self.benchmark)

    def sentences(self) -> tuple[str, ...]:
        """Say how well neighbours are told apart, and whether the best baseline does as well."""
        return (pair_headline(self.benchmark),)

    def cards(self) -> tuple[Card, ...]:
        """Show the AUROC beside that of the best baseline."""
        radius = self.benchmark.main_radius
        ours, best = _judged(self.benchmark, self.benchmark.first, "easy"), strongest(self.benchmark, "easy")
        if ours is None:
            return ()
        beside = "" if best is None else f"; {SCORES[best[0]]} {figure(best[1].value, 3)}"
        return (Card(figure(ours.value, 3), f"AUROC of neighbours within {radius:.0f} µm{beside}"),)

    def view(self) -> dict[str, Any]:
        """Return verdicts and the rows of the tables."""
        evaluation = self.benchmark.evaluation
        if evaluation is None:
            return {}
        return {
            "far": self.benchmark.distances,
            "tiles": evaluation.tiles,
            "verdicts": pair_verdicts(self.benchmark),
            "scores": _judged_scores(self.benchmark),
            "first": "Pair head" if self.benchmark.first == MODEL else "Cosine of embeddings",
            "has_head": self.benchmark.first == MODEL,
            "rows": _rows(self.benchmark),
        }


def pair_headline(benchmark: CellPairBenchmark) -> str:
    """Write one sentence for the summary: how well neighbours are told apart, and whether the best baseline does so."""
    if benchmark.evaluation is None:
        return f"How well the model recognises neighbouring cells could not be judged: {benchmark.reason}."
    sentences = (_headline(benchmark, negatives) for negatives in far_of(benchmark.distances))
    radius = benchmark.main_radius
    nothing = f"The held-out region is too small to judge neighbours within {radius:g} µm against other cells."
    return next((sentence for sentence in sentences if sentence), nothing)


def pair_verdicts(benchmark: CellPairBenchmark) -> list[str]:
    """Write sentences that say whether the model wins, ties or loses against each baseline at the main radius."""
    if benchmark.evaluation is None:
        return []
    sentences = []
    radius = benchmark.main_radius
    for negatives, far in far_of(benchmark.distances).items():
        parts = [_comparison(benchmark, baseline, negatives) for baseline in _COMPARED]
        if any(parts):
            sentences.append(f"Neighbours within {radius:g} µm against cells {far}: {'; '.join(filter(None, parts))}.")
    tiles = benchmark.evaluation.tiles
    if tiles.are_few:
        sentences.append(f"The held-out region has {tiles.n} tiles of tissue, too few for any verdict.")
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
        for name in BASELINES
        if not (evaluation.scores["score"] == name).any()
    ]
    return sentences


def pair_numbers(benchmark: CellPairBenchmark) -> dict[str, Any]:
    """Return the AUROCs at the main radius with their intervals, and every row of the table.

    AUROCs stand against easy negatives unless their name ends in `_hard`; what could not be computed is None. Without a
    name they are those of the pair head or, of a model that has none, of the cosine of its embeddings.
    `not_judged` holds the sentences that say what the table lacks, `pair_intervals_rough` whether intervals come from
    fewer than 20 tiles of tissue.
    """
    summary: dict[str, Any] = {}
    name = f"pair_auroc_{benchmark.main_radius:g}um"
    for negatives, ending in (("easy", ""), ("hard", "_hard")):
        summary |= interval_entry(f"{name}{ending}", _judged(benchmark, benchmark.first, negatives))
        for score, short in NAMES.items():
            if score != MODEL:
                summary |= interval_entry(f"{name}{ending}_{short}", _judged(benchmark, score, negatives))
        for baseline in _COMPARED:
            minus = _judged(benchmark, benchmark.first, negatives, minus=baseline)
            summary |= interval_entry(f"{name}{ending}_minus_{NAMES[baseline]}", minus)
    summary["not_judged"] = not_judged(benchmark)
    if benchmark.evaluation is not None:
        table = benchmark.evaluation.scores
        summary["cell_pairs"] = plain_rows(table.assign(score=table["score"].map(NAMES)))
        summary["pair_intervals_rough"] = benchmark.evaluation.tiles.are_few
    return summary


def far_of(distances: Distances) -> dict[str, str]:
    """Say for each kind of negatives how far apart its cells are."""
    return {
        "easy": f"more than {distances.easy_min:g} µm apart",
        "hard": f"{distances.hard_min:g}–{distances.hard_max:g} µm apart",
    }


def _headline(benchmark: CellPairBenchmark, negatives: str) -> str:
    """Write the headline for one kind of negatives, or nothing where the held-out region has none."""
    radius, far = benchmark.main_radius, far_of(benchmark.distances)
    ours, best = _judged(benchmark, benchmark.first, negatives), strongest(benchmark, negatives)
    if ours is None or best is None:
        return ""
    name, theirs, difference = best
    outcome = {
        "better": "better than",
        "worse": "worse than",
        "tied": "which cannot be told apart from",
        "unknown": "with too little tissue to compare it with",
    }[_verdict(benchmark, difference)]
    return (
        f"In tissue held out from training, its cell-pair score ranks neighbours (within {radius:g} µm) above "
        f"cells {far[negatives]} with an AUROC of {interval_text(ours)}, {outcome} the {theirs.value:.3f} of the best "
        f"baseline (“{SCORES[name]}”)."
    )


def strongest(
    benchmark: CellPairBenchmark, negatives: str, radius: float | None = None, measure: str = "auroc"
) -> tuple[str, Interval, Interval] | None:
    """Return the best baseline, its value, and what the first score has more; at the main radius if none is given."""
    evaluation, radius = benchmark.evaluation, benchmark.main_radius if radius is None else radius
    if evaluation is None:
        return None
    found = []
    for name in _COMPARED:
        try:
            theirs = evaluation.interval(name, radius, negatives, measure)
            found.append((name, theirs, evaluation.difference(benchmark.first, name, radius, negatives, measure)))
        except KeyError:
            continue
    return max(found, key=lambda one: one[1].value, default=None)


def _verdict(benchmark: CellPairBenchmark, difference: Interval) -> str:
    return verdict(difference, None if benchmark.evaluation is None else benchmark.evaluation.tiles.n)


def _comparison(benchmark: CellPairBenchmark, baseline: str, negatives: str) -> str:
    difference = _judged(benchmark, benchmark.first, negatives, minus=baseline)
    if difference is None:
        return ""
    outcome = {
        "better": "the model wins against",
        "worse": "the model loses against",
        "tied": "the model ties with",
        "unknown": "no verdict against",
    }[_verdict(benchmark, difference)]
    return f"{outcome} “{SCORES[baseline]}”, difference in AUROC {interval_text(difference, signed=True)}"


def _judged(benchmark: CellPairBenchmark, score: str, negatives: str, *, minus: str | None = None) -> Interval | None:
    """Return a score at the main radius, or what it has more than another one; None where it was not judged."""
    evaluation, radius = benchmark.evaluation, benchmark.main_radius
    if evaluation is None:
        return None
    try:
        if minus is not None:
            return evaluation.difference(score, minus, radius, negatives)
        return evaluation.interval(score, radius, negatives)
    except KeyError:
        return None


def _pictures(benchmark: CellPairBenchmark) -> tuple[Picture, ...]:
    if benchmark.evaluation is None:
        return ()
    titles, table = far_titles(benchmark.distances), benchmark.evaluation.scores
    axes = pair_intervals(table, _judged_scores(benchmark), titles)
    alt = "; ".join(
        f"{SCORES[row['score']]} within {row['radius']:g} µm {titles[row['negatives']]}: {row['auroc']:.3f}"
        for row in table.to_dict(orient="records")
    )
    caption = (
        "AUROC with 95 % intervals: the share of cases in which a pair of neighbours scores above another pair. "
        "0.5 (dotted) is chance, 1 is perfect."
    )
    return (Picture.of(axes[0], f"AUROC of neighbouring cells. {alt}", caption),)


def _rows(benchmark: CellPairBenchmark) -> list[dict[str, Any]]:
    """Rows of the tables: the case, then for each measure the scores and the difference to the best baseline."""
    evaluation = benchmark.evaluation
    assert evaluation is not None, "asked for by who has one"
    rows, judged, rough = [], _judged_scores(benchmark), evaluation.tiles.are_few
    cases = evaluation.scores[["negatives", "radius", "n_positives"]].drop_duplicates()
    far = far_of(benchmark.distances)
    for negatives in far:
        for case in cases[cases.negatives == negatives].to_dict(orient="records"):
            radius = float(case["radius"])
            values = {}
            for measure in ("auroc", "auprc"):
                best = strongest(benchmark, negatives, radius, measure)
                values[measure] = {
                    **{
                        score: _cell(evaluation.interval(score, radius, negatives, measure), rough=rough)
                        for score in judged
                    },
                    "difference": Markup() if best is None else _cell(best[2], signed=True, rough=rough),
                }
            rows.append({"negatives": far[negatives], "radius": radius, "n": case["n_positives"], **values})
    return rows


def _judged_scores(benchmark: CellPairBenchmark) -> dict[str, str]:
    """Names of the scores that were judged."""
    found = set() if benchmark.evaluation is None else set(benchmark.evaluation.scores["score"])
    return {name: title for name, title in SCORES.items() if name in found}


def _cell(interval: Interval, *, signed: bool = False, rough: bool = False) -> Markup:
    value, low, high = (number_text(number, signed=signed) for number in interval)
    if not math.isfinite(interval.low):
        return Markup("{}").format(value)
    return Markup('{} <span class="interval">{}{} to {}</span>').format(value, "rough " * rough, low, high)
