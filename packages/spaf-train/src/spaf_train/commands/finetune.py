"""The commands ``spaf-train finetune`` and ``spaf-train predict-labels``."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import spaf_data
from spaf_train._console import busy, wide_console

if TYPE_CHECKING:
    import anndata

_CONTEXT = typer.Option(help="In place of that of the data; 'unknown' says that it is not known.")


class Task(StrEnum):
    """What a model is fine-tuned for."""

    pairs = "pairs"
    labels = "labels"


def finetune_command(
    model: Annotated[str, typer.Argument(help="Model directory to begin with, or starter-1.")],
    task: Annotated[Task, typer.Option(help="Pairs of neighbouring cells, or labels of cells.")],
    data: Annotated[Path, typer.Option("--data", help="pairs: folder of a corpus; labels: an h5ad with raw counts.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model directory to make.")],
    method: Annotated[
        str,
        typer.Option(help="probe; lora or full train the encoder too, which is kept only if it beats the probe."),
    ] = "probe",
    rank: Annotated[int, typer.Option(help="lora: rank of the adapters.")] = 64,
    alpha: Annotated[float, typer.Option(help="lora: the adapters count alpha / rank.")] = 128.0,
    dropout: Annotated[float, typer.Option(help="lora: dropout before the adapters.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Seed of all draws.")] = 0,
    label: Annotated[str | None, typer.Option(help="labels: column of obs to learn.")] = None,
    split: Annotated[
        str | None, typer.Option(help="labels: column of obs that says train, validation or test.")
    ] = None,
    hold_out: Annotated[
        str | None,
        typer.Option(metavar="COLUMN=VALUE[,VALUE]", help="labels: cells of validation, such as slide=s3,s4."),
    ] = None,
    min_cells: Annotated[int, typer.Option(help="labels: leave out classes with fewer training cells.")] = 0,
    gap: Annotated[
        float, typer.Option(help="labels: um between training cells and those held out or in regions; 0 for none.")
    ] = spaf_data.defaults.GAP,
    layer: Annotated[str | None, typer.Option(help="labels: layer with the counts; default: X.")] = None,
    tissue: Annotated[str | None, _CONTEXT] = None,
    condition: Annotated[str | None, _CONTEXT] = None,
    species: Annotated[str | None, _CONTEXT] = None,
    assay: Annotated[str | None, _CONTEXT] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Another option of FinetuneConfig; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON instead of a table.")] = False,
) -> None:
    """Fine-tune a model; the result is a model directory, judged beside baselines on held-out cells.

    For example:

      spaf-train finetune runs/first/model --task labels --data cells.h5ad --label cell_type -o models/types

      spaf-train finetune runs/first/model --task labels --data cells.h5ad --label niche --hold-out slide=s3 -o niches

      spaf-train finetune published-v2 --task pairs --data merscope/corpus --assay Merfish -o merscope --set steps=2000
    """
    from spaf_model import InputError
    from spaf_train._options import from_table
    from spaf_train._record import plain
    from spaf_train.evaluation.tables import score_table
    from spaf_train.finetuning import LABEL_MEASURES, PAIR_MEASURES, FinetuneConfig, finetune_labels, finetune_pairs
    from spaf_train.pretraining.config import apply_override

    table: dict[str, Any] = {
        "method": method, "rank": rank, "alpha": alpha, "dropout": dropout, "seed": seed,
    }  # fmt: skip
    for override in overrides or []:
        apply_override(table, override)
    config = from_table(FinetuneConfig, table)
    # Training shows a bar of its own.
    waiting = busy("Fitting the probe") if config.method == "probe" else nullcontext()
    of_labels = {"--label": label, "--split": split, "--hold-out": hold_out, "--layer": layer}
    if task is Task.pairs:
        given = [name for name, value in of_labels.items() if value is not None] + ["--min-cells"] * bool(min_cells)
        if given:
            raise InputError(f"{given[0]} is an option of --task labels; a corpus says which cells are validation.")
        with waiting:
            context = {"tissue": tissue, "condition": condition, "species": species, "assay": assay}
            result = finetune_pairs(model, data, out, config=config, context=context)
    else:
        if label is None:
            raise InputError("--task labels needs --label, the column of obs to learn.")
        adata = _read(data)
        held = None
        if hold_out is not None:
            column, equals, values = hold_out.partition("=")
            if not equals or not column or not values:
                raise InputError(f"--hold-out is written COLUMN=VALUE[,VALUE], not {hold_out!r}.")
            held = column, values.split(",")
        with waiting:
            result = finetune_labels(
                model, adata, label, out, config=config, split=split, hold_out=held, min_cells=min_cells, gap=gap,
                layer=layer, tissue=tissue, condition=condition, species=species, assay=assay,
            )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(plain(result.record), indent=1))
        return
    keys = {"radius": "um", "negatives": "against"} if task is Task.pairs else {"part": "part"}
    measures = PAIR_MEASURES if task is Task.pairs else LABEL_MEASURES
    wide_console().print(score_table(f"{task} on held-out cells", result.scores, {**keys, "score": "by"}, measures))
    if not result.differences.empty:
        shown = {**keys, "score": "by", "baseline": "minus", "verdict": ""}
        typer.echo("")
        wide_console().print(score_table("difference on the same tissues", result.differences, shown, _first(measures)))
    if dataclasses.asdict(result.fit)["history"]:
        typer.echo(f"{result.fit.steps} steps of training; the best was step {result.fit.best_step}.")
    if result.decision:
        typer.echo(result.decision)
    typer.echo(f"The model is in {out}.")


def _first(measures: dict[str, str]) -> dict[str, str]:
    return dict(list(measures.items())[:1])


def predict_labels_command(
    cells: Annotated[Path, typer.Argument(metavar="IN.h5ad", help="Raw counts.")],
    model: Annotated[Path, typer.Option(help="Model directory that finetune --task labels wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.h5ad", help="A copy with the labels.")],
    key_added: Annotated[
        str | None, typer.Option(help="Column of obs for the labels; default: label_pred.", metavar="NAME")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer with the counts; default: X.")] = None,
    tissue: Annotated[str | None, _CONTEXT] = None,
    condition: Annotated[str | None, _CONTEXT] = None,
    species: Annotated[str | None, _CONTEXT] = None,
    assay: Annotated[str | None, _CONTEXT] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the number of cells of each label as JSON.")] = False,
) -> None:
    """Predict the label of each cell.

    For example:

      spaf-train predict-labels slide.h5ad --model models/types -o labelled.h5ad
    """
    from spaf_model import check_key, check_output, refuse_overwriting, replace_file
    from spaf_train.finetuning import predict_labels
    from spaf_train.finetuning.label_head import DEFAULT_KEY

    refuse_overwriting(cells, out)
    check_output(out)
    key_added = DEFAULT_KEY if key_added is None else key_added
    check_key(key_added, "--key-added")
    adata = _read(cells)
    predict_labels(
        adata, model, tissue=tissue, condition=condition, species=species, assay=assay, layer=layer,
        key_added=key_added, progress=True,
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, adata.write_h5ad)
    counts = adata.obs[key_added].value_counts()
    if as_json:
        typer.echo(json.dumps({str(name): int(n) for name, n in counts.items()}))
    else:
        typer.echo(f"{int(counts.sum())} of {adata.n_obs} cells have a label in obs[{key_added!r}] of {out}.")


def _read(path: Path) -> anndata.AnnData:
    import anndata

    from spaf_model import InputError

    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file.")
    try:
        return anndata.read_h5ad(path)
    except PermissionError:
        raise
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read as an h5ad: {str(error).splitlines()[0]}") from error
