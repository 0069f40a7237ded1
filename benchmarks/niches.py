"""Niches against labelled regions beside baselines, and their time and memory on a million cells.

    python benchmarks/niches.py [NAME=SLIDE.h5ad:COLUMN ..] [--seeds 5] [--cells 1000000] [--dimensions 64] [--write]

A slide has counts in X, places in obsm["spatial"] in any unit, and regions in the column of obs; cells with "Excluded"
or without a value in it are left out. The own-tissue model (preset ``neighbours``) is fitted on the slide itself. As
many domains as there are regions are asked of every method. Intervals go over seeds of the clustering and over
resampled tiles of tissue; differences to PCA averaged twice over 15 neighbours are paired. NAME goes into the results,
the path does not.

Without a slide what was judged before is kept. The cells whose time is taken are simulated: an embedding of programmes
that are smooth in space, with noise. Each number of cells runs in a process of its own, so that its peak of memory is
its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from _machine import describe, earlier_results, time_of, write_results
from scipy import sparse

_NO_REGION = {"Excluded", "nan", ""}


def judge(path: Path, column: str, n_seeds: int) -> dict[str, Any]:
    """Judge one slide."""
    from spaf_analysis import judge_niches
    from spaf_model import TissueModel

    slide = anndata.read_h5ad(path)
    region = slide.obs[column].astype(str)
    slide = slide[(region != "Excluded").to_numpy()].copy()
    slide.X = sparse.csr_matrix(slide.X)
    TissueModel.fit(slide, "neighbours").embed(slide)
    started = time.perf_counter()
    table = judge_niches(slide, column, seeds=range(n_seeds))
    rows = table.set_index("method").round(4).to_dict(orient="index")
    n_regions = len(set(slide.obs[column].astype(str)) - _NO_REGION)
    return {"n_cells": slide.n_obs, "n_regions": n_regions, "seconds": time.perf_counter() - started, "rows": rows}


def measure(n_cells: int, n_dimensions: int, threads: int) -> dict[str, Any]:
    """Find niches of simulated cells in this process."""
    from spaf_analysis import tl

    rng = np.random.default_rng(0)
    places = rng.random((n_cells, 2)) * np.sqrt(n_cells * 150.0)
    smooth = np.sin(places @ rng.normal(0, 0.01, (2, n_dimensions))).astype(np.float32)
    embedding = smooth + rng.normal(0, 1, (n_cells, n_dimensions)).astype(np.float32)
    adata = anndata.AnnData(sparse.csr_matrix((n_cells, 1), dtype=np.float32))
    adata.obsm["spatial"], adata.obsm["X_SpaF"] = places, embedding
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    taken = time_of(lambda: tl.niches(adata, n_domains=10, inputs="embedding", n_threads=threads))
    return {**taken, "peak_rss_gb_before": before}


def main() -> None:
    """Judge every slide, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="*", metavar="NAME=SLIDE.h5ad:COLUMN")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cells", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments.dimensions, arguments.threads)))
        return
    results: dict[str, Any] = {"regions": {}, "time": {}}
    if not arguments.slides:
        results["regions"] = earlier_results("niches").get("regions", {})
    for given in arguments.slides:
        name, _, place = given.partition("=")
        path, _, column = place.rpartition(":")
        found = results["regions"][name] = judge(Path(path), column, arguments.seeds)
        print(f"{name}: {found['n_cells']} cells, {found['n_regions']} regions")
        for method, row in found["rows"].items():
            print(
                f"  {method:<26}ARI {row['ari']:.3f} ({row['ari_low']:.3f} to {row['ari_high']:.3f})  "
                f"NMI {row['nmi']:.3f} ({row['nmi_low']:.3f} to {row['nmi_high']:.3f})  {row['ari_verdict']}",
                flush=True,
            )
    for n_cells in arguments.cells:
        command = [sys.executable, __file__, "--measure", str(n_cells), "--dimensions", str(arguments.dimensions)]
        command += ["--threads", str(arguments.threads)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        row = results["time"][f"{n_cells}x{arguments.dimensions}"] = json.loads(answer.stdout.splitlines()[-1])
        print(f"{n_cells} cells x {arguments.dimensions}: {row}", flush=True)
    if arguments.write:
        packages = ("spaf-analysis", "spaf-model", "numpy", "scipy", "scikit-learn")
        write_results("niches", {"machine": describe(*packages), "threads": arguments.threads, **results})


if __name__ == "__main__":
    main()
