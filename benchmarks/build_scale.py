"""Time and memory of ``spaf-data build`` from a folder of transcripts to a corpus, and how both grow tenfold.

``python benchmarks/build_scale.py [--cells 20000 200000] [--folder DIR]`` simulates a slide of each size (about 150
transcripts a cell, 300 genes; kept in the folder for the next run) and builds it in a process of its own. Memory is the
largest resident set of the whole process tree, sampled five times a second: all of it, memory-mapped files included,
and the part that is not shared with files.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numba
import psutil
from _machine import describe, write_results

DEPTH = 132.0
GENES = 300


def simulated(folder: Path, n_cells: int) -> Path:
    """Return a simulated bundle, made if it is not there."""
    bundle = folder / f"simulated-{n_cells}"
    if not bundle.exists():
        options = {"cells": n_cells, "genes": GENES, "depth": DEPTH, "seed": 1, "out": bundle}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        subprocess.run([sys.executable, "-m", "spaf_data", "simulate", *arguments], check=True)
    return bundle


def watched(command: list[str]) -> dict[str, float]:
    """Run a command and return its seconds, processor seconds and largest resident memory."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    root = psutil.Process(process.pid)
    peak = {"seconds": 0.0, "cpu_seconds": 0.0, "peak_rss_mb": 0.0, "peak_rss_not_of_files_mb": 0.0}
    while process.poll() is None:
        try:
            tree = [root, *root.children(recursive=True)]
            memory = [each.memory_info() for each in tree]
            peak["cpu_seconds"] = sum(sum(each.cpu_times()[:2]) for each in tree)
        except psutil.Error:
            continue
        peak["peak_rss_mb"] = max(peak["peak_rss_mb"], sum(m.rss for m in memory) / 1e6)
        # On Linux; elsewhere psutil does not say.
        not_of_files = sum(m.rss - getattr(m, "shared", 0) for m in memory) / 1e6
        peak["peak_rss_not_of_files_mb"] = max(peak["peak_rss_not_of_files_mb"], not_of_files)
        time.sleep(0.2)
    peak["seconds"] = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return peak


def measure(folder: Path, n_cells: int) -> dict[str, Any]:
    """Build a slide of a size and return what it took."""
    bundle = simulated(folder, n_cells)
    with TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, "-m", "spaf_data", "build", str(bundle), f"--out={out}/built"]
        taken = watched(command)
        record = json.loads((Path(out) / "built" / "build.json").read_text())
        (slide,) = record["slides"]
        size = sum(file.stat().st_size for file in (Path(out) / "built").rglob("*") if file.is_file())
    return {
        "n_cells": record["n_cells"],
        "transcripts_read": slide["account"]["read"],
        **{name: round(value, 1) for name, value in taken.items()},
        "seconds_of_steps": slide["seconds"],
        "bundle_mb": round(sum(file.stat().st_size for file in bundle.iterdir()) / 1e6, 1),
        "built_mb": round(size / 1e6, 1),
    }


def main() -> None:
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--folder", type=Path, help="where bundles are kept; default: a temporary folder")
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        # Compiles the kernels, which are then read from Numba's cache.
        measure(folder, 500)
        rows = []
        print(f"{'cells':>9} {'transcripts':>12} {'seconds':>8} {'cpu s':>8} {'RSS MB':>8} {'not of files':>12}")
        for n_cells in arguments.cells:
            row = measure(folder, n_cells)
            rows.append(row)
            print(
                f"{row['n_cells']:>9} {row['transcripts_read']:>12} {row['seconds']:>8} {row['cpu_seconds']:>8} "
                f"{row['peak_rss_mb']:>8} {row['peak_rss_not_of_files_mb']:>12}",
                flush=True,
            )
    names = ("transcripts_read", "seconds", "cpu_seconds", "peak_rss_mb")
    growth = [
        {name: round(after[name] / before[name], 2) for name in names} for before, after in itertools.pairwise(rows)
    ]
    for ratios in growth:
        print("growth: " + ", ".join(f"{name} x {ratio}" for name, ratio in ratios.items()))
    write_results(
        "build_scale",
        {
            "machine": describe("spaf-data", "numpy", "scipy", "numba", "pyarrow", "anndata"),
            "threads": numba.get_num_threads(),
            "genes": GENES,
            "rows": rows,
            "growth": growth,
        },
    )


if __name__ == "__main__":
    main()
