"""Deconvolution of spots whose truth is known, with and without a shift between technologies; and its cost.

    python benchmarks/deconvolution.py NAME=CELLS.h5ad:LABEL:WIDTH ..
        [--pair CELLS.h5ad SPOTS.h5ad REFERENCE.h5ad LABEL] [--cost SPOTS] [--write]

Half of the labelled cells (drawn at random) are the reference, the other half is added up in squares of WIDTH (in the
unit of the coordinates). Spots are judged as they are, and after a factor for each gene (lognormal, .5) and for each
gene in each type (.2), and half of the depth. Differences of the root mean squared error from Poisson's have 95 %
intervals over spots. NAME goes into the results, the path does not.

--pair judges real spots by the cells of an imaging run in the same frame, within 60 um of each. These cells have no
labels, so they are given some in two ways that do not agree, and both are reported: by the correlation of their
standardised logarithms with those of the types of the reference, and by the mean of standardised logarithms of marker
genes that are commonly named (a breast). Intervals are over tiles of the tissue. The same cells, labelled by markers,
are added up in squares of 55 um as another table.

--cost deconvolves simulated spots (20 types, 1,000 genes) and reports seconds and peak memory.
"""

import argparse
import time
from typing import Any

import anndata
import numpy as np
from _machine import describe, earlier_results, write_results
from scipy import sparse
from scipy.spatial import cKDTree

from spaf_analysis.deconvolution import METHODS, accuracy, deconvolve, deconvolve_counts, spots_of_tissue
from spaf_analysis.genes import shared_genes
from spaf_analysis.metrics import log_normalize, spatial_tiles
from spaf_data import peak_rss_mb

_SHIFTS = {"none": (1.0, 0.0, 0.0), "another technology": (0.5, 0.5, 0.2)}
_DRAWS = 500
_LEAST_COUNTS, _LEAST_CELLS, _RADIUS = 10, 3, 60.0
MARKERS = {
    "B-cells": "MS4A1 CD79A BANK1 CD19 SPIB",
    "CAFs": "LUM POSTN FBLN1 CCDC80 PDGFRA CXCL12 DPT MMP2 PCOLCE SFRP4 LRRC15",  # codespell:ignore
    "Cancer Epithelial": "EPCAM KRT8 KRT7 CDH1 FOXA1 GATA3 TACSTD2 ELF3 CLDN4 FASN MLPH ESR1 ERBB2",
    "Endothelial": "PECAM1 VWF KDR CLDN5 CLEC14A EGFL7 CD93 RAMP2 AQP1",
    "Myeloid": "CD68 CD163 CD14 C1QA C1QC LYZ AIF1 TYROBP FCER1G ITGAX FCGR3A IGSF6 MRC1 CPA3 TPSAB1",
    "Normal Epithelial": "KRT5 KRT14 KRT15 KRT6B SFRP1 KRT23 PIGR",
    "PVL": "PDGFRB MYH11 MYLK ACTA2 NDUFA4L2 ACTG2",
    "Plasmablasts": "MZB1 DERL3 SLAMF7 TNFRSF17 PRDM1 SEC11C TENT5C",
    "T-cells": "CD3D CD3E CD3G TRAC CD8A CD4 IL7R GZMA NKG7 CCL5 CTLA4 TIGIT",
}


def judge(cells: anndata.AnnData, label: str, width: float, seeds: list[int]) -> list[dict[str, Any]]:
    """Judge every method, and the chosen one, on spots of the other half."""
    labels = cells.obs[label].astype(str).to_numpy(dtype=str)
    counts = sparse.csr_matrix(cells.X, dtype=np.float64)
    places = np.asarray(cells.obsm["spatial"], dtype=np.float64)[:, :2]
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


def two_labels(cells: anndata.AnnData, reference: anndata.AnnData, label: str) -> dict[str, np.ndarray]:
    """Label cells by the types of a reference, and by markers."""
    shared = shared_genes(cells, reference, ("the cells", "the reference"))
    logs, known = (log_normalize(shared.counts(table.X, at)).toarray() for at, table in enumerate((cells, reference)))
    of_reference = reference.obs[label].astype(str).to_numpy()
    types = np.unique(of_reference)
    known = _standard(known)
    profiles = np.stack([known[of_reference == kind].mean(axis=0) for kind in types])
    by_profile = _standard(_standard(logs).T).T @ _standard(profiles.T)
    standard = _standard(logs)
    place = {gene: at for at, gene in enumerate(shared.names)}
    scores = np.stack(
        [standard[:, [place[g] for g in MARKERS[kind].split() if g in place]].mean(1) for kind in types], 1
    )
    return {"profiles": types[by_profile.argmax(axis=1)], "markers": types[_standard(scores).argmax(axis=1)]}


