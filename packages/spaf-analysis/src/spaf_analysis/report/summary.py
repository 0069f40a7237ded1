"""The key numbers of a report, for programs."""

import math
from collections.abc import Mapping
from typing import Any

from spaf_analysis.cell_pairs import CellPairBenchmark
from spaf_analysis.metrics import Interval
from spaf_analysis.records import Record
from spaf_analysis.report.wording import not_judged


def summarize(
    *,
    n_cells: int,
    n_transcripts: int,
    n_genes: int,
    n_gene_pairs: int,
    account: dict[str, int],
    benchmark: CellPairBenchmark,
    records: tuple[Record, ...],
    not_learnt: Mapping[str, str],
) -> dict[str, Any]:
    """Return the content of `summary.json`.

    Parameters
    ----------
    n_cells, n_transcripts, n_genes
        Size of the table that was embedded.
    n_gene_pairs
        Gene pairs that are co-localised in at least one cell.
    account
        What was read, dropped and kept.
    benchmark
        Cell pairs in the validation region.
    records
        Of all stages.
    not_learnt
        A sentence for each objective of which training has learnt nothing.

    Returns
    -------
    dict
        Numbers, lists and dicts only; what could not be computed is None. AUROCs stand against easy negatives unless
        their name ends in `_hard`; `cell_pairs` holds the whole table, `not_judged` the sentences that say what it
        lacks.
    """
    seconds = {record.stage: _number(record.seconds, 3) for record in records}
    memory = {record.stage: _number(record.peak_rss_mb, 1) for record in records}
    summary: dict[str, Any] = {
        "n_cells": n_cells,
        "n_transcripts": n_transcripts,
        "n_genes": n_genes,
        "n_gene_pairs": n_gene_pairs,
        "account": account,
        "n_train_cells": benchmark.n_train,
        "n_validation_cells": benchmark.n_validation,
    }
    name = f"pair_auroc_{benchmark.main_radius:g}um"
    for negatives, ending in (("easy", ""), ("hard", "_hard")):
        for score, addition in (("model", ""), ("pca", "_pca"), ("embedding", "_embedding"), ("logistic", "_logistic")):
            interval = _judged(benchmark, score, negatives)
            summary |= _entry(f"{name}{ending}{addition}", interval)
        summary |= _entry(f"{name}{ending}_minus_pca", _compared(benchmark, "pca", negatives))
        summary |= _entry(f"{name}{ending}_minus_logistic", _compared(benchmark, "logistic", negatives))
    summary["not_judged"] = not_judged(benchmark)
    summary["not_learnt"] = dict(not_learnt)
    if benchmark.evaluation is not None:
        rows = benchmark.evaluation.scores.to_dict(orient="records")
        summary["cell_pairs"] = [{name: _plain(value) for name, value in row.items()} for row in rows]
    summary["seconds"] = seconds
    summary["peak_rss_mb"] = max((value for value in memory.values() if value is not None), default=None)
    summary["peak_rss_mb_per_step"] = memory
    return summary


def _judged(benchmark: CellPairBenchmark, score: str, negatives: str) -> Interval | None:
    if benchmark.evaluation is None:
        return None
    try:
        return benchmark.evaluation.interval(score, benchmark.main_radius, negatives)
    except KeyError:
        return None


def _compared(benchmark: CellPairBenchmark, baseline: str, negatives: str) -> Interval | None:
    if benchmark.evaluation is None:
        return None
    try:
        return benchmark.evaluation.difference("model", baseline, benchmark.main_radius, negatives)
    except KeyError:
        return None


def _entry(name: str, interval: Interval | None) -> dict[str, Any]:
    if interval is None:
        return {name: None, f"{name}_interval": None}
    low, high = _number(interval.low, 6), _number(interval.high, 6)
    return {name: _number(interval.value, 6), f"{name}_interval": None if low is None else [low, high]}


def _plain(value: Any) -> Any:
    return _number(value, 6) if isinstance(value, float) else value


def _number(value: float, digits: int) -> float | None:
    return round(float(value), digits) if math.isfinite(value) else None
