"""Deconvolution of spots whose truth is known, with and without a shift between technologies; and its cost.

    python benchmarks/deconvolution.py NAME=CELLS.h5ad:LABEL:WIDTH .. [--scale UM_PER_UNIT] [--cost SPOTS] [--write]

Half of the labelled cells (drawn at random) are the reference, the other half is added up in squares of WIDTH um.
Spots are judged as they are, and after a factor for each gene (lognormal, .5) and for each gene in each type (.2), and
half of the depth. Differences of the root mean squared error from Poisson's have 95 % intervals over spots. NAME goes
into the results, the path does not.

--cost deconvolves simulated spots (20 types, 1,000 genes) and reports seconds and peak memory.
"""

import argparse
import time
from typing import Any

import anndata
import numpy as np
from _machine import describe, write_results
from scipy import sparse

from spaf_analysis.deconvolution import METHODS, accuracy, deconvolve_counts, spots_of_tissue
from spaf_data import peak_rss_mb

_SHIFTS = {"none": (1.0, 0.0, 0.0), "another technology": (0.5, 0.5, 0.2)}
_DRAWS = 1000


def judge(cells: anndata.AnnData, label: str, width: float, scale: float, seeds: list[int]) -> list[dict[str, Any]]:
    """Judge every method, and the chosen one, on spots of the other half."""
    labels = cells.obs[label].astype(str).to_numpy(dtype=str)
    counts = sparse.csr_matrix(cells.X, dtype=np.float64)
    places = np.asarray(cells.obsm["spatial"], dtype=np.float64)[:, :2] * scale
    rows = []
    for seed in seeds:
        half = np.random.default_rng(seed).random(len(labels)) < 0.5
        for shift, (depth, gene, kind) in _SHIFTS.items():
            made = spots_of_tissue(
                counts[~half], labels[~half], places[~half], width=width, depth=depth, gene_effect=gene,
                type_effect=kind, seed=seed,
            )  # fmt: skip
            squares: dict[str, Any] = {}
            for method in (*METHODS, "auto"):
                found = deconvolve_counts(made.counts, counts[half], labels[half], method=method, n_replicates=0)
                columns = [found.types.index(name) if name in found.types else -1 for name in made.types]
                truth = np.zeros((made.counts.shape[0], len(found.types)))
                for column, values in zip(columns, made.proportions.T, strict=True):
                    if column >= 0:
                        truth[:, column] = values
                rmse, pearson = accuracy(found.cells, truth)
                filled = np.where(np.isfinite(found.cells), found.cells, 1.0 / len(found.types))
                squares[method] = ((filled - truth) ** 2).mean(axis=1)
                rows.append(
                    {"seed": seed, "shift": shift, "method": method, "used": found.method, "spots": len(truth),
                     "rmse": rmse, "pearson": pearson}
                )  # fmt: skip
                print(rows[-1], flush=True)
            for row in rows[-len(squares) :]:
                row["rmse_less_poisson"] = _interval(squares[row["method"]], squares["poisson"], seed)
    return rows


def _interval(one: np.ndarray, other: np.ndarray, seed: int) -> list[float]:
    draws = np.random.default_rng(seed).integers(0, len(one), (_DRAWS, len(one)))
    away = np.sqrt(one[draws].mean(axis=1)) - np.sqrt(other[draws].mean(axis=1))
    return [float(value) for value in (np.sqrt(one.mean()) - np.sqrt(other.mean()), *np.quantile(away, (0.025, 0.975)))]


def cost(n_spots: int, n_types: int = 20, n_genes: int = 1000) -> dict[str, Any]:
    """Time simulated spots of about 200 counts."""
    rng = np.random.default_rng(0)
    means = rng.lognormal(-1.0, 1.0, n_genes)[None] * rng.lognormal(0.0, 1.0, (n_types, n_genes))
    labels = np.repeat([f"type {kind:02d}" for kind in range(n_types)], 20)
    reference = sparse.csr_matrix(rng.poisson(np.repeat(means, 20, axis=0)).astype(np.float64))
    parts = []
    for start in range(0, n_spots, 10_000):
        size = min(10_000, n_spots - start)
        mixed = rng.dirichlet(np.full(n_types, 0.3), size) @ means
        parts.append(sparse.csr_matrix(rng.poisson(mixed * 200.0 / mixed.sum(axis=1, keepdims=True)), dtype=np.float32))
    spots = sparse.csr_matrix(sparse.vstack(parts))
    deconvolve_counts(spots[:100], reference, labels, method="poisson", n_replicates=0)
    found: dict[str, Any] = {"spots": n_spots, "types": n_types, "genes": n_genes}
    for method in METHODS:
        started = time.perf_counter()
        deconvolve_counts(spots, reference, labels, method=method, n_replicates=0)
        found[f"seconds_{method}"] = time.perf_counter() - started
        print(method, found[f"seconds_{method}"], flush=True)
    return found | {"peak_mb": peak_rss_mb()}


def main() -> None:
    """Judge, and time where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="NAME=CELLS.h5ad:LABEL:WIDTH")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cost", type=int, default=0, metavar="SPOTS")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": describe("numpy", "scipy", "numba"), "tables": {}}
    for given in options.tables:
        name, _, rest = given.partition("=")
        path, label, width = rest.rsplit(":", 2)
        results["tables"][name] = judge(anndata.read_h5ad(path), label, float(width), options.scale, options.seeds)
    if options.cost:
        results["cost"] = cost(options.cost)
    if options.write:
        write_results("deconvolution", results)


if __name__ == "__main__":
    main()
