import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaf_model import InputError
from spaf_train import MetricsLog, auroc
from spaf_train.trainer.metrics import log_columns


def slow_auroc(scores, labels):
    """The share of (positive, negative) pairs in the right order, ties a half, by two loops."""
    won = [
        1.0 if scores[p] > scores[n] else 0.5 if scores[p] == scores[n] else 0.0
        for p in range(len(scores))
        for n in range(len(scores))
        if labels[p] and not labels[n]
    ]
    return sum(won) / len(won) if won else float("nan")


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=40))
def test_auroc_agrees_with_counting_pairs(items):
    scores = np.array([score for score, _ in items], dtype=np.float32)
    labels = np.array([label for _, label in items], dtype=np.int64)
    assert auroc(scores, labels) == pytest.approx(slow_auroc(scores, labels), nan_ok=True)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_log_has_the_columns_and_leaves_unknown_values_empty(tmp_path):
    log = MetricsLog(tmp_path / "metrics.csv")
    log.write(step=1, split="train", values={"loss": 1.25, "auroc_pairs": float("nan"), "seconds": 2.0})
    (row,) = rows(log.path)
    assert tuple(row) == log_columns()
    assert (row["step"], row["split"], row["loss"], row["auroc_pairs"]) == ("1", "train", "1.25", "")


def test_reopened_log_drops_later_steps_and_a_line_cut_short(tmp_path):
    log = MetricsLog(tmp_path / "metrics.csv")
    for step in (1, 2, 3):
        log.write(step=step, split="train", values={"loss": step / 3, "seconds": 1.0})
    with log.path.open("a") as file:
        file.write("2,validation,0.3")
    again = MetricsLog(log.path, after=2)
    assert [row["step"] for row in rows(again.path)] == ["1", "2"]
    again.write(step=3, split="train", values={"loss": 1.0, "seconds": 1.0})
    assert [row["loss"] for row in rows(again.path)] == ["0.333333333", "0.666666667", "1"]


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="columns"):
        MetricsLog(path)
