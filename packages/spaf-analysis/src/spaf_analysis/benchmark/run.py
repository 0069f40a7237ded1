"""The cells of the table, each computed once and kept in a file of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import spaf_data
import spaf_model
from spaf_analysis.benchmark.base import Difference, Judged, Method, Score, Settings, Task
from spaf_analysis.benchmark.config import BenchmarkConfig, lacking
from spaf_analysis.commands import plain
from spaf_analysis.errors import InputError

if TYPE_CHECKING:
    from spaf_analysis.benchmark.data import Data

CELLS = "cells"
_PACKAGES = ("spaf-data", "spaf-model", "spaf-train", "spaf-analysis")
_FORMAT = 1

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One method asked one task on one data set.

    Attributes
    ----------
    task, method, data
        Their names; a task that could not be asked of the data has no method.
    judged
        None where nothing was judged.
    reason
        Why not, as a sentence.
    seconds
        That it took when it was computed.
    """

    task: str
    method: str
    data: str
    judged: Judged | None
    reason: str = ""
    seconds: float = float("nan")


def run_benchmark(
    config: BenchmarkConfig, out: Path, *, progress: Callable[[str], None] | None = None
) -> tuple[Cell, ...]:
    """Judge every method by every task on every data set, but for what the folder holds already.

    Parameters
    ----------
    config
        What `read_benchmark` returned; it is checked before the work.
    out
        Folder that is made or gone on with. Each cell is one file ``cells/KEY.json``, written whole; its key is a hash
        of the task and its options, the method with its weights, the bytes and columns of the data, seed, number of
        draws, and versions of the four packages. What was killed loses the cell at hand and no other.
    progress
        Called with the name of each cell before it is computed.

    Returns
    -------
    tuple of Cell
        In the order of data sets, tasks and methods.

    Raises
    ------
    InputError
        If something is not there, before any work; or the folder holds something else.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / CELLS).is_dir())):
        raise InputError(f"{out} holds something else than a benchmark; give a folder of its own with --out.")
    config.check()
    step = progress or (lambda name: None)
    settings = Settings(config.seed, config.replicates)
    cells = []
    with spaf_data.claim(out, "spaf-analysis benchmark"):
        (out / CELLS).mkdir(parents=True, exist_ok=True)
        for data in config.data:
            for task in config.tasks:
                missing = lacking(task, data)
                if missing:
                    cells.append(Cell(task.name, "", data.name, None, f"Not asked: {missing}."))
                    continue
                for method in task.methods(config.methods):
                    step(f"{data.name}: {task.name} of {method.name}")
                    cells.append(_cell(task, method, data, settings, out / CELLS))
            data.release()
    return tuple(cells)


def inputs_of(task: Task, method: Method, data: Data, settings: Settings) -> dict[str, Any]:
    """Return all that a cell depends on."""
    options = dataclasses.asdict(data.options)
    for place in (
        "path",
        "reference",
        "transcripts",
        "dataset",
    ):  # where the data lie does not matter, and their bytes do
        options.pop(place)
    return {
        "format": _FORMAT,
        "task": {"name": task.name, **dataclasses.asdict(task)},
        "method": {"name": method.name, **method.identity(data)},
        "data": {"fingerprint": data.fingerprint, **options},
        "settings": dataclasses.asdict(settings),
        "versions": {name: version(name) for name in _PACKAGES},
    }


def _cell(task: Task, method: Method, data: Data, settings: Settings, folder: Path) -> Cell:
    inputs = plain(inputs_of(task, method, data, settings))
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]
    file = folder / f"{key}.json"
    stored = _stored(file)
    if stored is None:
        started = time.perf_counter()
        judged, reason = None, ""
        try:
            judged = task.judge(data, method, settings)
        except (InputError, spaf_model.InputError, spaf_data.InputError) as error:
            reason = str(error)
        content = {
            "inputs": inputs,
            "judged": None if judged is None else dataclasses.asdict(judged),
            "reason": reason,
            "seconds": time.perf_counter() - started,
        }
        spaf_data.write_text(file, json.dumps(plain(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        stored = _stored(file)
        assert stored is not None, "it was written just now"
    return Cell(
        task.name, method.name, data.name, _judged(stored["judged"]), str(stored["reason"]), float(stored["seconds"])
    )


def _stored(file: Path) -> dict[str, Any] | None:
    """Return a cell that was computed before; None where there is none, or its file was damaged since."""
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        _judged(content["judged"])
        assert {"reason", "seconds"} <= set(content)
    except (ValueError, KeyError, TypeError, AssertionError):
        logger.warning("%s is damaged and computed again.", file)
        return None
    return dict(content)


def _judged(content: Mapping[str, Any] | None) -> Judged | None:
    if content is None:
        return None
    unit, n_units = content["units"]
    return Judged(
        tuple(Score(**_numbers(row)) for row in content["scores"]),
        tuple(Difference(**_numbers(row)) for row in content["differences"]),
        (str(unit), int(n_units)),
        tuple(content["notes"]),
    )


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row in which what is not a number is NaN, as JSON cannot say it."""
    return {name: float("nan") if value is None else value for name, value in row.items()}
