"""The command ``spaf-train evaluate``."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from spaf_train._console import busy, wide_console


def evaluate_command(
    model: Annotated[str, typer.Argument(help="Model directory of any family, or the name of a shipped model.")],
    data: Annotated[Path, typer.Option("--data", help="Folder of a corpus with the genes of the model.")],
    split: Annotated[str, typer.Option(help="Split to judge on; baselines are fitted on the training split.")] = (
        "validation"
    ),
    fit_on: Annotated[
        Path | None, typer.Option(help="Corpus whose training split baselines are fitted on; default: --data.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for evaluation.json.")] = None,
    radius: Annotated[
        list[float] | None,
        typer.Option(help="Radius of neighbours in um; repeatable; default: that of the corpus and around it."),
    ] = None,
    max_cells: Annotated[int, typer.Option(help="Most cells whose genes are judged.")] = 5_000,
    max_pairs: Annotated[int, typer.Option(help="Most pairs of neighbours judged at each radius.")] = 2_000,
    replicates: Annotated[int, typer.Option(help="Resampled tissues behind each interval.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Seed of all draws.")] = 0,
    tissue: Annotated[str | None, typer.Option(help="In place of that of the slides.")] = None,
    condition: Annotated[str | None, typer.Option(help="In place of that of the slides.")] = None,
    species: Annotated[str | None, typer.Option(help="In place of that of the slides.")] = None,
    assay: Annotated[str | None, typer.Option(help="In place of that of the slides.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of tables.")] = False,
) -> None:
    """Judge a model on held-out cells, beside baselines, with intervals over tissue.

    For example:

      spaf-train evaluate runs/first/model --data build/corpus

      spaf-train evaluate runs/first/model --data lung/corpus --fit-on build/corpus -o results --json
    """
    from spaf_data import claim
    from spaf_model import check_output
    from spaf_train._record import plain, write_json
    from spaf_train.evaluation import EvaluationOptions, evaluate, evaluation_tables

    options = EvaluationOptions(
        split=split, radii=tuple(radius) if radius else None, max_cells=max_cells, max_pairs=max_pairs,
        n_replicates=replicates, seed=seed,
    )  # fmt: skip
    context = {"tissue": tissue, "condition": condition, "species": species, "assay": assay}
    check_output(out, folder=True)
    with nullcontext() if out is None else claim(out, "spaf-train evaluate"):
        with busy("Evaluating"):
            result = evaluate(model, data, fit_on=fit_on, options=options, context=context)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / "evaluation.json", result.as_dict())
    if as_json:
        typer.echo(json.dumps(plain(result.as_dict()), indent=1))
        return
    console = wide_console()
    for table in evaluation_tables(result):
        console.print(table)
    for sentence in result.not_judged:
        typer.echo(sentence)
