"""Whether scGPT-spatial is computed as published, at full size, and how fast on a CPU.

The published package was not at hand. What stands for it is a slow twin, written from a description of what it computes
and sharing no line with ours (`_scgpt_spatial_twin.py`): so agreement says that two readings of one description agree,
and nothing of what the published weights do. The weights are random, written as a folder in the V1 layout and read by
what ``spaf-model convert`` calls.

The twin that is timed is dense, padded and eager, with torch's fused attention in the place of flash-attn; it embeds
the same cells in between our runs, by the batch size that suits it best. A round is one run of each, and the ratio is
the median of the ratios within rounds. So is the share of the matrix rate, the rate of one product of the sizes of
queries, keys and values, by the matmul path that each takes; operations are those of all layers, also of what we need
not compute in the last one. Seconds of the processor are given beside the clock, since they say what a machine that is
shared would have done alone::

    python benchmarks/scgpt_spatial_parity.py --threads 2
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from _machine import describe, write_results
from _scgpt_spatial_twin import PAD, Twin, random_weights, v1_shapes, write_folder
from scipy import sparse

from spaf_model import EmbeddingSettings, InputError, embed_tokenised
from spaf_model.kernels import select_kernel, select_matmul
from spaf_model.packed_linear import pack_linear
from spaf_model.scgpt_spatial import ScGPTSpatial, ValuedCells
from spaf_model.scgpt_spatial.published import convert_published_folder

TOLERANCE = 1e-4
# Genes a cell: cells of a run, and batch sizes of the twin to choose the fastest from.
CASES: dict[int, tuple[int, tuple[int, ...]]] = {300: (12, (4, 12)), 1000: (4, (1, 4))}
WALL, CPU = 0, 1


def random_adata(genes: list[str], n_genes: np.ndarray, *, tied: bool, seed: int) -> anndata.AnnData:
    """Return cells of so many genes; without ties counts are all different."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in n_genes:
        columns = np.sort(rng.choice(len(genes), size=n, replace=False))
        counts = rng.poisson(1.5, n) + 1 if tied else rng.permutation(np.arange(1, n + 1))
        rows.append((columns, counts))
    indptr = np.concatenate([[0], np.cumsum(n_genes)])
    indices, data = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    matrix = sparse.csr_matrix((data.astype(np.float32), indices, indptr), shape=(len(n_genes), len(genes)))
    obs = pd.DataFrame(
        {"assay": ["Xenium", "Visium"] * (len(n_genes) // 2)}, index=[f"c{i}" for i in range(len(n_genes))]
    )
    return anndata.AnnData(matrix, obs=obs, var=pd.DataFrame(index=genes))


def tokenised(model: ScGPTSpatial, adata: anndata.AnnData) -> ValuedCells:
    """Return the tokens of cells."""
    from spaf_model import CellSource, ReadingOptions

    reading = ReadingOptions(min_gene_fraction=0.0)
    source = CellSource(adata, model.vocabulary, reading, needed_context=("assay",))
    return model.tokeniser(source.read())


def published_bins(counts: np.ndarray) -> np.ndarray:
    """Return the bins of values without ties by the quantiles of numpy."""
    edges = np.quantile(counts, np.linspace(0, 1, 50))
    return np.digitize(counts, edges)


@torch.no_grad()
def parity(model: ScGPTSpatial, twin: Twin, genes: list[str]) -> dict[str, float]:
    """Return the largest differences from the twin, padding apart."""
    lengths = np.array([300, 212, 90, 301, 150, 33, 299, 280])
    adata = random_adata(genes, lengths, tied=False, seed=1)
    cells = tokenised(model, adata)
    network, differences = model.network, {}

    def compare(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        differences[name] = float((ours - theirs).abs().max())
        differences[f"{name}: largest"] = float(theirs.abs().max())

    order = np.arange(len(lengths))
    batch = cells.batch(order)
    hidden = twin.encode(batch.ids, batch.values, batch.ids != PAD)
    ours = network.encode(batch)
    compare("perception, states", ours[batch.mask], hidden[batch.mask])
    numbers = twin.token_values(hidden, batch.technologies)
    compare("perception, experts", network.token_values(ours, batch), numbers[batch.mask])
    asked = np.random.default_rng(0).random(cells.genes.tokens.size) < 0.5
    split, _ = cells.split_batch(order, asked)
    assert split.asked_ids is not None
    hidden = twin.encode(split.ids, split.values, split.ids != PAD, split.asked_ids)
    ours = network.encode(split)
    real = torch.cat([split.mask, split.asked_mask], dim=1)
    compare("generation, states", ours[real], hidden[real])
    compare(
        "generation, experts", network.token_values(ours, split), twin.token_values(hidden, split.technologies)[real]
    )
    ids = torch.arange(0, PAD, 61)
    states = hidden[:, 0]
    for name, decoder, values in (
        ("cell decoder", "mvc_decoder", network.cell_values),
        ("neighbourhood decoder", "impute_mvc_decoder", network.neighbourhood_values),
    ):
        of = (
            states
            if name == "cell decoder"
            else torch.stack([states[[i != j for i in range(8)]].mean(0) for j in range(8)])
        )
        compare(name, values(of, split, ids), twin.cell_values(decoder, of, ids, split.technologies))
    scale = model.vocabulary.scale
    unequal = 0
    for start, stop in itertools.pairwise(cells.genes.indptr):
        quotients = cells.genes.counts[start:stop] / scale[cells.genes.tokens[start:stop]]
        unequal += int((published_bins(quotients) != cells.genes.values[start:stop]).sum())
    differences["bins that are not those of numpy's quantiles, of 1,665 without ties"] = unequal
    return differences


def invariance(model: ScGPTSpatial, genes: list[str]) -> dict[str, float]:
    """Return the largest differences of embeddings by batch, order and kernel."""
    lengths = np.random.default_rng(3).integers(20, 260, size=16)
    adata = random_adata(genes, lengths, tied=True, seed=4)
    cells = tokenised(model, adata)

    def embedded(cells: ValuedCells, **settings: Any) -> np.ndarray:
        return embed_tokenised(model.network, cells, method="cls", settings=EmbeddingSettings(**settings))

    whole = embedded(cells)
    found = {"run again": float(np.abs(embedded(cells) - whole).max())}
    for budget in (1, 300, 100_000):
        found[f"token budget {budget}"] = float(np.abs(embedded(cells, token_budget=budget) - whole).max())
    for kernel in ("explicit", "sdpa", "onednn", "flex", "flash"):
        try:
            found[f"kernel {kernel}"] = float(np.abs(embedded(cells, kernel=kernel) - whole).max())
        except InputError as error:
            print(error)
    order = np.random.default_rng(5).permutation(16)
    shuffled = embedded(tokenised(model, adata[order, np.random.default_rng(6).permutation(len(genes))].copy()))
    found["order of cells and genes"] = float(np.abs(shuffled - whole[order]).max())
    half = embedded(cells, precision="bf16")
    cosine = (half * whole).sum(1) / (np.linalg.norm(half, axis=1) * np.linalg.norm(whole, axis=1))
    found["smallest cosine of bf16"] = float(cosine.min())
    return found


def timed(work: Callable[[], object]) -> np.ndarray:
    """Return seconds, and seconds of the processor in all threads, of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu])


@torch.inference_mode()
def matrix_rates(repeats: int = 12) -> dict[str, float]:
    """Return the best GFLOP of a product of the sizes of queries, keys and values in a second of one core."""
    x, weight, bias = torch.randn(1204, 512), torch.randn(1536, 512), torch.zeros(1536)
    found = {}
    for path in ("torch", "onednn"):
        linear = pack_linear(weight, bias, dtype=torch.float32, matmul=path)
        best = min(timed(lambda linear=linear: linear(x))[CPU] for _ in range(repeats))
        found[path] = 2 * x.shape[0] * weight.numel() / best / 1e9
    return found


@torch.inference_mode()
def speed(
    model: ScGPTSpatial, twin: Twin, genes: list[str], n_genes: int, rounds: int, *, spread: bool
) -> dict[str, Any]:
    """Compare the two on cells of so many genes, or of so many in the mean."""
    n_cells, sizes = CASES[n_genes]
    lengths = np.full(n_cells, n_genes)
    if spread:  # as counts of cells are: some have a quarter of the mean, some twice as much
        drawn = np.random.default_rng(8).gamma(4.0, n_genes / 4.0, size=n_cells)
        lengths = np.clip(drawn * n_genes / drawn.mean(), 20, 1199).astype(int)
    cells = tokenised(model, random_adata(genes, lengths, tied=True, seed=7))
    plain = [(cells.genes.tokens[a:b], cells.genes.values[a:b]) for a, b in itertools.pairwise(cells.genes.indptr)]
    path = select_matmul("cpu", torch.float32).name
    operations = model.network.operations(cells.batch(np.arange(n_cells))) / 1e9

    def ours() -> np.ndarray:
        return embed_tokenised(model.network, cells, method="cls")

    difference = float(np.abs(ours() - twin.embed(plain, sizes[0])).max())
    batch_size = min(sizes, key=lambda size: timed(lambda: twin.embed(plain, size))[CPU])
    runs = {"spaf": [], "twin": []}
    rates = []
    for _ in range(rounds):
        runs["spaf"].append(timed(ours))
        runs["twin"].append(timed(lambda: twin.embed(plain, batch_size)))
        rates.append(matrix_rates())
        print(n_genes, spread, {who: times[-1].round(2) for who, times in runs.items()}, rates[-1], flush=True)
    times = {who: np.array(found) for who, found in runs.items()}
    ratios = times["twin"] / times["spaf"]
    paths = {"spaf": path, "twin": "torch"}
    return {
        "n_cells": n_cells,
        "mean_genes": float(lengths.mean()),
        "gflop_per_cell": operations / n_cells,
        "batch_size_of_twin": batch_size,
        "cells_per_second_of_the_clock": {who: n_cells / float(np.median(t[:, WALL])) for who, t in times.items()},
        "cells_per_second_of_a_core": {who: n_cells / float(np.median(t[:, CPU])) for who, t in times.items()},
        "ratio_by_the_clock": float(np.median(ratios[:, WALL])),
        "ratio_by_cores": float(np.median(ratios[:, CPU])),
        "ratios_by_cores": ratios[:, CPU].round(3).tolist(),
        "share_of_matrix_rate": {
            who: float(
                np.median([operations / t[CPU] / rate[paths[who]] for t, rate in zip(times[who], rates, strict=True)])
            )
            for who in times
        },
        "gflop_per_second_of_a_core_in_a_matrix_product": {
            name: float(np.median([rate[name] for rate in rates])) for name in ("torch", "onednn")
        },
        "largest_difference": difference,
    }


def main() -> None:
    """Convert, compare, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-speed", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tensors = random_weights(seed=0)
    means = np.random.default_rng(0).gamma(1.0, 0.6, size=26_121) + 0.1
    with tempfile.TemporaryDirectory() as folder:
        genes = write_folder(Path(folder) / "v1", tensors, means)
        model = convert_published_folder(Path(folder) / "v1")
    with torch.inference_mode():
        kernel = select_kernel("cpu", torch.float32, 64, 301, bias="none")
    results: dict[str, Any] = {
        "machine": describe("torch", "numpy", "spaf-model") | {"threads": arguments.threads},
        "tensors": len(v1_shapes()),
        "parameters": model.n_parameters,
        "parity": parity(model, Twin(tensors), genes),
        "invariance": invariance(model, genes),
        "matmul": select_matmul("cpu", torch.float32).reason,
        "kernel": f"{kernel.name}: {kernel.reason}",
    }
    print(results["parity"], results["invariance"], flush=True)
    bad = [name for name, value in results["parity"].items() if "largest" not in name and value > TOLERANCE]
    results["within_tolerance"] = not bad
    if not arguments.no_speed:
        twin = Twin(tensors, fused=True)
        results["speed"] = {
            f"{n_genes} genes, {'spread' if spread else 'equal'}": speed(
                model, twin, genes, n_genes, arguments.rounds, spread=spread
            )
            for n_genes in CASES
            for spread in (False, True)
        }
    write_results("scgpt_spatial_parity", results)


if __name__ == "__main__":
    main()
