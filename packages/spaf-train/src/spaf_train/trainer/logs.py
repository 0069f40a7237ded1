"""What a run writes its metrics to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from spaf_train.trainer.memory import MemoryLog
from spaf_train.trainer.metrics import MetricsLog
from spaf_train.trainer.tensorboard_log import TensorBoardLog

Log = MetricsLog | TensorBoardLog | MemoryLog


@contextlib.contextmanager
def open_logs(
    place: Path | MemoryLog | None, *, after: int, objectives: list[str], tensorboard: bool
) -> Iterator[list[Log]]:
    """Open the logs of a run.

    Parameters
    ----------
    place
        Path of ``metrics.csv``, or memory; None for a process that writes nothing.
    after
        Rows of later steps are dropped.
    objectives
        Names of those that have columns.
    tensorboard
        Whether there are curves beside the table.
    """
    if place is None:
        yield []
        return
    if isinstance(place, MemoryLog):
        yield [place]
        return
    table = MetricsLog(place, after=after, objectives=objectives)
    if not tensorboard:
        yield [table]
        return
    with contextlib.closing(TensorBoardLog(place.with_name("tensorboard"), after=after)) as curves:
        yield [table, curves]
