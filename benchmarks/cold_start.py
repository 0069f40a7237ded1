"""What a first call costs: a build whose kernels are not compiled yet, imports, and ``--help`` of each command.

    python benchmarks/cold_start.py [--repeats 3]

A build of the breast window (by its package name) runs in a process of its own, first with an empty folder for what
Numba compiles and then with the folder it left. Figures are medians, in seconds of processor time, which other work on
the machine changes less than the clock; those of the clock stand beside. Packages are imported in processes of their
own too, their files having been read before.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from _machine import describe, write_results

PACKAGES = ("spaf_data", "spaf_model", "spaf_train", "spaf_analysis")
COMMANDS = {"spaf_data": "build", "spaf_model": "embed", "spaf_train": "pretrain", "spaf_analysis": "report"}

# Runs the command line of spaf-data, and writes the processor time that each function took to compile.
LISTENER = """
import atexit, json, os, sys, time
from numba.core import event
found, inner = {}, []
class Compiled(event.Listener):
    def on_start(self, occurred):
        inner.append([time.process_time(), 0.0])
    def on_end(self, occurred):
        started, of_others = inner.pop()
        took = time.process_time() - started
        if inner:
            inner[-1][1] += took
        number, seconds = found.get(occurred.data["dispatcher"].py_func.__module__, (0, 0.0))
        found[occurred.data["dispatcher"].py_func.__module__] = (number + 1, seconds + took - of_others)
event.register("numba:compile", Compiled())
atexit.register(lambda: open(os.environ["COMPILED"], "w").write(json.dumps(found)))
sys.argv[0] = "spaf-data"
from spaf_data.cli import main
main()
"""


def measured(command: list[str], environment: dict[str, str] | None = None) -> dict[str, float]:
    """Run a command and return its seconds of processor time and of the clock."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    clock = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"processor": used, "clock": clock}


def medians(found: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure of some runs."""
    return {name: round(median(run[name] for run in found), 2) for name in found[0]}


def build(repeats: int) -> dict[str, Any]:
    """Build the window cold and warm; list what the first of them compiled, by module."""
    cold, warm = [], []
    compiled: dict[str, tuple[int, float]] = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            listed = Path(folder) / "compiled.json"
            environment = {"NUMBA_CACHE_DIR": f"{folder}/cache", "COMPILED": str(listed)}
            command = [sys.executable, "-c", LISTENER, "build", "--dataset", "xenium_breast_window", "--out"]
            cold.append(measured([*command, f"{folder}/cold"], environment))
            compiled = json.loads(listed.read_text())
            warm.append(measured([*command, f"{folder}/warm"], environment))
            if again := json.loads(listed.read_text()):
                raise SystemExit(f"compiled anew although a build left it: {again}")
    return {
        "cold": medians(cold),
        "warm": medians(warm),
        "functions": sum(number for number, _ in compiled.values()),
        "by_module": {
            name: {"functions": number, "processor": round(seconds, 2)}
            for name, (number, seconds) in sorted(compiled.items(), key=lambda item: -item[1][1])
        },
    }


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    if any(importlib.util.find_spec(package) is None for package in PACKAGES):
        raise SystemExit("all four packages are needed")
    result: dict[str, Any] = {
        "machine": describe("numba", "numpy", "torch"),
        "load_average_at_start": os.getloadavg()[0],
        "build": build(repeats),
        "import": {},
        "help": {},
    }
    for package in PACKAGES:
        imported = [sys.executable, "-c", f"import {package}"]
        result["import"][package] = medians([measured(imported) for _ in range(repeats)])
        for words in ([], [COMMANDS[package]]):
            line = [sys.executable, "-c", f"from {package}.cli import main; main()", *words, "--help"]
            name = " ".join([package.replace("_", "-"), *words])
            result["help"][name] = medians([measured(line) for _ in range(repeats)])
    result["load_average_at_end"] = os.getloadavg()[0]
    print(json.dumps(result, indent=1))
    write_results("cold_start", result)


if __name__ == "__main__":
    main()
