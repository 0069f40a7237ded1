"""How many cells a second are embedded on a CPU, against the published package with the same weights and cells.

The published package (61 M parameters, random weights) runs in an environment of its own and embeds the same cells in
between our runs, by the function behind its ``embed_data`` with the model already loaded and the batch size that suits
it best. A round is one run of each; the ratio is the median over rounds of the ratio within a round.
CPU seconds are given beside the time of the clock, since they say what a machine that is shared would have done alone::

    python -m venv peer && peer/bin/pip install torch==2.13.0 spatialformer==0.1.8
    pip download --no-deps spatialformer==0.1.8
    python benchmarks/embedding_speed.py peer/bin/python spatialformer-0.1.8-py3-none-any.whl
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
from _machine import describe, write_results
from _published_peer import Peer, published_peer
from _random_cells import random_cells

from spaf_model import SpatialFormer, convert_published, select_kernel
from spaf_model.kernels import select_matmul

# Mean genes a cell: cells of a run, batch sizes of the published package to choose the fastest from.
CASES: dict[int, tuple[int, tuple[int, ...]]] = {85: (32, (4, 16)), 470: (4, (2, 4))}

N_CELLS_BF16 = 4  # for the accuracy of bf16; where the processor has no units for it, it is slow


def timed(work: Callable[[], None]) -> dict[str, float]:
    """Return seconds and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def matmul_rate(repeats: int = 15) -> float:
    """Return the best GFLOP/s of a matrix product of the sizes of the MLP: no embedding can be faster than it."""
    x, weight = torch.randn(1024, 512), torch.randn(2048, 512)
    best = min(timed(lambda: torch.nn.functional.linear(x, weight))["seconds"] for _ in range(repeats))
    return 2 * x.shape[0] * weight.numel() / best / 1e9


def smallest_cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Return the smallest cosine between the two embeddings of a cell."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(1) / norms).min())


def measure(model: SpatialFormer, adata: anndata.AnnData, peer: Peer, folder: Path, genes: int, rounds: int) -> Any:
    """Compare the two on cells of about so many genes."""
    cells, output = folder / "cells.h5ad", folder / "published.npy"
    adata.write_h5ad(cells)
    model.embed(adata)  # once without the clock, for both
    ours = adata.obsm["X_SpaF"].copy()
    trials = {size: peer.ask("embed", cells, batch_size=size, output=output) for size in CASES[genes][1]}
    batch_size = min(trials, key=lambda size: trials[size]["seconds"])
    runs = []
    for _ in range(rounds):
        run = {"spaf": timed(lambda: model.embed(adata))}
        run["published"] = peer.ask("embed", cells, batch_size=batch_size, output=output)
        runs.append(run)
        print(genes, {who: round(times["seconds"], 2) for who, times in run.items()}, flush=True)
    few = adata[:N_CELLS_BF16].copy()
    model.embed(few, precision="bf16")
    return {
        "n_cells": adata.n_obs,
        "mean_genes": float(np.diff(adata.X.indptr).mean()),
        "batch_size_of_published": batch_size,
        "cells_per_second": {
            who: adata.n_obs / float(np.median([run[who]["seconds"] for run in runs])) for who in ("spaf", "published")
        },
        "ratio": float(np.median([run["published"]["seconds"] / run["spaf"]["seconds"] for run in runs])),
        "ratio_of_cpu_seconds": float(
            np.median([run["published"]["cpu_seconds"] / run["spaf"]["cpu_seconds"] for run in runs])
        ),
        "largest_difference": float(np.abs(ours - np.load(output)).max()),
        "smallest_cosine_of_bf16": smallest_cosine(ours[: few.n_obs], few.obsm["X_SpaF"]),
        "runs": runs,
    }


def main() -> None:
    """Measure all cases, print a table, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", type=Path, help="interpreter that has the published package")
    parser.add_argument("wheel", type=Path, help="the published wheel")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rates = [matmul_rate()]
    results: dict[str, Any] = {}
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with published_peer(arguments.python, folder, threads=arguments.threads) as peer:
            model = convert_published(folder / "model.ckpt", wheel=arguments.wheel)
            # Genes whose median is 1, so that ranks have no ties, which the published package orders as it happens.
            vocabulary = model.vocabulary
            untied = [token for token in vocabulary.gene_token_ids if vocabulary.scale[token] == 1.0]
            names = [vocabulary.tokens[token] for token in untied]
            for genes, (n_cells, _) in CASES.items():
                adata = random_cells(names, n_cells, genes, np.random.default_rng(genes))
                results[str(genes)] = measure(model, adata, peer, folder, genes, arguments.rounds)
                rates.append(matmul_rate())
                load.append(os.getloadavg()[0])
            versions = peer.versions
    print(f"{'genes':>6}{'cells/s':>10}{'published':>11}{'ratio':>8}{'CPU ratio':>11}{'largest difference':>20}")
    for row in results.values():
        speed = row["cells_per_second"]
        print(
            f"{row['mean_genes']:>6.0f}{speed['spaf']:>10.2f}{speed['published']:>11.3f}{row['ratio']:>8.2f}"
            f"{row['ratio_of_cpu_seconds']:>11.2f}{row['largest_difference']:>20.1e}"
        )
    print(f"matrix products: {max(rates):.0f} GFLOP/s at best")
    cpu = torch.device("cpu")
    write_results(
        "embedding_speed",
        {
            "machine": describe("spaf-model", "torch", "numpy"),
            "published": {"spatialformer": "0.1.8", **versions},
            "threads": arguments.threads,
            "load_average": load,
            "vector_instructions": torch.backends.cpu.get_cpu_capability(),
            "processor_multiplies_bf16": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
            "matmul_gflops": rates,
            "n_parameters": model.n_parameters,
            "attention_kernel": select_kernel(cpu, torch.float32, model.config.head_dim, 100).name,
            "matmul": select_matmul(cpu, torch.float32).name,
            "genes": results,
        },
    )


if __name__ == "__main__":
    main()
