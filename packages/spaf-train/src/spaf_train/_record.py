"""What every run writes down about itself."""

from __future__ import annotations

import glob
import hashlib
import json
import platform
import shutil
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spaf_data import Corpus, peak_rss_mb, write_text

_PACKAGES = ("spaf-train", "spaf-model", "spaf-data", "torch", "numpy", "scipy")


def versions(*more: str) -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in (*_PACKAGES, *more)}}


def fingerprint(corpus: Corpus) -> str:
    """Return the SHA-256 of the manifest, which holds that of every shard."""
    return hashlib.sha256((corpus.path / "manifest.json").read_bytes()).hexdigest()


def run_record(
    command: str, parameters: Mapping[str, Any], *, started: float, packages: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return command, versions, parameters, seconds since `started` (`time.perf_counter`) and peak memory."""
    return {
        "command": command,
        "versions": versions(*packages),
        "parameters": dict(parameters),
        "seconds": time.perf_counter() - started,
        "peak_rss_mb": peak_rss_mb(),
    }


def sweep_partial(path: Path) -> None:
    """Remove the folders beside `path` that processes were filling for it when they were killed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


def write_json(path: Path, contents: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all; what is not a number becomes null, as JSON has no NaN."""
    write_text(path, json.dumps(plain(contents), indent=1) + "\n")


def plain(value: Any) -> Any:
    """Return a value with NaN and infinities as None, which JSON can say."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):  # NumPy's double is one
        return float(value) if value - value == 0.0 else None
    return value.item() if hasattr(value, "item") else value
