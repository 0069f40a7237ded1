"""A run that leaves no files: its best weights and its log in memory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MemoryCheckpoints:
    """The best weights of a run, in memory; whole states are not kept, so that it cannot be continued."""

    def __init__(self) -> None:
        self.best_state: dict[str, Any] | None = None

    def save(self, state: dict[str, Any], *, step: int, best_step: int | None) -> None:
        """Keep nothing of a whole state."""

    def save_best(self, state: dict[str, Any], *, step: int) -> None:
        """Keep a copy of the weights that are the best so far."""
        self.best_state = copy.deepcopy(state)

    def latest(self) -> Path | None:
        """Return None: there is no file."""
        return None


class MemoryLog:
    """The rows of a log: each validation, with the mean training loss since the one before."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._training: dict[str, float] = {}

    def write(self, *, step: int, split: str, values: Mapping[str, float]) -> None:
        """Note the values of a step."""
        if split == "train":
            self._training = {"training_loss": values["loss"]}
            return
        metrics = {name: value for name, value in values.items() if name != "seconds"}
        self.rows.append({"step": float(step), **self._training, **metrics})
        self._training = {}
