"""What the commands of the analyses share: their options, reading a table, and where a result goes."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spaf_analysis.errors import InputError
from spaf_analysis.keys import SPAF

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd

SOURCE = Annotated[Path, typer.Argument(metavar="IN.h5ad", help="Cells x genes with counts in X. It is not changed.")]
OUT = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", help="IN.h5ad with the result (.h5ad), or the result as a table (.csv, .parquet).", metavar="OUT"
    ),
]
JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
KEY = Annotated[str, typer.Option(help="Embedding in obsm, of this or any other model.")]
MODEL = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Model directory or starter, to embed cells where obsm has no such embedding."),
]
# What a model may need to know of all cells, as the options of spaf-model.
TISSUE = Annotated[str | None, typer.Option(help="Tissue of all cells. Default: obs column 'tissue'.")]
CONDITION = Annotated[str | None, typer.Option(help="Condition. Default: obs column 'condition'.")]
SPECIES = Annotated[str | None, typer.Option(help="Species. Default: obs column 'species'.")]
ASSAY = Annotated[str | None, typer.Option(help="Assay. Default: obs column 'assay'.")]
LAYER = Annotated[str | None, typer.Option(help="Layer with counts; default: X.")]
SEED = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]

_TABLES = (".csv", ".parquet")


@dataclasses.dataclass(frozen=True)
class _Running:
    """The command that is running, with the options that were given or have a default."""

    name: str
    options: dict[str, Any]
    started: float  # of time.perf_counter


_RUNNING: ContextVar[_Running | None] = ContextVar("running", default=None)


def recorded(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that `write_result` knows of, so that what it writes says how it was made."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        given = {option: value for option, value in options.items() if value is not None}
        token = _RUNNING.set(_Running(name, given, time.perf_counter()))
        try:
            command(**options)
        finally:
            _RUNNING.reset(token)

    return run


def given_context(**kinds: str | None) -> dict[str, Any]:
    """Return the kinds of context that are named, for a model."""
    return {kind: name for kind, name in kinds.items() if name is not None}


def check_result(source: Path, out: Path | None, *, as_json: bool, others: Sequence[Path | None] = ()) -> None:
    """Look at the places of a result before the work.

    Raises
    ------
    InputError
        If the result would go nowhere, the ending of its file says nothing, its folder is missing, or it would
        overwrite the input, or one of the other files that are read.
    """
    from spaf_analysis.report.render import check_places
    from spaf_model import refuse_overwriting

    if out is None:
        if not as_json:
            raise InputError("the result goes nowhere: name a file with -o (.h5ad, .csv, .parquet) or give --json.")
        return
    if out.suffix not in (".h5ad", *_TABLES):
        raise InputError(f"{out} says by its ending no format that is known; choose .h5ad, .csv or .parquet.")
    check_places(out)
    for read in (source, *others):
        if read is not None:
            refuse_overwriting(read, out)


def check_all_kept(out: Path | None, *, as_json: bool, lost: str) -> None:
    """Look before the work whether a second result has a place: a table holds only the first.

    Raises
    ------
    InputError
        If it has none.
    """
    if not as_json and out is not None and out.suffix in _TABLES:
        raise InputError(f"{out} is one table, in which {lost} would be lost: choose .h5ad or add --json.")


def write_result(adata: ad.AnnData, table: pd.DataFrame, out: Path | None) -> None:
    """Write the annotated cells or the table, by the ending of the file, whole or not at all.

    Parameters
    ----------
    adata
        Cells with the result.
    table
        The result, its index with a name where it is part of it.
    out
        Nowhere if None.
    """
    from spaf_model import replace_file

    if out is None:
        return
    named = table.reset_index() if table.index.name else table
    if out.suffix == ".h5ad":
        _keep_record(adata)
        replace_file(out, adata.write_h5ad)
    elif out.suffix == ".csv":
        replace_file(out, lambda path: named.to_csv(path, index=False))
    else:
        replace_file(out, lambda path: named.to_parquet(path, index=False))


def _keep_record(adata: ad.AnnData) -> None:
    """Write into ``uns["spaf"]`` what the command that is running says of itself."""
    from spaf_analysis.records import run_record

    if (running := _RUNNING.get()) is not None:
        record = run_record(f"spaf-analysis {running.name}", running.options, started=running.started)
        adata.uns[SPAF] = {**adata.uns.get(SPAF, {}), running.name: record}


def print_json(content: dict[str, Any]) -> None:
    """Print a result for programs."""
    sys.stdout.write(json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Return plain values: tables as lists of rows, numbers that are not finite as None."""
    import numpy as np
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        return [plain(row) for row in (value.reset_index() if value.index.name else value).to_dict(orient="records")]
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
