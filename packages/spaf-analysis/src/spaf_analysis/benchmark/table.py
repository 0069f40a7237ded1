"""The rows of the table: each method beside the strongest baseline, with a verdict that follows from the interval."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spaf_analysis.benchmark.base import BASELINE, CONTROL, METHOD, TASKS, Judged, Score
from spaf_analysis.metrics import Interval, verdict
from spaf_analysis.report.words import interval_text

if TYPE_CHECKING:
    from spaf_analysis.benchmark.run import Cell

WORDS = {"better": "wins", "tied": "ties", "worse": "loses", "unknown": "no verdict"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A method against the strongest baseline, in one measure of one case.

    Attributes
    ----------
    data, task, case, measure, method
        What was judged.
    score
        Of the method.
    baseline
        The strongest one: of the measure, or of the one that the task chooses by.
    baseline_score, difference
        Its score, and the method less it on the same draws.
    verdict
        "wins", "ties" or "loses" by the paired interval; "no verdict" with fewer than 20 tiles or without an interval;
        "costs identity" of mixing that identity paid for.
    """

    data: str
    task: str
    case: str
    measure: str
    method: str
    score: Interval
    baseline: str
    baseline_score: Interval
    difference: Interval
    verdict: str


def rows_of(cells: Sequence[Cell]) -> tuple[Row, ...]:
    """Compare every method with the strongest baseline of each case and measure."""
    return tuple(row for cell in cells if cell.judged is not None for row in _rows(cell, cell.judged))


def _rows(cell: Cell, judged: Judged) -> list[Row]:
    task, rows = TASKS[cell.task], []
    for score in judged.scores:
        if score.role != METHOD:
            continue
        by = task.chosen_by.get(score.measure, score.measure)
        strongest = _strongest(judged, score.case, by, is_error=by in task.errors)
        if strongest is None:
            continue
        beside = _only(judged.scores, strongest, score.case, score.measure)
        found = [
            one for one in judged.differences
            if (one.name, one.baseline, one.case, one.measure) == (score.name, strongest, score.case, score.measure)
        ]  # fmt: skip
        if not found:
            continue
        (difference,) = found
        interval = Interval(difference.value, difference.low, difference.high)
        turned = Interval(-interval.value, -interval.high, -interval.low)
        is_error = score.measure in task.errors
        unit, n_units = judged.units
        said = verdict(turned if is_error else interval, n_units if unit == "tiles" else None)
        rows.append(
            Row(
                cell.data, cell.task, score.case, score.measure, score.name, _interval(score), strongest,
                _interval(beside), interval, difference.verdict or WORDS[said],
            )
        )  # fmt: skip
    return rows


def _strongest(judged: Judged, case: str, measure: str, *, is_error: bool) -> str | None:
    known = [
        score for score in judged.scores
        if score.role == BASELINE and (score.case, score.measure) == (case, measure) and math.isfinite(score.value)
    ]  # fmt: skip
    if not known:
        return None
    best = min(known, key=lambda score: score.value) if is_error else max(known, key=lambda score: score.value)
    return best.name


def _only(scores: Sequence[Score], name: str, case: str, measure: str) -> Score:
    (found,) = [one for one in scores if (one.name, one.case, one.measure) == (name, case, measure)]
    return found


def _interval(score: Score) -> Interval:
    return Interval(score.value, score.low, score.high)


@dataclasses.dataclass(frozen=True)
class Grid:
    """All scores of a task on a data set: methods, baselines and controls by case and measure.

    Attributes
    ----------
    data, task, title
        What was asked of what.
    columns
        Case and measure.
    names
        Methods first, then baselines, then controls.
    roles
        Of the names.
    scores
        By name, then by column; None where it was not judged.
    units
        What was drawn for the intervals.
    notes
        Sentences, those about what was not judged too.
    """

    data: str
    task: str
    title: str
    columns: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    roles: dict[str, str]
    scores: dict[str, tuple[Interval | None, ...]]
    units: str
    notes: tuple[str, ...]


def grids_of(cells: Sequence[Cell]) -> tuple[Grid, ...]:
    """Put the cells of a task on a data set side by side; a baseline is the same in all and stands once."""
    pairs = dict.fromkeys((cell.data, cell.task) for cell in cells)
    return tuple(_grid(data, task, [one for one in cells if (one.data, one.task) == (data, task)])
                 for data, task in pairs)  # fmt: skip


def _grid(data: str, task: str, cells: Sequence[Cell]) -> Grid:
    found: dict[str, dict[tuple[str, str], Interval]] = {}
    roles: dict[str, str] = {}
    units, notes = "", []
    for cell in cells:
        if cell.judged is None:
            notes.append(cell.reason if not cell.method else f"{cell.method} was not judged: {cell.reason}")
            continue
        units = f"{cell.judged.units[1]:,} {cell.judged.units[0]}"
        notes.extend(cell.judged.notes)
        for score in cell.judged.scores:
            roles.setdefault(score.name, score.role)
            found.setdefault(score.name, {}).setdefault((score.case, score.measure), _interval(score))
    columns = tuple(dict.fromkeys(column for of_name in found.values() for column in of_name))
    order = (METHOD, BASELINE, CONTROL)
    names = tuple(sorted(found, key=lambda name: order.index(roles[name])))
    scores = {name: tuple(found[name].get(column) for column in columns) for name in names}
    return Grid(data, task, TASKS[task].title, columns, names, roles, scores, units, tuple(dict.fromkeys(notes)))


def counts_of(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Count the verdicts of each method, over all tasks, cases and measures."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        of_method = found.setdefault(row.method, dict.fromkeys((*WORDS.values(), "costs identity"), 0))
        of_method[row.verdict] = of_method.get(row.verdict, 0) + 1
    return found


def markdown(cells: Sequence[Cell]) -> str:
    """Return the tables as Markdown: verdicts first, then all scores of each task on each data set."""
    rows = rows_of(cells)
    lines = ["# Benchmark", "", _table(
        ["data", "task", "case", "measure", "method", "score", "strongest baseline", "its score", "difference",
         "verdict"],
        [[row.data, row.task, row.case, row.measure, row.method, interval_text(row.score), row.baseline,
          interval_text(row.baseline_score), interval_text(row.difference, signed=True), row.verdict] for row in rows],
    )]  # fmt: skip
    for grid in grids_of(cells):
        lines += ["", f"## {grid.data}: {grid.title}", ""]
        if grid.names:
            heads = [" ".join(part for part in column if part) for column in grid.columns]
            body = [
                [f"**{name}**" if grid.roles[name] == METHOD else name]
                + ["" if one is None else interval_text(one) for one in grid.scores[name]]
                for name in grid.names
            ]
            lines += [_table(["", *heads], body), "", f"95 % intervals over {grid.units}, drawn with replacement."]
        lines += [f"- {note}" for note in grid.notes]
    return "\n".join(lines) + "\n"


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"

    return "\n".join([line(heads), line(["---"] * len(heads)), *(line(values) for values in body)])
