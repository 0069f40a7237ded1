"""The log of a run for TensorBoard: the columns of ``metrics.csv`` as curves."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path

from spaf_model import InputError


def check_tensorboard() -> None:
    """Raise InputError if the package tensorboard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "run.tensorboard needs the package tensorboard; install it with pip install 'spaf-train[tensorboard]', or "
            "set run.tensorboard to false."
        )


class TensorBoardLog:
    """Event files in a folder for each split, under the names of `MetricsLog`, so that a chart shows both splits.

    Parameters
    ----------
    folder
        Where the folders ``train`` and ``validation`` are made.
    after
        What is there of later steps is dropped when it is read, since a resumed run writes it again.
    """

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        # Imported when used: it loads protocol buffers.
        from torch.utils.tensorboard import SummaryWriter

        self._writers = {
            split: SummaryWriter(str(folder / split), purge_step=after + 1) for split in ("train", "validation")
        }

    def write(self, *, step: int, split: str, values: Mapping[str, float]) -> None:
        """Append the values of a step; NaN is left out."""
        writer = self._writers[split]
        for name, value in values.items():
            if not math.isnan(value):
                writer.add_scalar(name, value, step)
        # A run that is killed has lost no row of metrics.csv, and loses none here.
        writer.flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
