"""The command ``spaf-train pretrain``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer


def pretrain_command(
    config: Annotated[str, typer.Argument(help="A TOML file, or the name of a preset: small, starter.")],
    data: Annotated[Path, typer.Option("--data", help="Folder of the corpus that spaf-data build wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
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
    """Train a SpatialFormer on a corpus; the weights end up in OUT/model.

    By the preset small it reads pairs of cells, and weights are the best by validation; by starter it reads each cell
    alone and learns by contrast of neighbours.

    For example:

      spaf-train pretrain small --data build/corpus --out runs/first

      spaf-train pretrain starter --data build/corpus --out runs/starter

      spaf-train pretrain my.toml --data build/corpus --out runs/second --set run.steps=2000 --set model.width=128

      spaf-train pretrain small --data build/corpus --out runs/first --resume

      torchrun --nproc-per-node 2 -m spaf_train pretrain my.toml --data build/corpus --out runs/third
    """
    from spaf_train._record import plain
    from spaf_train.pretraining.config import read_config
    from spaf_train.pretraining.run import pretrain

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
