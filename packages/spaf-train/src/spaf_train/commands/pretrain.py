"""The command ``spaf-train pretrain``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer


def pretrain_command(
    data: Annotated[Path, typer.Option("--data", help="Folder of the corpus that spaf-data build wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    config: Annotated[
        str,
        typer.Argument(
            help="The name of a preset: tissue, neighbours, small, starter or scgpt_spatial; or a TOML file."
        ),
    ] = "tissue",
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="MODEL", help="Model directory, or a shipped name, whose weights it begins with."
        ),
    ] = None,
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
    which the best weights by validation are kept; `starter` one that reads each cell alone, by contrast of neighbours;
    `scgpt_spatial` a scGPT-spatial that reads cells or spots with their neighbours. With --from a run of either family
    begins with the weights of a model: genes and technologies that it does not know are added to its vocabulary.

    For example:

      spaf-train pretrain --data build/corpus --out runs/own

      spaf-train pretrain small --data build/corpus --out runs/first

      spaf-train pretrain starter --data build/corpus --out runs/starter

      spaf-train pretrain my.toml --data build/corpus --out runs/second --set run.steps=2000 --set model.width=128

      spaf-train pretrain small --data build/corpus --out runs/first --resume

      spaf-train pretrain starter --from starter --data build/corpus --out runs/continued

      torchrun --nproc-per-node 2 -m spaf_train pretrain my.toml --data build/corpus --out runs/third
    """
    from spaf_model import InputError
    from spaf_train._record import plain
    from spaf_train.pretraining.config import TISSUE_PRESETS, read_config
    from spaf_train.pretraining.run import pretrain
    from spaf_train.trainer.verdicts import spoken

    if config in TISSUE_PRESETS:
        if source is not None:
            raise InputError(
                f"--from cannot be used with the preset {config}, which is fitted and not trained in steps."
            )
        _pretrain_tissue(config, data, out, resume, skip_bad_shards, overrides or [], as_json)
        return
    if source is not None:
        sizes = [option for option in overrides or () if option.startswith("model.")]
        if sizes:
            raise InputError(
                f"--set {sizes[0]} cannot be used with --from: a run that continues a model has its sizes."
            )
        overrides = [*(overrides or []), f"continue_from={json.dumps(source)}"]
    configuration = read_config(config, overrides=overrides or [])
    result = pretrain(configuration, data, out, resume=resume, skip_bad_shards=skip_bad_shards)
    if int(os.environ.get("RANK", "0")) != 0:
        return
    if as_json:
        answer: dict[str, Any] = {"nothing_learnt": result.nothing_learnt} if result.nothing_learnt else {}
        answer |= {"out": str(out), "finished": result.finished, "step": result.step, "best": result.best}
        answer |= {"left_out": result.left_out, "not_learnt": result.not_learnt, "objectives": result.verdicts}
        typer.echo(json.dumps(plain({**answer, "skipped_shards": result.skipped_shards})))
    elif result.finished:
        if result.nothing_learnt:
            typer.echo(result.nothing_learnt)
        for name, found in result.verdicts.items():
            typer.echo(spoken(name, found))
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
        answer: dict[str, Any] = {"nothing_learnt": result.not_learnt} if result.not_learnt else {}
        answer |= {"out": str(out), "finished": True, "n_cells": result.n_cells, "seconds": result.seconds}
        answer |= {"fallback": result.fallback, "not_learnt": result.not_learnt}
        typer.echo(json.dumps(plain({**answer, "skipped_shards": result.skipped_shards})))
        return
    typer.echo(f"Fitted {result.n_cells:,} cells in {result.seconds:.0f} s; the model is in {out / 'model'}.")
