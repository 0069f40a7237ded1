"""Integration beside baselines, and its time.

    python benchmarks/integrate.py [NAME=TABLE.h5ad:BATCH:LABEL ..] [--cells 20000] [--write]

A table has counts in X, or in layers["counts"] where there is such a layer. Cells labelled "unlabelled", "undetermined"
or without a label are left out. The own-tissue model is fitted on the table, each batch taken for a slide: with places
its joint embedding, without them identity alone. All baselines stand beside it, each as it is and after Harmony; the
metrics are those of ``spaf-analysis integrate``. NAME goes into the results, the path does not.

Without a table what was judged before is kept. The cells whose time is taken are simulated: 300 genes, 12 types, 4
batches; it runs in a process of its own.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from _machine import describe, earlier_results, time_of, write_results
from scipy import sparse

_NO_LABEL = {"unlabelled", "undetermined", "nan", ""}
_SHOWN = ("nmi", "ari", "purity", "graph_connectivity", "cilisi", "pcr", "avg_bio", "avg_batch")


def judge(path: Path, batch: str, label: str) -> dict[str, Any]:
    """Integrate one table and judge it."""
    from spaf_analysis import tl
    from spaf_model import TissueModel

    table = anndata.read_h5ad(path)
    table = table[~table.obs[label].astype(str).isin(_NO_LABEL).to_numpy()].copy()
    counts = table.layers.get("counts", table.X)
    table.X = sparse.csr_matrix(counts).astype(np.float32)
    table.obs["slide"] = table.obs[batch].astype(str).to_numpy()
    TissueModel.fit(table, "neighbours" if "spatial" in table.obsm else "tissue").embed(table)
    tl.integrate(table, batch=batch, label=label, centre=True)
    stored = table.uns["integration"]
    scores = stored["scores"].set_index("method").round(4)
    differences = stored["differences"]
    kept = differences[differences["method"].str.startswith("embedding")]
    return {
        "n_cells": table.n_obs, "n_genes": table.n_vars, "unit": stored["unit"], "n_units": stored["n_units"],
        "scores": scores.to_dict(orient="index"), "differences": kept.round(4).to_dict(orient="records"),
        "overall": stored["overall"].to_dict(orient="records"),
    }  # fmt: skip


def measure(n_cells: int) -> dict[str, Any]:
    """Integrate simulated cells in this process."""
    from spaf_analysis import tl

    rng = np.random.default_rng(0)
    kind, batch = rng.integers(12, size=n_cells), rng.integers(4, size=n_cells)
    rates = rng.gamma(0.5, 1, (12, 300))[kind] * np.exp(rng.normal(0, 0.4, (4, 300)))[batch]
    counts = rng.poisson(150 * rates / rates.sum(axis=1, keepdims=True))
    obs = pd.DataFrame({"batch": batch.astype(str), "kind": kind.astype(str)}, index=np.arange(n_cells).astype(str))
    table = anndata.AnnData(sparse.csr_matrix(counts).astype(np.float32), obs=obs)
    table.obsm["X_SpaF"] = 2 * rng.normal(size=(12, 32))[kind] + rng.normal(size=(n_cells, 32))
    return time_of(lambda: tl.integrate(table, batch="batch", label="kind"))


def main() -> None:
    """Judge every table, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="NAME=TABLE.h5ad:BATCH:LABEL")
    parser.add_argument("--cells", type=int, default=20_000, help="to take the time of; 0: none")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.cells)))
        return
    found: dict[str, Any] = {}
    for given in arguments.tables:
        name, _, place = given.partition("=")
        path, batch, label = place.rsplit(":", 2)
        found[name] = judge(Path(path), batch, label)
        print(f"{name}: {found[name]['n_cells']} cells, intervals over {found[name]['n_units']} {found[name]['unit']}")
        print(f"  {'':<26}" + "".join(f"{metric:>20}" for metric in _SHOWN))
        for method, row in found[name]["scores"].items():
            print(f"  {method:<26}" + "".join(f"{row[metric]:>20.3f}" for metric in _SHOWN), flush=True)
        for row in found[name]["overall"]:
            print(f"  {row['method']} against {row['baseline']}: {row['verdict']}")
    if not arguments.tables:
        found = earlier_results("integrate").get("tables", {})
    taken: dict[str, Any] = {}
    if arguments.cells:
        command = [sys.executable, __file__, "--measure", "--cells", str(arguments.cells)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        taken = json.loads(answer.stdout.splitlines()[-1])
        print(f"{arguments.cells} cells: {taken}", flush=True)
    if arguments.write:
        machine = describe("spaf-analysis", "spaf-model", "numpy", "scanpy", "harmonypy", "scikit-learn", "igraph")
        write_results("integrate", {"machine": machine, "tables": found, "cells": arguments.cells, "time": taken})


if __name__ == "__main__":
    main()
