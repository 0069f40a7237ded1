"""Imputation of genes that were held out, of genes outside a panel, how right its expectations are, and its cost.

    python benchmarks/imputation.py [--cells CELLS.h5ad] [--reference REFERENCE.h5ad] [--spots SPOTS.h5ad]
        [--patients SECTIONS.h5ad] [--cost CELLS GENES] [--write]

Genes are held out in five folds; of what is held out the imputation sees nothing, and it chooses and weighs its ways on
the rest. A figure is the mean over genes of the correlation over cells with log1p of counts per 10,000; intervals of
paired differences are over genes.

halves: CELLS (an imaging run) left of the median place as the reference of those right of it.
panel: REFERENCE (dissociated cells) for all CELLS.
patient: sections A1, B1, C1 of SECTIONS for D1 (the 2,000 most variable genes that a tenth of the reference's spots and
a twentieth of D1's have).
outside: REFERENCE for CELLS; genes that the panel lacks, 3 % of the cells of REFERENCE and 20 % of the SPOTS have. They
are averaged over the cells within 60 um of a spot and compared with the spot.
--cost fits simulated cells and writes them; its peak of memory is its own in a run without tables.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from _machine import describe, earlier_results, write_results
from scipy import sparse
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

from spaf_analysis.imputation import Imputation, fit_imputation, imputed_table, write_imputed
from spaf_analysis.imputation.spaces import log_counts
from spaf_data import peak_rss_mb

_LEAST_COUNTS = 10
_DRAWS = 1000
_RADIUS = 60.0


def pearson(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Correlate columns; 0 where one does not vary."""
    found, truth = found - found.mean(axis=0), truth - truth.mean(axis=0)
    size = np.sqrt((found**2).sum(axis=0) * (truth**2).sum(axis=0))
    return np.divide((found * truth).sum(axis=0), size, out=np.zeros(len(size)), where=size > 1e-9)


