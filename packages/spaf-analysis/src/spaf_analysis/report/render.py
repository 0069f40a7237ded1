"""A report laid out as one HTML file that needs nothing beside itself."""

import json
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from spaf_analysis.cell_pairs import SCORES
from spaf_analysis.errors import InputError
from spaf_analysis.metrics import Interval
from spaf_analysis.report import wording
from spaf_analysis.report.pictures import N_GENE_PAIRS
from spaf_analysis.report.report import Report
from spaf_data import write_text
from spaf_model import check_output

# Rows of the account: kind, name, key, what became of them.
_ACCOUNT_ROWS = (
    ("Transcripts", "read from the run", "read", "all"),
    ("Transcripts", "control probes and codewords", "controls", "dropped"),
    ("Transcripts", "low quality (below the quality threshold)", "low_quality", "dropped"),
    ("Transcripts", "in no cell", "unassigned", "dropped"),
    ("Transcripts", "in cells with too few transcripts", "in_small_cells", "dropped"),
    ("Transcripts", "in analysed cells", "binned", "kept"),
    ("Cells", "with at least one transcript", "cells", "all"),
    ("Cells", "with too few transcripts", "small_cells", "dropped"),
    ("Cells", "analysed", "kept_cells", "kept"),
)


def render_html(report: Report) -> str:
    """Lay a report out.

    Parameters
    ----------
    report
        The content.

    Returns
    -------
    str
        A self-contained page: style and figures are inside, nothing is loaded.
    """
    environment = Environment(
        loader=PackageLoader("spaf_analysis.report"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "figure": _figure, "small": _small, "duration": _duration}
    return environment.get_template("template.html.j2").render(
        report=report,
        account=_account_rows(report.account),
        pair_rows=_pair_rows(report),
        scores=_judged_scores(report),
        gene_pair_rows=_gene_pair_rows(report),
        headline=wording.pair_headline(report.benchmark),
        verdicts=wording.pair_verdicts(report.benchmark),
        gene_pair_method=wording.gene_pair_method(report.gene_pairs) if report.gene_pairs else "",
        title=", ".join(report.slides[:4]) or "tissue",
    )


def write_report(report: Report, html: Path, summary: Path | None = None) -> None:
    """Write the page, and the key numbers as JSON.

    Parameters
    ----------
    report
        The content.
    html
        The page to write; an older one is replaced when the new one is complete.
    summary
        The JSON file to write; none if None.

    Raises
    ------
    InputError
        If a folder to write to does not exist.
    """
    check_places(html, summary)
    write_text(html, render_html(report))
    if summary is not None:
        write_text(summary, json.dumps(report.summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def check_places(*paths: Path | None) -> None:
    """Raise InputError where a file could not be written: better before a report is made than after."""
    for path in paths:
        if path is not None and not path.absolute().parent.exists():
            raise InputError(
                f"the folder {path.parent} does not exist; make it or choose another place for {path.name}."
            )
    check_output(*paths)


def _account_rows(account: dict[str, int]) -> list[dict[str, Any]]:
    """Rows of the account with shares of what was read; only what is known."""
    totals = {"Transcripts": account.get("read", 0), "Cells": account.get("cells", 0)}
    return [
        {
            "kind": kind,
            "name": name,
            "n": account[key],
            "share": 100 * account[key] / max(totals[kind], 1),
            "fate": fate,
        }
        for kind, name, key, fate in _ACCOUNT_ROWS
        if key in account
    ]


def _pair_rows(report: Report) -> list[dict[str, Any]]:
    """Rows of the tables of cell pairs: the case, then for each measure the scores and the difference to PCA."""
    evaluation = report.benchmark.evaluation
    if evaluation is None:
        return []
    rows, judged = [], _judged_scores(report)
    cases = evaluation.scores[["negatives", "radius", "n_positives"]].drop_duplicates()
    far = wording.far_of(report.benchmark.distances)
    for negatives in far:
        for case in cases[cases.negatives == negatives].to_dict(orient="records"):
            radius = float(case["radius"])
            values = {
                measure: {
                    **{score: _cell(evaluation.interval(score, radius, negatives, measure)) for score in judged},
                    "difference": _cell(evaluation.difference("model", "pca", radius, negatives, measure), signed=True),
                }
                for measure in ("auroc", "auprc")
            }
            rows.append(
                {
                    "negatives": far[negatives],
                    "radius": radius,
                    "n": case["n_positives"],
                    **values,
                }
            )
    return rows


def _judged_scores(report: Report) -> dict[str, str]:
    """Names of the scores that were judged."""
    evaluation = report.benchmark.evaluation
    found = set() if evaluation is None else set(evaluation.scores["score"])
    return {name: title for name, title in SCORES.items() if name in found}


def _cell(interval: Interval, *, signed: bool = False) -> Markup:
    value, low, high = (wording.number_text(number, signed=signed) for number in interval)
    if not math.isfinite(interval.low):
        return Markup("{}").format(value)
    return Markup('{} <span class="interval">{} to {}</span>').format(value, low, high)


def _gene_pair_rows(report: Report) -> list[dict[str, Any]]:
    if report.gene_pairs is None:
        return []
    rows = report.gene_pairs.enriched(N_GENE_PAIRS).to_dict(orient="records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _count(value: float) -> str:
    return f"{int(value):,}"


def _figure(value: float, digits: int = 1) -> str:
    return f"{value:,.{digits}f}" if math.isfinite(value) else "–"


def _small(value: float) -> str:
    """Write a probability: plain where it can be read, a bound where it is tiny."""
    if not math.isfinite(value):
        return "–"
    return "< 1e-15" if value < 1e-15 else f"{value:.2g}"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "–"
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds // 60)} min {int(seconds % 60)} s"
