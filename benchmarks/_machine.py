"""What a measurement was made on, without names of hosts, users or folders."""

import json
import os
import platform
import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any


def describe(*packages: str) -> dict[str, Any]:
    """Return the processor, the number of cores and the versions of Python and of packages."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
    }


def time_of(work: Callable[[], object]) -> dict[str, Any]:
    """Run something and return what it took, and how busy the machine was.

    The clock is an upper bound where others run beside, which the load says: the mean number of processes over the last
    minute that ran or waited for a core. The seconds of cores are those of this process alone.
    """
    load, started, used = os.getloadavg()[0], time.perf_counter(), time.process_time()
    work()
    return {
        "seconds": time.perf_counter() - started,
        "core_seconds": time.process_time() - used,
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def earlier_results(name: str) -> dict[str, Any]:
    """Return what was written before, so that a run of some parts keeps the others."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def write_results(name: str, results: dict[str, Any]) -> None:
    """Write results as JSON beside the scripts and say where."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written: benchmarks/results/{path.name}")
