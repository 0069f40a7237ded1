"""The command line ``spaf-train``.

What does the work is imported by the command that needs it: the libraries take seconds, and ``--help`` none.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from spaf_train.commands.evaluate import evaluate_command
from spaf_train.commands.finetune import finetune_command, predict_labels_command
from spaf_train.commands.gene_embeddings import gene_embeddings_command
from spaf_train.commands.pretrain import pretrain_command

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


app.command("pretrain")(pretrain_command)
app.command("evaluate")(evaluate_command)
app.command("finetune")(finetune_command)
app.command("predict-labels")(predict_labels_command)
app.command("gene-embeddings")(gene_embeddings_command)


def command() -> None:
    """Run the command line, also as one of the processes of torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from spaf_model import ends_at_once

        ends_at_once(main)()
    else:
        main()


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