def all_methods(found: Imputation, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return what is given, and what each way alone would have given."""
    part = found.parts[-1]
    genes = np.arange(part.genes.size)
    return {"auto": found.dense()[rows]} | {way.name: way.predict(rows, genes) for way in part.ways}


def held_out(
    query: sparse.csr_matrix,
    reference: sparse.csr_matrix,
    depth: np.ndarray | None,
    names: np.ndarray,
) -> dict[str, Any]:
    """Hold out genes in folds."""
    truth = log_counts(query).toarray()
    fold = np.random.default_rng(0).permutation(query.shape[1]) % 5
    accuracies: dict[str, list[np.ndarray]] = {}
    expected, seconds, chosen = [], time.process_time(), []
    for number in range(5):
        held = fold == number
        found = fit_imputation(
            query[:, ~held], reference[:, ~held], reference[:, held], [*names[~held], *names[held]], depth=depth
        )
        for name, values in all_methods(found, np.arange(query.shape[0])).items():
            accuracies.setdefault(name, []).append(pearson(values, truth[:, held]))
        expected.append(found.genes["expected"].to_numpy())
        chosen.append(found.method)
    joined = {name: np.concatenate(parts) for name, parts in accuracies.items()}
    return summary(joined, np.concatenate(expected)) | {
        "chosen": chosen, "cells": query.shape[0], "reference": reference.shape[0],
        "processor_seconds": time.process_time() - seconds,
    }  # fmt: skip


def summary(accuracies: dict[str, np.ndarray], expected: np.ndarray) -> dict[str, Any]:
    """Return means, paired differences of the default from each way, and how right expectations were."""
    ours = accuracies["auto"]
    draws = np.random.default_rng(0).integers(0, len(ours), (_DRAWS, len(ours)))
    deciles = np.array_split(np.argsort(expected, kind="stable"), 10)
    return {
        "genes": len(ours),
        "pearson": {name: float(values.mean()) for name, values in accuracies.items()},
        "auto_less": {
            name: [float(value) for value in
                   ((ours - values).mean(), *np.quantile((ours - values)[draws].mean(axis=1), (0.025, 0.975)))]
            for name, values in accuracies.items() if name != "auto"
        },
        "rank_of_expected": float(spearmanr(expected, ours).statistic),
        "deciles": [[float(expected[some].mean()), float(ours[some].mean())] for some in deciles],
    }  # fmt: skip


def outside(
    cells: anndata.AnnData, reference: anndata.AnnData, spots: anndata.AnnData, *, without_depth: bool
) -> dict[str, Any]:
    """Compare genes that the panel lacks with spots in the same frame."""
    panel, spotted = set(cells.var_names), set(spots.var_names)
    shared = np.array([gene for gene in cells.var_names if gene in set(reference.var_names)])
    both = np.array([gene for gene in reference.var_names if gene in spotted and gene not in panel])
    enough = np.asarray((reference[:, both].X > 0).mean(axis=0)).ravel() >= 0.03
    enough &= np.asarray((spots[:, both].X > 0).mean(axis=0)).ravel() >= 0.20
    genes = both[enough]
    near = cKDTree(cells.obsm["spatial"]).query_ball_point(spots.obsm["spatial"], _RADIUS)
    used = np.array([len(some) >= 3 for some in near])
    joins = sparse.csr_matrix(
        (np.concatenate([np.full(len(some), 1.0 / len(some)) for some in near[used]]),
         np.concatenate([np.array(some, int) for some in near[used]]),
         np.cumsum([0, *(len(some) for some in near[used])])), shape=(int(used.sum()), cells.n_obs),
    )  # fmt: skip
    logs = log_counts(sparse.csr_matrix(spots.X))[np.flatnonzero(used)]
    truth = logs[:, spots.var_names.get_indexer(genes)].toarray()
    found = fit_imputation(
        sparse.csr_matrix(cells[:, shared].X), sparse.csr_matrix(reference[:, shared].X),
        sparse.csr_matrix(reference[:, genes].X), [*shared, *genes],
        depth=np.asarray(reference.X.sum(axis=1)).ravel(), without_depth=without_depth,
    )  # fmt: skip
    everything = all_methods(found, np.arange(cells.n_obs))
    accuracies = {name: pearson(joins @ values, truth) for name, values in everything.items()}
    measured = np.array([gene for gene in shared if gene in spotted])
    seen = log_counts(sparse.csr_matrix(cells.X))[:, cells.var_names.get_indexer(measured)].toarray()
    agreement = pearson(joins @ seen, logs[:, spots.var_names.get_indexer(measured)].toarray())
    return summary(accuracies, found.genes["expected"].to_numpy()) | {
        "chosen": found.method, "spots": int(used.sum()), "measured_genes_agree_at": float(agreement.mean()),
        "measured_genes": len(measured),
    }  # fmt: skip


def cost(n_cells: int, n_genes: int, n_panel: int = 300, n_reference: int = 5000) -> dict[str, Any]:
    """Time the fit and the file of simulated cells."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(0.0, 0.4, (8, n_panel + n_genes))
    rate = rng.lognormal(-3.0, 1.0, n_panel + n_genes)

    def counted(n: int, genes: slice) -> sparse.csr_matrix:
        blocks = []
        for start in range(0, n, 1000):
            states = rng.normal(size=(min(1000, n - start), 8))
            expected = np.exp(states @ loadings[:, genes]) * rate[genes]
            blocks.append(sparse.csr_matrix(rng.poisson(expected), dtype=np.float32))
        return sparse.csr_matrix(sparse.vstack(blocks))

    names = [f"G{gene}" for gene in range(n_panel + n_genes)]
    reference = anndata.AnnData(counted(n_reference, slice(None)), var=pd.DataFrame(index=names))
    cells = anndata.AnnData(counted(n_cells, slice(0, n_panel)), var=pd.DataFrame(index=names[:n_panel]))
    before, wall, processor = peak_rss_mb(), time.perf_counter(), time.process_time()
    made = imputed_table(cells, reference, genes=names[n_panel:])
    fitted = time.perf_counter() - wall
    with tempfile.TemporaryDirectory() as folder:
        write_imputed(made, Path(folder) / "out.h5ad")
        size = (Path(folder) / "out.h5ad").stat().st_size
    return {
        "cells": n_cells, "genes": n_genes, "panel": n_panel, "reference": n_reference, "method": made.found.method,
        "seconds_fit": fitted, "seconds": time.perf_counter() - wall,
        "processor_seconds": time.process_time() - processor,
        "peak_mb_before": before, "peak_mb": peak_rss_mb(), "file_mb": size / 1e6,
    }  # fmt: skip


def main() -> None:
    """Judge what there are tables for, and time where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cells", "reference", "spots", "patients"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--only-outside", action="store_true", help="Leave out what holds genes out.")
    parser.add_argument("--cost", type=int, nargs=2, metavar=("CELLS", "GENES"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": describe("numpy", "scipy", "scikit-learn", "anndata")}
    if options.cells:
        cells = anndata.read_h5ad(options.cells)
        cells = cells[np.asarray(cells.X.sum(axis=1)).ravel() >= _LEAST_COUNTS].copy()
        counts, x = sparse.csr_matrix(cells.X), np.asarray(cells.obsm["spatial"])[:, 0]
        left = x < np.median(x)
        if not options.only_outside:
            results["halves"] = held_out(counts[~left], counts[left], None, cells.var_names.to_numpy())
            print("halves", results["halves"], flush=True)
    if options.cells and options.reference:
        reference = anndata.read_h5ad(options.reference)
    if options.cells and options.reference and not options.only_outside:
        shared = np.array([gene for gene in cells.var_names if gene in set(reference.var_names)])
        results["panel"] = held_out(
            sparse.csr_matrix(cells[:, shared].X), sparse.csr_matrix(reference[:, shared].X),
            np.asarray(reference.X.sum(axis=1)).ravel(), shared,
        )  # fmt: skip
        print("panel", results["panel"], flush=True)
    if options.cells and options.reference and options.spots:
        spots = anndata.read_h5ad(options.spots)
        for name, removed in (("outside", False), ("outside_without_depth", True)):
            results[name] = outside(cells, reference, spots, without_depth=removed)
            print(name, results[name], flush=True)
    if options.patients:
        spots = anndata.read_h5ad(options.patients)
        known = spots[spots.obs["section"].isin(["A1", "B1", "C1"])].copy()
        query = spots[spots.obs["section"] == "D1"].copy()
        logs = log_counts(sparse.csr_matrix(known.X)).toarray()
        often = (np.asarray((known.X > 0).mean(axis=0)).ravel() > 0.1) & (
            np.asarray((query.X > 0).mean(axis=0)).ravel() > 0.05
        )
        genes = np.flatnonzero(often)
        genes = np.sort(genes[np.argsort(-logs[:, genes].var(axis=0), kind="stable")[:2000]])
        results["patient"] = held_out(
            sparse.csr_matrix(query.X)[:, genes], sparse.csr_matrix(known.X)[:, genes],
            np.asarray(known.X.sum(axis=1)).ravel(), spots.var_names.to_numpy()[genes],
        )  # fmt: skip
        print("patient", results["patient"], flush=True)
    if options.cost:
        results["cost"] = cost(*options.cost)
        print(results["cost"], flush=True)
    if options.write:
        write_results("imputation", earlier_results("imputation") | results)


if __name__ == "__main__":
    main()