def _standard(values: np.ndarray) -> np.ndarray:
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)


def judge_pair(
    cells: anndata.AnnData,
    spots: anndata.AnnData,
    reference: anndata.AnnData,
    label: str,
    labels: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Judge every method on real spots by the cells around them."""
    near = cKDTree(cells.obsm["spatial"]).query_ball_point(spots.obsm["spatial"], _RADIUS)
    used = np.flatnonzero([len(some) >= _LEAST_CELLS for some in near])
    tiles = spatial_tiles(np.asarray(spots.obsm["spatial"], dtype=np.float64)[used], np.zeros(len(used))).code
    draws = np.random.default_rng(0).integers(0, tiles.max() + 1, (_DRAWS, tiles.max() + 1))
    found: dict[str, np.ndarray] = {}
    for method in (*METHODS, "auto"):
        for smooth in (0.0, 1.0):
            spent = time.process_time()
            given = deconvolve(spots, reference, label, method=method, n_replicates=0, smooth=smooth)
            print(method, smooth, given.method, time.process_time() - spent, flush=True)
            found[method + (" --smooth 1" if smooth else "")] = given.cells[used]
    counts = reference.obs[label].astype(str).value_counts(normalize=True)
    found["frequencies of the reference"] = np.tile(counts[given.types].to_numpy(), (len(used), 1))
    agree = float((labels["profiles"] == labels["markers"]).mean())
    result: dict[str, Any] = {"spots": len(used), "tiles": int(tiles.max()) + 1, "labels_agree": agree}
    of_tile = [np.flatnonzero(tiles == tile) for tile in range(tiles.max() + 1)]
    rows = [np.concatenate([of_tile[tile] for tile in drawn]) for drawn in draws]
    for way, names in labels.items():
        truth = np.array([[np.mean(names[near[spot]] == kind) for kind in given.types] for spot in used])
        drawn = {
            name: np.array([accuracy(values[some], truth[some]) for some in rows]) for name, values in found.items()
        }
        result[way] = []
        for name, values in found.items():
            away = drawn[name] - drawn["poisson"]
            rmse, pearson = accuracy(values, truth)
            row: dict[str, Any] = {"method": name, "rmse": rmse, "pearson": pearson}
            for at, score in enumerate(("rmse", "pearson")):
                row[f"{score}_interval"] = np.quantile(drawn[name][:, at], (0.025, 0.975)).tolist()
                row[f"{score}_less_poisson"] = np.quantile(away[:, at], (0.025, 0.975)).tolist()
            result[way].append(row)
            print(way, row, flush=True)
    return result


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
        started, spent = time.perf_counter(), time.process_time()
        deconvolve_counts(spots, reference, labels, method=method, n_replicates=0)
        found[f"seconds_{method}"] = time.perf_counter() - started
        found[f"processor_seconds_{method}"] = time.process_time() - spent
        print(method, found[f"seconds_{method}"], flush=True)
    return found | {"peak_mb": peak_rss_mb()}


def main() -> None:
    """Judge, and time where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="NAME=CELLS.h5ad:LABEL:WIDTH")
    parser.add_argument("--pair", nargs=4, metavar=("CELLS", "SPOTS", "REFERENCE", "LABEL"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cost", type=int, default=0, metavar="SPOTS")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": describe("numpy", "scipy", "numba"), "tables": {}}
    for given in options.tables:
        name, _, rest = given.partition("=")
        path, label, width = rest.rsplit(":", 2)
        results["tables"][name] = judge(anndata.read_h5ad(path), label, float(width), options.seeds)
    if options.pair:
        *paths, label = options.pair
        cells, spots, reference = (anndata.read_h5ad(path) for path in paths)
        cells = cells[np.asarray(cells.X.sum(axis=1)).ravel() >= _LEAST_COUNTS].copy()
        labels = two_labels(cells, reference, label)
        results["pair"] = judge_pair(cells, spots, reference, label, labels)
        cells.obs["by markers"] = labels["markers"]
        results["tables"]["imaging, by markers"] = judge(cells, "by markers", 55.0, options.seeds)
    if options.cost:
        results["cost"] = cost(options.cost)
    if options.write:
        before = earlier_results("deconvolution")
        results["tables"] = before.get("tables", {}) | results["tables"]
        write_results("deconvolution", before | results)


if __name__ == "__main__":
    main()
