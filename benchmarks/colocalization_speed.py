"""How fast is gene co-localisation beside the published code, and how good are its communities.

    python benchmarks/colocalization_speed.py BUNDLE [--peer-python PYTHON]

BUNDLE is a folder that `spaf_data.read_transcripts` reads; PYTHON an interpreter with ``spatialformer==0.1.8``,
python-louvain and networkx. Figures are medians of `--repeats` runs after one that compiles; ratios come from one run.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from _machine import describe, write_results
from anndata import AnnData
from scipy import sparse

from spaf_data import Transcripts, colocalize, louvain, modularity, proximity_graph, read_transcripts

LARGE_TABLE = 50_000


def repeated(transcripts: Transcripts, copies: int) -> Transcripts:
    """Return the slide `copies` times over, as different cells."""
    columns = {
        name: np.tile(getattr(transcripts, name), copies) for name in ("x", "y", "z", "gene", "qv", "in_nucleus")
    }
    offsets = np.concatenate([[0], np.cumsum(np.tile(np.diff(transcripts.offsets), copies))])
    cells = np.array([f"{k}-{cell}" for k in range(copies) for cell in transcripts.cells])
    return replace(transcripts, **columns, offsets=offsets, cells=cells, centroids=None, areas=None)


def synthetic(n_cells: int, n_transcripts: int, n_genes: int) -> Transcripts:
    """Cells of 12 x 12 x 6 um with transcripts of genes whose frequencies fall like 1 / rank."""
    rng = np.random.default_rng(0)
    n = n_cells * n_transcripts
    frequency = 1.0 / np.arange(1, n_genes + 1)
    return Transcripts.from_arrays(
        x=rng.uniform(0, 12, n), y=rng.uniform(0, 12, n), z=rng.uniform(0, 6, n),
        gene=rng.choice(n_genes, n, p=frequency / frequency.sum()), cell=np.repeat(np.arange(n_cells), n_transcripts),
        genes=[f"G{k}" for k in range(n_genes)], cells=[str(k) for k in range(n_cells)],
    )  # fmt: skip


def microseconds_per_cell(transcripts: Transcripts, method: str, repeats: int) -> dict[str, float]:
    """Return the time of the clock and of the processors per cell: medians of runs after one that loads the kernels."""
    adata = AnnData(
        sparse.csr_matrix((transcripts.n_cells, transcripts.n_genes), dtype=np.float32),
        obs=pd.DataFrame(index=transcripts.cells),
        var=pd.DataFrame(index=transcripts.genes),
    )
    clock, processors = [], []
    for _ in range(repeats + 1):
        started, used = time.perf_counter(), time.process_time()
        colocalize(adata, transcripts, method=method)
        clock.append(time.perf_counter() - started)
        processors.append(time.process_time() - used)
    scale = 1e6 / transcripts.n_cells
    return {"clock": scale * float(np.median(clock[1:])), "processor": scale * float(np.median(processors[1:]))}


def our_modularity(transcripts: Transcripts) -> np.ndarray:
    """Return the modularity of the communities of every cell."""
    found = []
    for a, b in zip(transcripts.offsets[:-1], transcripts.offsets[1:], strict=True):
        x, y, z = (getattr(transcripts, name)[a:b] for name in ("x", "y", "z"))
        # The order in which `colocalize` numbers transcripts: strips as wide as the radius, then y.
        order = np.lexsort((z, x, y, np.floor((x.astype(np.float64) - x.min()) / (5.0 * (1.0 + 1e-6)))))
        graph = proximity_graph(np.column_stack([x, y, z])[order])
        found.append(modularity(graph, louvain(graph)))
    return np.array(found)


def run_peer(python: str, transcripts: Transcripts, n_cells: int, extra: str = "") -> dict:
    """Run the published code in its own interpreter, on a table of the columns it reads."""
    with tempfile.TemporaryDirectory() as folder:
        columns = {name: getattr(transcripts, name) for name in ("x", "y", "z", "gene", "cell")}
        np.savez(f"{folder}/columns.npz", genes=np.array(transcripts.genes), **columns)
        table = pd.DataFrame({name: columns[name] for name in ("x", "y", "z")})
        table["gene"] = np.array(transcripts.genes, dtype=object)[transcripts.gene]
        table["cell_id"] = np.asarray(transcripts.cells, dtype=object)[transcripts.cell]
        table.to_csv(f"{folder}/transcripts.csv", index=False)
        del table
        script = Path(__file__).with_name("colocalization_peer.py")
        command = [python, str(script), f"{folder}/columns.npz", f"{folder}/transcripts.csv", str(n_cells), extra]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--peer-python")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--synthetic-cells", type=int, default=20_000)
    options = parser.parse_args()

    window = read_transcripts(options.bundle)
    copies = -(-LARGE_TABLE // window.n_cells)
    large = repeated(window, copies)
    made = synthetic(options.synthetic_cells, 150, 300)
    result: dict = {
        "machine": describe("spaf-data", "numpy", "numba", "scipy"),
        "load_average_at_start": os.getloadavg()[0],
        "window": {"cells": window.n_cells, "transcripts": window.n_transcripts, "genes": window.n_genes},
        "microseconds_per_cell": {},
    }
    for name, transcripts, repeats in (
        ("window", window, options.repeats),
        ("large_table", large, 1),
        ("synthetic_150_transcripts_300_genes", made, options.repeats),
    ):
        for method in ("communities", "enrichment"):
            used = microseconds_per_cell(transcripts, method, repeats)
            result["microseconds_per_cell"][f"{method}_{name}"] = used
            print(f"{method} {name}: {1e6 / used['clock']:,.0f} cells/s", flush=True)
    if options.peer_python:
        result["peer"] = {}
        result["ratios"] = {}
        for name, transcripts, n_cells in (("window", window, 60), ("large_table", large, 12)):
            peer = run_peer(options.peer_python, transcripts, n_cells)
            used = result["microseconds_per_cell"][f"communities_{name}"]
            result["peer"][name] = peer
            # By the clock we run two threads and the published code one process. Its script starts a pool of them,
            # which is at best as much faster as there are cores: the ratio of processor time is that of equal cores.
            result["ratios"][f"communities_{name}"] = {
                "clock": 1e6 * peer["seconds_per_cell"] / used["clock"],
                "processor": 1e6 * peer["processor_seconds_per_cell"] / used["processor"],
            }
            print(f"communities {name} over published: {result['ratios'][f'communities_{name}']}", flush=True)
        result["load_average_after_timing"] = os.getloadavg()[0]
        print("timed", flush=True)
        theirs = np.array(run_peer(options.peer_python, window, 1, "modularity")["modularity"])
        ours = our_modularity(window)
        result["modularity"] = {
            "mean": float(ours.mean()),
            "mean_python_louvain": float(theirs.mean()),
            "cells_more_than_1_percent_below": int((ours < 0.99 * theirs - 1e-9).sum()),
            "smallest_share": float((ours[theirs > 0] / theirs[theirs > 0]).min()),
        }
    write_results("colocalization_speed", result)
    print(pd.json_normalize(result).T.to_string(header=False))


if __name__ == "__main__":
    main()
