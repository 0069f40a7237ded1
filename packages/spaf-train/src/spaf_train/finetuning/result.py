"""The model directory that fine-tuning leaves, and what its card says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from spaf_data import whole_folder
from spaf_model import InputError, Model
from spaf_train._record import write_json
from spaf_train.finetuning.training import Fit

RECORD_FILE = "finetune.json"


@dataclasses.dataclass(frozen=True)
class FinetuneResult:
    """What fine-tuning came to.

    Attributes
    ----------
    out
        The model directory.
    fit
        Steps taken, best step and history of validation; empty for a probe, which is fitted at once.
    scores
        How the model and its baselines do on the cells that are judged: for labels the columns of
        `evaluate_predictions` and `part`, for pairs those of `CellPairEvaluation.scores`.
    record
        What `finetune.json` holds.
    differences
        The result minus each baseline on the same resampled tissues, with a verdict: for labels of
        `prediction_differences` and `part`, for pairs of `CellPairEvaluation.differences`.
    predictions
        Of labels: a row for each cell that is judged, by its name, with `part`, `label` and what each of the scores
        predicts of it.
    """

    out: Path
    fit: Fit
    scores: pd.DataFrame
    record: dict[str, Any]
    differences: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    predictions: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)

    @property
    def decision(self) -> str:
        """Why what was trained was kept or not, in a sentence; "" where there was nothing to decide."""
        return str(self.record.get("decision", ""))


def require_free(out: Path) -> None:
    """Refuse a folder that holds something.

    Raises
    ------
    InputError
        If it is a file, or a folder that is not empty.
    """
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise InputError(f"{out} already holds something; choose another folder for the fine-tuned model.")


def write_finetuned(
    out: Path, model: Model[Any, Any], record: Mapping[str, Any], *, more: Callable[[Path], None] | None = None
) -> None:
    """Write the model directory with its record, whole or not at all; `more` adds files to the folder it is given."""
    with whole_folder(out) as new:
        model.save_pretrained(new)
        write_json(new / RECORD_FILE, record)
        if more is not None:
            more(new)
        require_free(out)  # training took a while, and nothing that came meanwhile is to be lost


def card_section(
    title: str, facts: list[str], scores: pd.DataFrame, keys: Mapping[str, str], measures: Mapping[str, str]
) -> str:
    """Return a section of a model card: facts, then a table of scores with their intervals.

    Parameters
    ----------
    title
        Of the section.
    facts
        Sentences, a bullet each.
    scores
        Rows of the table.
    keys, measures
        Columns of `scores` and what the card calls them; measures come with their intervals.
    """
    lines = [f"## {title}", "", *(f"- {fact}" for fact in facts), ""]
    lines.append("| " + " | ".join([*keys.values(), *measures.values()]) + " |")
    lines.append("| " + " | ".join(["---"] * (len(keys) + len(measures))) + " |")
    for row in scores.to_dict("records"):
        cells = [f"{row[key]:g}" if isinstance(row[key], float) else str(row[key]) for key in keys]
        cells += [f"{row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})" for name in measures]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def how_tuned(method: str, parameters: Mapping[str, Any], fit: Fit) -> list[str]:
    """Say in sentences what was trained, and for how long."""
    if method == "probe":
        return ["Method: probe; the encoder is unchanged"]
    what = {
        "full": "all weights of the encoder and the head were trained",
        "lora": f"adapters of rank {parameters['rank']}, alpha {parameters['alpha']:g}, dropout "
        f"{parameters['dropout']:g}, and the head were trained, the adapters merged into the weights",
    }[method]
    return [
        f"Method: {method}; {what}",
        f"At most {parameters['steps']} steps, {fit.steps} taken; the best was step {fit.best_step}",
    ]
