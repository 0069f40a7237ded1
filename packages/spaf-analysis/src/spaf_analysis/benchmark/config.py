"""What a benchmark is made of, as a TOML file says it."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import spaf_data
import spaf_model
from spaf_analysis.annotate.compute import COUNTS, NEAREST, PCA
from spaf_analysis.benchmark import methods as _methods  # noqa: F401  # its classes are then known
from spaf_analysis.benchmark import tasks as _tasks  # noqa: F401
from spaf_analysis.benchmark.base import METHODS, TASKS, Method, Task
from spaf_analysis.benchmark.data import Data, DataOptions
from spaf_analysis.benchmark.tasks._predictions import MAJORITY
from spaf_analysis.cell_pairs.compute import SCORES
from spaf_analysis.errors import InputError
from spaf_analysis.integrate.baselines import HVG_ROW, PROJECTION_ROW, RANDOM_ROW, SCALED_ROW
from spaf_analysis.niches.tool import AVERAGED
from spaf_train import from_table

# Names that the tables of all tasks use for what is not asked for.
BASELINES = frozenset(
    {COUNTS, PCA, NEAREST, MAJORITY, PROJECTION_ROW, RANDOM_ROW, SCALED_ROW, HVG_ROW, AVERAGED, *SCORES.values()}
)
_TABLES = ("data", "methods", "tasks", "seed", "replicates")


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """Tasks, methods and data sets.

    Attributes
    ----------
    data, methods, tasks
        Each with its name. Without tasks in the file all that are known are asked.
    seed
        Of everything random.
    replicates
        Draws behind each interval.
    """

    data: tuple[Data, ...]
    methods: tuple[Method, ...]
    tasks: tuple[Task, ...]
    seed: int = 0
    replicates: int = 500

    def check(self) -> None:
        """Look before the work whether everything is there.

        Raises
        ------
        InputError
            If a file cannot be read, a column, model or embedding is missing, or a task that is named can be asked of
            no data set.
        """
        asked: set[str] = set()
        for data in self.data:
            data.check()
            for method in self.methods:
                method.check(data)
            asked |= {task.name for task in self.tasks if not lacking(task, data)}
            data.release()
        if not asked:
            said = "; ".join(f"{task.name}: {lacking(task, self.data[0])}" for task in self.tasks)
            raise InputError(f"no data set can be asked any of the tasks ({said}).")


def lacking(task: Task, data: Data) -> str:
    """Return what a data set lacks for a task, as a sentence; "" where it lacks nothing."""
    missing = [name for name in task.needs if name not in data.names()]
    if not missing:
        return task.unasked(data)
    said = {"places": "cells have no places (obsm['spatial'])", "batch": "there is one batch (batch, donor, slide)"}
    return " and ".join(said.get(name, f"the data set names no column of obs as {name}") for name in missing)


def read_benchmark(path: str | Path) -> BenchmarkConfig:
    r"""Read what is to be judged, and look at none of the data yet.

    Parameters
    ----------
    path
        A TOML file with a table ``[data.NAME]`` for each data set (`DataOptions`), ``[methods.NAME]`` for each method
        (one of the options of `Method` classes: model, key, fit, random), and, for options or to ask only some,
        ``[tasks.NAME]``. Paths in it are relative to its folder.

    Raises
    ------
    InputError
        If there is no such file, it is no TOML, a name is unknown or used twice, or an option has a wrong value.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "benchmark.toml"
    >>> _ = file.write_text('data.breast.dataset = "xenium_breast_window"\nmethods.starter.model = "starter"')
    >>> read_benchmark(file).methods[0].name
    'starter'
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}.") from error
    try:
        return benchmark_of(content, path.parent)
    except (InputError, spaf_model.InputError, spaf_data.InputError) as error:
        raise InputError(f"{path}: {error}") from error


def benchmark_of(content: Mapping[str, Any], folder: Path) -> BenchmarkConfig:
    """Return the benchmark that tables of options say; paths are relative to `folder`."""
    for name in content:
        if name not in _TABLES:
            raise InputError(f"{name} is not an option; the options there are: {', '.join(_TABLES)}.")
    data, methods = _tables(content, "data"), _tables(content, "methods")
    tasks = _tables(content, "tasks") if "tasks" in content else {name: {} for name in TASKS}
    for kind, tables in (("data set", data), ("method", methods)):
        if not tables:
            raise InputError(f"there is no {kind}: name one in a table [{kind.split()[0].rstrip('s')}"
                             f"{'s' if kind == 'method' else ''}.NAME].")  # fmt: skip
    unknown = [name for name in tasks if name not in TASKS]
    if unknown:
        raise InputError(f"there is no task {unknown[0]!r}; the tasks are: {', '.join(TASKS)}.")
    seed, replicates = content.get("seed", 0), content.get("replicates", 500)
    for name, value, least in (("seed", seed, 0), ("replicates", replicates, 2)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    made = tuple(_method(name, table) for name, table in methods.items())
    seen: dict[tuple[str, str], str] = {}
    for method in made:
        if method.name in BASELINES:
            raise InputError(f"method {method.name!r} has the name of a baseline; call it something else.")
        twin = seen.setdefault((method.option, method.value), method.name)
        if twin != method.name:
            raise InputError(f"methods {twin!r} and {method.name!r} are the same: {method.option} {method.value!r}.")
    return BenchmarkConfig(
        tuple(
            Data(name, from_table(DataOptions, table, prefix=f"data.{name}."), folder) for name, table in data.items()
        ),
        made,
        tuple(from_table(TASKS[name], table, prefix=f"tasks.{name}.") for name, table in tasks.items()),
        seed,
        replicates,
    )


def _tables(content: Mapping[str, Any], name: str) -> dict[str, Mapping[str, Any]]:
    tables = content.get(name, {})
    if not isinstance(tables, Mapping) or not all(isinstance(table, Mapping) for table in tables.values()):
        raise InputError(f"{name} must hold tables of options, such as [{name}.NAME].")
    blank = [key for key in tables if not key.strip()]
    if blank:
        raise InputError(f"{name} holds a table without a name.")
    return dict(tables)


def _method(name: str, table: Mapping[str, Any]) -> Method:
    unknown = [option for option in table if option not in METHODS]
    if unknown:
        raise InputError(f"methods.{name}.{unknown[0]} is not an option; the options there are: {', '.join(METHODS)}.")
    if len(table) != 1:
        raise InputError(f"method {name!r} needs exactly one of the options {', '.join(METHODS)}.")
    ((option, value),) = table.items()
    if not isinstance(value, str) or not value:
        raise InputError(f"methods.{name}.{option} must be a text, not {value!r}.")
    return METHODS[option](name, value)
