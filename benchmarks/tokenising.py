"""How many cells a second one core turns into ranked tokens, and into batches, at about 100 genes a cell.

From the CSR of counts to `RankedCells` (checks of the counts included), and from there to padded batches under a budget
of tokens. With an interpreter that has the published package, its tokens are made beside them::

    python benchmarks/tokenising.py [peer/bin/python]
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import describe, write_results
from _published_peer import published_peer
from _random_cells import random_cells

from spaf_model import (
    SpatialFormerConfig,
    SpatialFormerNetwork,
    TokenBatch,
    Vocabulary,
    context_ids,
    match_genes,
    rank_genes,
    sequence_lengths,
    token_budget_batches,
)

MEAN_GENES = 100
N_GENES = 5000  # of the panel
N_CELLS = 20_000
N_CELLS_PUBLISHED = 200


def median_time(work: Callable[[], object], repeats: int) -> dict[str, float]:
    """Return the medians of seconds and of CPU seconds."""
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = np.median(times, axis=0).tolist()
    return {"seconds": wall, "cpu_seconds": cpu}


def main() -> None:
    """Measure, print a table, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", type=Path, nargs="?", help="interpreter that has the published package")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    genes = [f"GENE{gene}" for gene in range(N_GENES)]
    adata = random_cells(genes, N_CELLS, MEAN_GENES, np.random.default_rng(0))
    named = {kind: [adata.obs[kind].iloc[0]] for kind in ("species", "assay", "tissue", "condition")}
    vocabulary = Vocabulary.build(genes, scale=np.ones(N_GENES), **named)
    match = match_genes(adata.var, vocabulary, min_fraction=0.5)
    context = context_ids(vocabulary, adata.obs)
    with torch.device("meta"):
        budget = SpatialFormerNetwork(SpatialFormerConfig.published()).token_budget(torch.device("cpu"))
    counts = adata.X

    def rank() -> Any:
        return rank_genes(counts.indptr, match.token_ids[counts.indices], counts.data, vocabulary.scale)

    ranked = rank()

    def batch() -> None:
        for cells in token_budget_batches(sequence_lengths(ranked.n_genes), budget):
            TokenBatch.from_cells(ranked, context, cells, vocabulary)

    times = {"rank": median_time(rank, arguments.repeats), "batch": median_time(batch, arguments.repeats)}
    both = {name: times["rank"][name] + times["batch"][name] for name in times["rank"]}
    results: dict[str, Any] = {
        "machine": describe("spaf-model", "torch", "numpy"),
        "load_average": os.getloadavg()[0],
        "n_cells": N_CELLS,
        "mean_genes": float(ranked.n_genes.mean()),
        "token_budget": budget,
        "times": times,
        "cells_per_second": {name: N_CELLS / value["seconds"] for name, value in times.items()}
        | {"both": N_CELLS / both["seconds"], "both, CPU time": N_CELLS / both["cpu_seconds"]},
    }
    if arguments.python is not None:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            with published_peer(arguments.python, folder, threads=1) as peer:
                adata[:N_CELLS_PUBLISHED].write_h5ad(folder / "cells.h5ad")
                answer = peer.ask("tokenise", folder / "cells.h5ad")
        results["cells_per_second"]["published"] = N_CELLS_PUBLISHED / answer["seconds"]
        results["cells_per_second"]["published, CPU time"] = N_CELLS_PUBLISHED / answer["cpu_seconds"]
    for name, value in results["cells_per_second"].items():
        print(f"{name:<22}{value:>12,.0f} cells/s")
    write_results("tokenising", results)


if __name__ == "__main__":
    main()
