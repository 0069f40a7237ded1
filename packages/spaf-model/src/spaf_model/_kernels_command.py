"""The command ``spaf-model kernels``."""

from __future__ import annotations

import json
from typing import Annotated

import torch
import typer
from rich.table import Table

from spaf_model._console import plain_console
from spaf_model.errors import InputError
from spaf_model.kernels import kernel_report


def kernels(
    device: Annotated[
        str | None, typer.Option(help="Device to ask about. Default: cuda if there is one, else cpu.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Tell which attention kernels and matrix products work here, which would be chosen, and why.

    For example:

    \b
    spaf-model kernels --json
    """
    asked = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(asked)
    except RuntimeError as error:
        raise InputError(f"There is no device {asked!r}: {str(error).splitlines()[0]}") from error
    report = kernel_report(where)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    console = plain_console()
    table = Table(title=f"Attention kernels on {where}", title_justify="left")
    table.add_column("kernel")
    table.add_column("state")
    for name, state in report["kernels"].items():
        table.add_row(name, state)
    console.print(table)
    choices = Table(title="What would be chosen (fp32)", title_justify="left")
    for column in ("head size", "length", "kernel", "why"):
        choices.add_column(column)
    for choice in report["choices"]:
        choices.add_row(*(str(value) for value in choice.values()))
    console.print(choices)
    matmul, convolution = report["matmul"], report["convolution"]
    console.print(f"Matrix products (fp32): {matmul['path']}; {matmul['reason']}")
    console.print(f"Depthwise convolution (bf16): {convolution['path']}; {convolution['reason']}")
