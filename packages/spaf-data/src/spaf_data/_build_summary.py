"""The account of a build as a table on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from spaf_data._console import console

_MOST_COLUMNS = 6


def print_build(record: dict[str, Any], out: Path) -> None:
    """Print what went in and what was dropped, a column for each slide or one for all."""
    slides = record["slides"]
    if len(slides) > _MOST_COLUMNS:
        columns = {f"{len(slides)} slides": slides}
    else:
        columns = {slide["slide"]: [slide] for slide in slides}
    table = Table(title="What went in and what was dropped")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    labels = {
        "read": "transcripts read",
        "controls": "- control features",
        "low_quality": "- low quality",
        "unassigned": "- in no cell",
        "unlisted": "- in cells not listed",
        "in_small_cells": "- in small cells",
        "binned": "= counted",
        "cells": "cells",
        "small_cells": "- small cells",
        "kept_cells": "= kept",
    }
    for key, label in labels.items():
        if any(key in slide["account"] for slide in slides):
            table.add_row(
                label, *(f"{sum(slide['account'].get(key, 0) for slide in part):,}" for part in columns.values())
            )
    for split in ("train", "validation", "gap"):
        table.add_row(
            f"{split} cells", *(f"{sum(slide['split'][split] for slide in part):,}" for part in columns.values())
        )
    for key, label in {"n_genes": "genes", "n_gene_pairs": "co-localised gene pairs"}.items():
        # Slides share genes and pairs: those of all are counted once.
        table.add_row(label, *(f"{(part[0] if len(part) == 1 else record)[key]:,}" for part in columns.values()))
    shown = console()
    shown.print(table)
    for key in dict.fromkeys(slide["slide_key"] for slide in slides if "slide_key" in slide):
        parted = sum(slide.get("slide_key") == key for slide in slides)
        shown.print(f"slides by obs column {key!r}: {parted}", soft_wrap=True)
    shown.print(f"{out}: {record['seconds']:.1f} s, {record['peak_rss_mb']:,.0f} MB at most", soft_wrap=True)
