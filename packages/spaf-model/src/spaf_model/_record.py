"""What every run writes down about itself."""

from __future__ import annotations

import platform
import resource
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    packages = ("spaf-model", "torch", "numpy", "anndata")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def run_record(command: str, parameters: Mapping[str, Any], *, started: float) -> dict[str, Any]:
    """Return command, versions, parameters, seconds since `started` (`time.perf_counter`) and peak memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kilobyte = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS and in KiB on Linux
    return {
        "command": command,
        "versions": versions(),
        "parameters": dict(parameters),
        "seconds": time.perf_counter() - started,
        "peak_rss_mb": peak * kilobyte / 1e6,
    }


def keep_record(adata: AnnData, name: str, record: Mapping[str, Any]) -> None:
    """Write what a run says about itself into ``uns["spaf"]``, beside what other runs said."""
    adata.uns["spaf"] = {**adata.uns.get("spaf", {}), name: dict(record)}
