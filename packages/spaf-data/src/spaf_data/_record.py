"""What every stage writes down about itself: versions, seconds and memory; and files that are written whole."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("spaf-data", "numpy", "scipy", "pandas", "anndata", "numba", "pyarrow")


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of the libraries that shape its results."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def peak_rss_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def run_record(command: str, parameters: dict[str, Any], started: float) -> dict[str, Any]:
    """Return the record of a run that began at `started`, a value of `time.perf_counter`."""
    return {
        "command": command,
        "versions": versions(),
        "parameters": parameters,
        "seconds": round(time.perf_counter() - started, 3),
        "peak_rss_mb": peak_rss_mb(),
    }


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all: to a temporary name beside it, which is then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
