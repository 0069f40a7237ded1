"""What several commands share: arguments, options (those of Python calls come from `options`), loading a model."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_type_hints

import torch
import typer

from spaf_model.loading import load_model
from spaf_model.model import Model
from spaf_model.options import About, default_of
from spaf_model.shipped import SPATIALFORMER_STARTER, STARTER

logger = logging.getLogger(__name__)

Command = Callable[..., None]

Source = Annotated[Path, typer.Argument(metavar="IN.h5ad", help="Raw counts, cells x genes. It is not changed.")]
ModelDirectory = Annotated[
    str, typer.Option("--model", "-m", help=f"Model directory, or a model of spaf-model: {SPATIALFORMER_STARTER}.")
]
OptionalModel = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Model directory, or a model that comes with spaf-model. Default: starter."),
]
CopyOutput = Annotated[
    Path, typer.Option("--out", "--output", "-o", help="The h5ad to write: IN.h5ad with the result.")
]
TableOutput = Annotated[
    Path, typer.Option("--out", "--output", "-o", help="The table to write: .csv, .tsv or .parquet.")
]
PairFile = Annotated[
    Path, typer.Option("--pairs", "-p", help="Table of pairs, .csv, .tsv or .parquet: cell names in 'left', 'right'.")
]
BaseUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="Where --model NAME@REVISION is fetched from the first time.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")]
Threads = Annotated[
    int | None, typer.Option("--n-threads", "--threads", min=1, help="CPU threads. Default: what torch chooses.")
]


def shared_options(kind: type) -> Callable[[Command], Command]:
    """Give a command the options of a group of keyword arguments, in place of its ``**options``.

    Parameters
    ----------
    kind
        `SharedOptions` or `KernelOptions`: names, types and help come from there, defaults from `default_of`.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            command(**arguments)

        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        parameters = [*own, *_parameters(kind)]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _parameters(kind: type) -> list[inspect.Parameter]:
    parameters = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        option_type, about = cast(tuple[Any, About], get_args(hint))
        if not about.in_command:
            continue
        # A switch has no opposite: it is off unless it is named.
        names = [f"--{name.replace('_', '-')}"] if option_type is bool else []
        option = typer.Option(*names, help=about.help, min=about.least, max=about.most)
        annotation: Any = Annotated[about.command_type or option_type, option]
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default_of(name), annotation=annotation)
        )
    return parameters


def or_starter(model: str | None) -> str:
    if model is None:
        logger.warning(
            "No model named: the starter model is used, made from human breast (see: spaf-model info starter)."
        )
    return model or STARTER


def load(model: str, device: str, n_threads: int | None, base_url: str | None = None) -> Model[Any, Any]:
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    return load_model(model, base_url=base_url, device=device)
