"""Time to find the neighbours of all cells, and whether the time per cell is constant.

Cells lie at random with 16 others within 30 um on average. ``python benchmarks/cell_pairs.py [--largest 10000000]``
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
from _machine import describe, write_results

from spaf_data import easy_negatives, hard_negatives, positive_pairs

RADIUS = 30.0
NEIGHBORS = 16
SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
NEGATIVES_UP_TO = 1_000_000


def seconds(function: Callable[[], object], repeats: int) -> dict[str, float]:
    """Return the median time of some runs: by the clock, and of the processor over all threads."""
    clock, processor = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        function()
        clock.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return {"seconds": median(clock), "cpu_seconds": median(processor)}


def main() -> None:
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="largest number of cells")
    largest = parser.parse_args().largest
    rng = np.random.default_rng(0)
    hard_negatives(rng.random((100, 2)) * 300)
    easy_negatives(rng.random((100, 2)) * 300)

    rows: list[dict[str, float | dict[str, float]]] = []
    per_cell = []
    print(f"{'cells':>10} {'neighbours':>10} {'us/cell':>8}   seconds by the clock (of the processor)")
    for n_cells in (size for size in SIZES if size <= largest):
        coordinates = rng.random((n_cells, 2)) * np.sqrt(n_cells * np.pi * RADIUS**2 / NEIGHBORS)
        n_pairs = len(positive_pairs(coordinates, RADIUS))
        repeats = 3 if n_cells <= 1_000_000 else 1
        times = {"positive": seconds(partial(positive_pairs, coordinates, RADIUS), repeats)}
        if n_cells <= NEGATIVES_UP_TO:
            times["hard_10"] = seconds(partial(hard_negatives, coordinates, per_anchor=10), 1)
            times["easy_10"] = seconds(partial(easy_negatives, coordinates, per_anchor=10), 1)
        # The processor's time, because other programs may be running.
        per_cell.append(times["positive"]["cpu_seconds"] / n_cells * 1e6)
        rows.append({"n_cells": n_cells, "neighbors": 2 * n_pairs / n_cells, **times})
        shown = ", ".join(f"{name} {t['seconds']:.2f} ({t['cpu_seconds']:.2f})" for name, t in times.items())
        print(f"{n_cells:>10} {2 * n_pairs / n_cells:>10.2f} {per_cell[-1]:>8.2f}   {shown}", flush=True)
    spread = max(per_cell) / min(per_cell)
    print(f"processor time per cell of positive pairs, largest over smallest: {spread:.2f}")
    write_results(
        "cell_pairs",
        {
            "machine": describe("spaf-data", "numpy", "scipy", "numba"),
            "radius_um": RADIUS,
            "rows": rows,
            "positive_cpu_us_per_cell": per_cell,
            "largest_over_smallest_us_per_cell": spread,
        },
    )


if __name__ == "__main__":
    main()
