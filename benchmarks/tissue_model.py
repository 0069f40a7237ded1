"""Time and memory of the own-tissue model by size, beside principal components of log counts in the same run.

    python benchmarks/tissue_model.py [--threads 2] [--cases 20000x300 300000x300] [--write]

Counts are simulated: 12 programmes of genes, of which each cell has smooth amounts in space and amounts of its own; 150
counts a cell (1,500 beyond 1,000 genes), cells some 12 um apart. Each step of each case runs in a process of its own,
so that its peak of memory is its own: ``data`` holds the counts alone. Where other jobs share the machine, read the
seconds of cores (``core_seconds``): of one thread they are what the clock shows on a machine that is alone.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scipy.sparse as sp
from _machine import describe, write_results

CASES = ("1000x300", "20000x300", "300000x300", "20000x5000", "4000x18000")
STEPS = ("data", "pca", "neighbours", "tissue", "embed")


def simulate(n_cells: int, n_genes: int) -> anndata.AnnData:
    """Make cells with spatial and other programmes."""
    rng = np.random.default_rng(0)
    programmes = rng.gamma(0.5, 1.0, (12, n_genes))
    places = rng.random((n_cells, 2)) * np.sqrt(n_cells * 150.0)
    amounts = np.sin(places @ rng.normal(0, 0.01, (2, 12))) ** 2 + rng.gamma(0.3, 0.3, (n_cells, 12))
    depth = 150.0 if n_genes <= 1_000 else 1_500.0
    pieces = []
    for start in range(0, n_cells, 5_000):
        rates = amounts[start : start + 5_000] @ programmes
        pieces.append(sp.csr_matrix(rng.poisson(rates * depth / rates.sum(axis=1, keepdims=True)).astype(np.int32)))
    adata = anndata.AnnData(sp.vstack(pieces, format="csr"))
    adata.var_names = [f"G{gene}" for gene in range(n_genes)]
    adata.obsm["spatial"] = places
    return adata


def log_pca(adata: anndata.AnnData) -> None:
    """Principal components (50) of log counts of 10,000, as scanpy's pipeline takes them: sparse, by ARPACK."""
    from sklearn.decomposition import PCA

    counts = sp.csr_matrix(adata.X).astype(np.float32)
    scale = 1e4 / np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1.0)
    logs = sp.csr_matrix(sp.diags(scale.astype(np.float32)) @ counts)
    logs.data = np.log1p(logs.data)
    adata.obsm["X_pca"] = PCA(50, svd_solver="arpack", random_state=0).fit_transform(logs)


def measure(step: str, case: str, folder: Path, threads: int) -> dict[str, float]:
    """Run one step in this process."""
    import torch

    from spaf_model import TissueModel

    torch.set_num_threads(threads)
    adata = anndata.read_h5ad(folder / f"{case}.h5ad")
    model = TissueModel.from_pretrained(folder / case) if step == "embed" else None
    started, used = time.perf_counter(), time.process_time()
    if step == "pca":
        log_pca(adata)
    elif step in ("neighbours", "tissue"):
        TissueModel.fit(adata, step, n_threads=threads).save_pretrained(folder / case)
    elif model is not None:
        model.embed(adata, n_threads=threads)
    return {
        "seconds": time.perf_counter() - started,
        "core_seconds": time.process_time() - used,
        "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main() -> None:
    """Run every step of every case in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="CELLSxGENES")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is not None:
        step, case, folder = arguments.step
        print(json.dumps(measure(step, case, Path(folder), arguments.threads)))
        return
    environment = os.environ | {
        name: str(arguments.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    }
    results: dict[str, Any] = {}
    load = []
    print(f"{'cells x genes':>14}{'step':>12}{'seconds':>10}{'of cores':>10}{'peak GB':>10}")
    with tempfile.TemporaryDirectory() as temporary:
        for case in arguments.cases:
            n_cells, n_genes = map(int, case.split("x"))
            simulate(n_cells, n_genes).write_h5ad(Path(temporary) / f"{case}.h5ad")
            results[case] = {}
            for step in STEPS:
                command = [
                    sys.executable,
                    __file__,
                    "--threads",
                    str(arguments.threads),
                    "--step",
                    step,
                    case,
                    temporary,
                ]
                answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
                row = results[case][step] = json.loads(answer.stdout.splitlines()[-1])
                load.append(os.getloadavg()[0])
                values = "".join(f"{value:>10.2f}" for value in row.values())
                print(f"{case:>14}{step:>12}{values}", flush=True)
    if arguments.write:
        machine = describe("spaf-model", "torch", "numpy", "scipy", "scikit-learn")
        write_results(
            "tissue_model",
            {"machine": machine, "threads": arguments.threads, "load_average": load, "cells_x_genes": results},
        )


if __name__ == "__main__":
    main()
