"""The log of a run, and how well scores tell two classes apart."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from spaf_data import write_text
from spaf_model import InputError
from spaf_train.objectives import objective_columns


def log_columns(objectives: list[str] | None = None) -> tuple[str, ...]:
    """Return the columns of the log of a run with some objectives, or with all."""
    own = [column.name for column in objective_columns(objectives)]
    return ("step", "split", "loss", *own, "learning_rate", "tokens_per_second", "seconds")


def auroc(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the area under the ROC curve, NaN where a class is missing.

    The chance that a positive scores above a negative, ties counting a half, by ranks: O(n log n).

    Parameters
    ----------
    scores
        n values; higher means more likely positive.
    labels
        n values, 1 for positive and 0 for negative.
    """
    positive = np.asarray(labels) > 0
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


class MetricsLog:
    """``metrics.csv``: one row for each logged step and split, with the columns `log_columns`.

    Parameters
    ----------
    path
        The file; made with its header if it is not there.
    after
        Rows of later steps are dropped, since a resumed run writes them again.
    objectives
        Names of those that have columns; None: all.

    Raises
    ------
    InputError
        If the file is there and lacks a column.
    """

    def __init__(self, path: Path, *, after: int = 0, objectives: list[str] | None = None) -> None:
        self.path = path
        self.columns = log_columns(objectives)
        rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                if not set(self.columns) <= set(reader.fieldnames or ()):
                    raise InputError(f"{path} does not have the columns {', '.join(self.columns)}.")
                self.columns = tuple(reader.fieldnames or ())
                # A line that a kill cut short has no value in its last column.
                rows = [row for row in reader if row["seconds"] and int(row["step"]) <= after]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, text.getvalue())

    def write(self, *, step: int, split: str, values: Mapping[str, float]) -> None:
        """Append a row; columns without a value, or with NaN, stay empty."""
        row: dict[str, object] = {"step": step, "split": split}
        # 9 digits tell any two single-precision numbers apart.
        row.update({name: f"{value:.9g}" for name, value in values.items() if not np.isnan(value)})
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="", lineterminator="\n").writerow(row)
