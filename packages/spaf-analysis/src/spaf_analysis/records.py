"""What every stage writes down of itself, and the record of the analysis."""

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from spaf_data import peak_rss_mb

_LIBRARIES = ("spaf-analysis", "numpy", "scipy", "pandas", "anndata", "scikit-learn", "scanpy", "igraph", "matplotlib")


@dataclass(frozen=True)
class Record:
    """The record of one stage.

    Attributes
    ----------
    stage
        "build", "pretrain", "embed", "report", or a command whose result is in the table, such as "annotate".
    command
        The command line's name.
    versions
        Version of each library.
    parameters
        Option and value, nested options joined by dots.
    seconds
        Wall time; NaN if it was not recorded.
    peak_rss_mb
        Largest resident memory in MB; NaN if it was not recorded.
    """

    stage: str
    command: str
    versions: dict[str, str]
    parameters: dict[str, str]
    seconds: float
    peak_rss_mb: float

    @classmethod
    def of(cls, stage: str, stored: Mapping[str, Any]) -> "Record":
        """Read what a stage stored, tolerant of what an older one left out."""
        return cls(
            stage=stage,
            command=str(stored.get("command", stage)),
            versions={str(name): str(value) for name, value in stored.get("versions", {}).items()},
            parameters=dict(_flat(stored.get("parameters", {}))),
            seconds=float(stored.get("seconds", "nan")),
            peak_rss_mb=float(stored.get("peak_rss_mb", "nan")),
        )


def run_record(command: str, parameters: Mapping[str, Any], *, started: float) -> dict[str, Any]:
    """Return what this process, begun at `started` (of `time.perf_counter`), writes down of itself."""
    return {
        "command": command,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "parameters": dict(_flat(parameters)),
        "seconds": time.perf_counter() - started,
        "peak_rss_mb": peak_rss_mb(),
    }


def own_record(command: str, parameters: Mapping[str, Any], *, started: float) -> Record:
    """Return the record of this process, begun at `started` (of `time.perf_counter`)."""
    return Record.of("report", run_record(command, parameters, started=started))


def stored_records(spaf: Mapping[str, Any]) -> tuple[Record, ...]:
    """Return the records that commands of this package left in ``uns["spaf"]`` of a table, in their order there."""
    told = {name: one for name, one in spaf.items() if isinstance(one, Mapping)}
    ours = {name: one for name, one in told.items() if str(one.get("command", "")).startswith("spaf-analysis ")}
    return tuple(Record.of(name, one) for name, one in ours.items())


def _flat(parameters: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested options as (dotted name, text)."""
    if isinstance(parameters, Mapping):
        return [
            item
            for name, value in parameters.items()
            for item in _flat(value, f"{prefix}.{name}" if prefix else str(name))
        ]
    if isinstance(parameters, list | tuple) and any(isinstance(value, Mapping) for value in parameters):
        return [item for index, value in enumerate(parameters) for item in _flat(value, f"{prefix}[{index}]")]
    if isinstance(parameters, np.ndarray | list | tuple):
        return [(prefix, ", ".join(str(value) for value in parameters))]
    if isinstance(parameters, float | np.floating):
        return [(prefix, f"{parameters:g}")]
    return [(prefix, str(parameters))]
