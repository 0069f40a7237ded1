"""The command line ``spaf-train``.

What does the work is imported by the command that needs it: the libraries take seconds, and ``--help`` none.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from spaf_train.commands.evaluate import evaluate_command
from spaf_train.commands.finetune import finetune_command, predict_labels_command
from spaf_train.commands.gene_embeddings import gene_embeddings_command

app = typer.Typer(
    name="spaf-train",
    help="Pre-train, evaluate and fine-tune spatial single-cell foundation models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spaf-train {version('spaf-train')}")
        raise typer.Exit


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, on stderr.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Pre-train, evaluate and fine-tune spatial single-cell foundation models."""
    handler = RichHandler(console=Console(stderr=True, markup=False), show_path=False)
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler])


@app.command("pretrain")
def pretrain_command(
    data: Annotated[Path, typer.Option("--data", help="Folder of the corpus that spaf-data build wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    config: Annotated[
        str, typer.Argument(help="The name of a preset: tissue, neighbours, small or starter; or a TOML file.")
    ] = "tissue",
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint in --out; without one, begin.")
    ] = False,
    skip_bad_shards: Annotated[
        bool, typer.Option("--skip-bad-shards", help="Check all shards first; leave out and name the bad ones.")
    ] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.OPTION=VALUE", help="Replace an option; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model on a corpus; it ends up in OUT/model.

    By default that is a model of the tissue of one or a few slides, fitted in seconds to minutes on the training split:
    `tissue`, or `neighbours` for its closed form alone. `small` trains a SpatialFormer that reads pairs of cells, of
    which the best weights by validation are kept; `starter` one that reads each cell alone, by contrast of neighbours.

    For example:

      spaf-train pretrain --data build/corpus --out runs/own

      spaf-train pretrain small --data build/corpus --out runs/first

      spaf-train pretrain starter --data build/corpus --out runs/starter

      spaf-train pretrain my.toml --data build/corpus --out runs/second --set run.steps=2000 --set model.width=128

      spaf-train pretrain small --data build/corpus --out runs/first --resume

      torchrun --nproc-per-node 2 -m spaf_train pretrain my.toml --data build/corpus --out runs/third
    """
    from spaf_train._record import plain
    from spaf_train.pretraining.config import read_config
    from spaf_train.pretraining.run import pretrain
    from spaf_train.pretraining.tissue import TISSUE_PRESETS

    if config in TISSUE_PRESETS:
        _pretrain_tissue(config, data, out, resume, skip_bad_shards, overrides or [], as_json)
        return
    configuration = read_config(config, overrides=overrides or [])
    result = pretrain(configuration, data, out, resume=resume, skip_bad_shards=skip_bad_shards)
    if int(os.environ.get("RANK", "0")) != 0:
        return
    if as_json:
        answer = {"out": str(out), "finished": result.finished, "step": result.step, "best": result.best}
        answer |= {"left_out": result.left_out, "not_learnt": result.not_learnt}
        typer.echo(json.dumps(plain({**answer, "skipped_shards": result.skipped_shards})))
    elif result.finished:
        typer.echo(f"Took {result.step} steps; the model of step {result.best['step']:.0f} is in {out / 'model'}.")
        for sentence in result.not_learnt.values():
            typer.echo(sentence, err=True)
    if result.skipped_shards:
        names = ", ".join(result.skipped_shards)
        typer.echo(f"Left out bad shards ({len(result.skipped_shards)}): {names}.", err=True)
    if not result.finished:
        saved = f"Stopped after step {result.step}, and saved" if result.step else "Stopped before the first step"
        typer.echo(
            f"{saved}; to continue: spaf-train pretrain {out / 'config.toml'} --data {data} --out {out} --resume",
            err=True,
        )


def _pretrain_tissue(
    preset: str, data: Path, out: Path, resume: bool, skip_bad_shards: bool, overrides: list[str], as_json: bool
) -> None:
    from spaf_train._record import plain
    from spaf_train.pretraining.tissue import pretrain_tissue, read_tissue_config

    configuration = read_tissue_config(preset, overrides=overrides)
    result = pretrain_tissue(configuration, data, out, resume=resume, skip_bad_shards=skip_bad_shards)
    if int(os.environ.get("RANK", "0")) != 0:
        return
    if as_json:
        answer = {"out": str(out), "finished": True, "n_cells": result.n_cells, "seconds": result.seconds}
        answer |= {"fallback": result.fallback, "not_learnt": result.not_learnt}
        typer.echo(json.dumps(plain({**answer, "skipped_shards": result.skipped_shards})))
        return
    for sentence in result.sentences:
        typer.echo(sentence, err=True)
    typer.echo(f"Fitted {result.n_cells:,} cells in {result.seconds:.0f} s; the model is in {out / 'model'}.")


app.command("evaluate")(evaluate_command)
app.command("finetune")(finetune_command)
app.command("predict-labels")(predict_labels_command)
app.command("gene-embeddings")(gene_embeddings_command)


def main() -> None:
    """Run the command line; a mistake of the user ends in one sentence and exit code 2, divergence in exit code 1."""
    command = "spaf-train " + " ".join(word for word in sys.argv[1:2] if not word.startswith("-"))
    try:
        app()
    except OSError as error:
        named = f": {error.filename}" if error.filename else ""
        _fail(command, f"{error.strerror or error}{named}", 2)
    except (ValueError, RuntimeError) as error:
        code = _exit_code(error)
        if code is None:
            raise
        _fail(command, str(error), code)


def _exit_code(error: Exception) -> int | None:
    """Return the exit code of an error that a user can cause; None for one that is ours."""
    import spaf_data
    import spaf_model
    from spaf_train.trainer.divergence import TrainingDivergedError

    if isinstance(error, spaf_model.InputError | spaf_data.InputError):
        return 2
    return 1 if isinstance(error, TrainingDivergedError) else None


def _fail(command: str, sentence: str, code: int) -> None:
    typer.echo(f"{command.strip()}: {sentence}", err=True)
    raise SystemExit(code)
