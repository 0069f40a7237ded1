"""The command ``spaf-analysis benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spaf_analysis.commands import JSON, print_json


def benchmark_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="Data sets, methods and tasks.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make, or to go on with.")],
    as_json: JSON = False,
) -> None:
    """Judge methods by every task on several data sets, beside every baseline, in one table with verdicts.

    OUT/benchmark.html, .json and .md hold the table, OUT/cells each of its cells: what was interrupted goes on where it
    was when it is started again. "Wins", "ties" and "loses" follow from the paired interval of the difference to the
    strongest baseline.

    Example:

        spaf-analysis benchmark benchmark.toml -o benchmark
    """
    from rich.console import Console

    from spaf_analysis.benchmark.config import read_benchmark
    from spaf_analysis.benchmark.page import content_of, write_benchmark
    from spaf_analysis.benchmark.run import run_benchmark

    console = Console(stderr=True, markup=False)
    cells = run_benchmark(read_benchmark(config), out, progress=lambda name: console.print(name, highlight=False))
    write_benchmark(cells, out)
    if as_json:
        print_json(content_of(cells))
