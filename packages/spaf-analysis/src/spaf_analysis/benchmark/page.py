"""The table as a page, as JSON and as Markdown, all of the same cells."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from spaf_analysis.benchmark.table import counts_of, grids_of, markdown, rows_of
from spaf_analysis.commands import plain
from spaf_analysis.report.words import interval_text
from spaf_data import write_text

if TYPE_CHECKING:
    from spaf_analysis.benchmark.run import Cell

PAGE, DATA, TABLES = "benchmark.html", "benchmark.json", "benchmark.md"


def content_of(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return the whole table for programs: `rows` with verdicts, and every score in `cells`."""
    rows = []
    for row in rows_of(cells):
        flat = dataclasses.asdict(row)
        for name in ("score", "baseline_score", "difference"):
            flat |= {name: flat[name][0], f"{name}_low": flat[name][1], f"{name}_high": flat[name][2]}
        rows.append(flat)
    content: dict[str, Any] = plain(
        {"verdicts": counts_of(rows_of(cells)), "rows": rows, "cells": [dataclasses.asdict(cell) for cell in cells]}
    )
    return content


def html_of(cells: Sequence[Cell]) -> str:
    """Return a page that needs nothing beside itself."""
    environment = Environment(
        loader=PackageLoader("spaf_analysis.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["interval"] = interval_text
    rows = rows_of(cells)
    return environment.get_template("benchmark.html.j2").render(
        rows=rows, grids=grids_of(cells), counts=counts_of(rows), n_cells=len(cells)
    )


def write_benchmark(cells: Sequence[Cell], out: Path) -> None:
    """Write ``benchmark.html``, ``benchmark.json`` and ``benchmark.md`` into a folder, each whole."""
    write_text(out / PAGE, html_of(cells))
    write_text(out / DATA, json.dumps(content_of(cells), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(out / TABLES, markdown(cells))
