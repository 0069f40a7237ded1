"""Ligands beside receptors: false alarms under three nulls, planted pairs, speed beside liana, and memory.

    python benchmarks/ligrec.py --transcripts WINDOW/transcripts.parquet --profiles WINDOW/reference_profiles.csv \
        [--cells CELLS.parquet] [--liana PYTHON] [--parts PART ..] [--write]

Real cells (Xenium breast; at least 30 counts; types by the profile of highest correlation): of all pairs of genes seen
in 5 % of the cells, the share with p of at most .05 where values are dealt anew among all cells, within types, and
within types and tiles. `raw` permutes one gene and keeps the other as it is (the usual null, by its exact mean and
variance); the others take the means of strata off both, as the analysis does: `one way`, and `both ways`, where the
weaker counts. Few of these pairs are signals, so all should be near .05. Then the ranks of random pairs among those
that are matched with them.

Simulated: pairs planted among genes that follow types, and two genes of states of cells that lie anywhere (half of the
cells have one gene; the same, or the other half, the other), which are not beside each other more than by chance.

`--cells` are other cells, with `x_um`, `y_um` and counts. `--liana` is a Python that has liana: its bivariate
(Moran, 100 permutations) and this analysis see the same cells and pairs, alternately, one thread each.

Memory and time of a table of 100,000 cells with 1,200 genes and 1,000 pairs, in a process of its own.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from _machine import describe, earlier_results, write_results
from scipy import sparse

from spaf_analysis import tl
from spaf_analysis.ligrec import judge_pairs, ligand_receptor_scores, matched_genes, spatial_moments
from spaf_analysis.ligrec.moments import kernel, upper_tail
from spaf_analysis.metrics import log_normalize

PARTS = ("window", "cells", "liana", "planted", "states", "large")
_LIANA = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import anndata, liana as li, pandas as pd
adata = anndata.read_h5ad(sys.argv[1])
pairs = list(pd.read_csv(sys.argv[2])[["ligand", "receptor"]].itertuples(index=False, name=None))
li.ut.spatial_neighbors(adata, bandwidth=30, cutoff=0.1, kernel="gaussian", set_diag=False)
started, used = time.perf_counter(), time.process_time()
li.mt.bivariate(adata, resource_name=None, interactions=pairs, local_name="morans", global_name="morans", n_perms=100,
                use_raw=False, nz_prop=0.0, add_categories=False, verbose=False, seed=0)
print(json.dumps({"seconds": time.perf_counter() - started, "core_seconds": time.process_time() - used}))
"""


def of_transcripts(path: Path) -> tuple[sparse.csr_matrix, np.ndarray, list[str]]:
    """Return counts, places and genes of the cells of transcripts."""
    rows = pd.read_parquet(path)
    rows = rows[rows["cell_id"] >= 0]
    gene = pd.Categorical(rows["feature_name"].astype(str))
    cells, cell = np.unique(rows["cell_id"], return_inverse=True)
    counts = sparse.csr_matrix((np.ones(len(rows)), (cell, gene.codes)), shape=(len(cells), len(gene.categories)))
    n = np.bincount(cell)
    xy = [np.bincount(cell, rows[f"{axis}_location"]) / n for axis in "xy"]
    return counts, np.stack(xy, axis=1), list(gene.categories)


def of_cells(path: Path, profiles: pd.DataFrame) -> tuple[sparse.csr_matrix, np.ndarray, list[str]]:
    """Return the same of a table of cells."""
    rows = pd.read_parquet(path)
    genes = [column for column in rows if column in profiles]
    return sparse.csr_matrix(rows[genes].to_numpy(float)), rows[["x_um", "y_um"]].to_numpy(float), genes


def annotated(counts: sparse.csr_matrix, xy: np.ndarray, genes: list[str], profiles: pd.DataFrame) -> anndata.AnnData:
    """Return cells with enough counts and the type of the profile that is most like them."""
    enough = np.asarray(counts.sum(axis=1)).ravel() >= 30
    counts, xy = counts[enough], xy[enough]
    shared = [gene for gene in genes if gene in profiles]
    scaled = [
        (part - part.mean(axis=1, keepdims=True)) / (part.std(axis=1, keepdims=True) + 1e-12)
        for part in (
            log_normalize(counts)[:, [genes.index(gene) for gene in shared]].toarray(),
            profiles[shared].to_numpy(float),
        )
    ]
    kind = profiles["cell_type"].to_numpy()[np.argmax(scaled[0] @ scaled[1].T, axis=1)]
    adata = anndata.AnnData(
        counts.astype(np.float32), obs=pd.DataFrame({"type": kind}, index=np.flatnonzero(enough).astype(str))
    )
    adata.var_names = genes
    adata.obsm["spatial"] = xy
    return adata


def raw(adata: anndata.AnnData, stratum: np.ndarray) -> np.ndarray:
    """Return p of each two genes where the values of the first are dealt anew and the second stays as it is."""
    values = log_normalize(adata.X).toarray()
    xy = adata.obsm["spatial"]
    surrounding = kernel(xy, xy, np.arange(len(xy)), 30.0) @ values
    n = np.bincount(stratum)
    total = sparse.csr_matrix((np.ones(len(xy)), (stratum, np.arange(len(xy)))), shape=(len(n), len(xy)))
    excess = values.T @ surrounding - (total @ values / n[:, None]).T @ (total @ surrounding)
    squares = [total @ (part - (total @ part / n[:, None])[stratum]) ** 2 for part in (values, surrounding)]
    variance = (squares[0] * np.where(n > 1, 1 / np.maximum(n - 1, 1), 0)[:, None]).T @ squares[1]
    return upper_tail(excess / np.sqrt(np.where(variance > 0, variance, np.nan)), np.zeros_like(excess))


def moments_of(adata: anndata.AnnData, *, by_type: bool, tile: float | None) -> Any:
    """Return the moments of all genes under one null."""
    block, kind = strata_of(adata, by_type=by_type, tile=tile)[0], strata_of(adata, by_type=by_type, tile=None)[1]
    unit = np.zeros(1, dtype=np.int64)
    xy = adata.obsm["spatial"]
    return spatial_moments(log_normalize(adata.X), xy, block, kind, unit, sigma=30.0, n_units=1)


def strata_of(adata: anndata.AnnData, *, by_type: bool, tile: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return slide and tile of each cell, and its stratum."""
    xy = adata.obsm["spatial"]
    kind = pd.factorize(adata.obs["type"])[0] if by_type else np.zeros(len(xy), dtype=np.int64)
    block = np.zeros((len(xy), 2), dtype=np.int64)
    if tile is not None:
        square = np.floor((xy - xy.min(axis=0)) / tile).astype(np.int64)
        block[:, 1] = square[:, 0] * (square[:, 1].max() + 1) + square[:, 1]
    return block, pd.MultiIndex.from_arrays([block[:, 1], kind]).factorize()[0]


def false_alarms(adata: anndata.AnnData) -> dict[str, Any]:
    """Return the share of gene pairs called under each null, and how ranks of random pairs are spread."""
    seen = np.flatnonzero(adata.X.getnnz(axis=0) >= 0.05 * adata.n_obs)
    one, other = (seen[side] for side in np.triu_indices(len(seen), 1))
    found: dict[str, Any] = {"cells": adata.n_obs, "gene_pairs": len(one)}
    for name, by_type, tile in (
        ("all cells", False, None), ("within type", True, None), ("within type and tile of 250 um", True, 250.0),
        ("within type and tile of 150 um", True, 150.0), ("within type and tile of 75 um", True, 75.0),
        ("within type and tile of 100 um", True, 100.0),
    ):  # fmt: skip
        moments = moments_of(adata, by_type=by_type, tile=tile)
        deviation = np.sqrt(np.where(moments.variance[0] > 0, moments.variance[0], np.nan))
        z = moments.excess[0] / deviation
        p = upper_tail(z, moments.third[0] / deviation**3)
        found[name] = {
            "raw": float(np.mean(raw(adata, strata_of(adata, by_type=by_type, tile=tile)[1])[one, other] <= 0.05)),
            "one way": float(np.mean(p[one, other] <= 0.05)),
            "both ways": float(np.mean(np.maximum(p, p.T)[one, other] <= 0.05)),
        }
        print(name, found[name], flush=True)
    rng = np.random.default_rng(0)
    pairs = np.stack([rng.permuted(seen)[:2] for _ in range(4_000)])
    level = np.asarray(log_normalize(adata.X).mean(axis=0)).ravel()
    level[np.setdiff1d(np.arange(adata.n_vars), seen)] = 0
    pools = matched_genes(level, np.maximum(level, 1e-9), 40)[0]
    genes = [frozenset([gene]) for gene in range(adata.n_vars)]
    tests = judge_pairs(moments, pairs, pools, subunits=genes, known=frozenset())
    found["rank among matched pairs at most"] = {
        str(at): float(np.mean(tests.p_matched <= at)) for at in (0.1, 0.05, 0.01, 0.002, 0.001, 0.0002)
    }
    print(found["rank among matched pairs at most"], flush=True)
    return found


def simulated(seed: int, n: int, n_genes: int, *, strength: float) -> anndata.AnnData:
    """Return types in patches of 90 um, genes that follow them, and (from a strength of 0) G0 beside G1 in discs."""
    rng = np.random.default_rng(seed)
    side = np.sqrt(n * 150.0)
    xy = rng.random((n, 2)) * side
    kind = ((xy // 90).astype(int).sum(axis=1) + (rng.random(n) < 0.25)) % 4
    means = (rng.gamma(1.0, 2.0, (4, n_genes)) + 0.2)[kind]
    if strength:
        centres = rng.random((n // 75, 2)) * side
        near = sum(np.linalg.norm(xy - centre, axis=1) < 25 for centre in centres) > 0
        for gene in (0, 1):
            means[:, gene] = np.where(near & (rng.random(n) < 0.6), strength, 0.4)
    adata = anndata.AnnData(sparse.csr_matrix(rng.poisson(means).astype(np.float32)))
    adata.obs_names, adata.var_names = np.arange(n).astype(str), [f"G{gene}" for gene in range(n_genes)]
    adata.obs["type"] = kind.astype(str)
    adata.obsm["spatial"] = xy
    return adata


def planted(n_sets: int) -> dict[str, Any]:
    """Return how often a planted pair is called, by strength, and how many others, where types decide all else."""
    names = [f"G{gene}" for gene in range(40)]
    pairs = pd.DataFrame(
        [("G0", "G1")] + [(a, b) for a in names[2:22] for b in names[22:]], columns=["ligand", "receptor"]
    )
    found: dict[str, Any] = {}
    for n, strength in ((2_000, 0.0), (2_000, 2.0), (2_000, 4.0), (2_000, 8.0), (10_000, 2.0)):
        called, alarms, others = [], [], []
        for seed in range(n_sets):
            adata = simulated(seed, n, 60, strength=strength)
            tl.ligrec(adata, resource=pairs, cell_type="type")
            table = adata.uns["ligrec"]["table"]
            is_planted = (table["ligand"] == "G0").to_numpy()
            called.append(bool(table["called"][is_planted].any()))
            alarms.append(float((table["p"][~is_planted] <= 0.05).mean()))
            others.append(int(table["called"][~is_planted].sum()))
        found[f"{n} cells, {strength:g} counts"] = {
            "planted called": float(np.mean(called)), "p at most .05 of others": float(np.mean(alarms)),
            "others called of 360": float(np.mean(others)),
        }  # fmt: skip
        print(n, strength, found[f"{n} cells, {strength:g} counts"], flush=True)
    return found


def states(n_sets: int) -> dict[str, Any]:
    """Return z and p of two genes of cell states that lie anywhere, by cells and whether both are of one state."""
    found: dict[str, Any] = {}
    for n, same in ((600, False), (600, True), (2_000, False), (2_000, True)):
        z, p = np.zeros(n_sets), np.zeros(n_sets)
        for seed in range(n_sets):
            rng = np.random.default_rng(seed)
            xy = rng.random((n, 2)) * np.sqrt(n * 150.0)
            tile = (xy // 100).astype(np.int64)
            block = np.stack([np.zeros(n, dtype=np.int64), tile[:, 0] * 1_000 + tile[:, 1]], axis=1)
            kind = rng.integers(2, size=n)
            state = rng.random(n) < 0.5
            counts = [rng.poisson(np.where(has, 6.0, 0.3)) for has in (state, state == same)]
            values = sparse.csr_matrix(np.log1p(np.stack(counts, axis=1)))
            moments = spatial_moments(values, xy, block, kind, np.zeros(1, dtype=np.int64), sigma=30.0, n_units=1)
            deviation = np.sqrt(moments.variance[0])
            ways = moments.excess[0] / deviation
            tails = upper_tail(ways, moments.third[0] / deviation**3)
            z[seed], p[seed] = min(ways[0, 1], ways[1, 0]), max(tails[0, 1], tails[1, 0])
        name = f"{n} cells, {'one state' if same else 'states that exclude each other'}"
        found[name] = {
            "sets": n_sets, "mean z": float(z.mean()), "deviation of z": float(z.std()),
            "p at most .05": float(np.mean(p <= 0.05)), "p at most .01": float(np.mean(p <= 0.01)),
        }  # fmt: skip
        print(name, found[name], flush=True)
    return found


def dense_error(adata: anndata.AnnData, pairs: pd.DataFrame) -> float:
    """Return the largest relative difference of the statistic to that of dense arrays."""
    values = log_normalize(adata.X).toarray()
    xy = adata.obsm["spatial"]
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    weights = np.where(distance <= 90.0, np.exp(-0.5 * (distance / 30.0) ** 2), 0.0)
    np.fill_diagonal(weights, 0.0)
    assert kernel(xy, xy, np.arange(len(xy)), 30.0).nnz == np.count_nonzero(weights)
    column = {gene: index for index, gene in enumerate(adata.var_names)}
    table = adata.uns["ligrec"]["table"]
    dense = [
        values[:, column[a]] @ weights @ values[:, column[b]]
        for a, b in zip(table["ligand"], table["receptor"], strict=True)
    ]
    assert len(table) <= len(pairs)
    return float(np.max(np.abs(table["observed"] / dense - 1)))


def beside_liana(adata: anndata.AnnData, python: str, rounds: int, n_pairs: int) -> dict[str, Any]:
    """Return times of the same cells and pairs, alternately."""
    rng = np.random.default_rng(0)
    seen = np.flatnonzero(adata.X.getnnz(axis=0) >= 0.05 * adata.n_obs)
    drawn = np.stack([adata.var_names[rng.permutation(seen)[:2]] for _ in range(n_pairs)])
    pairs = pd.DataFrame(drawn, columns=["ligand", "receptor"]).drop_duplicates()
    own, other = [], []
    environment = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
    )
    with tempfile.TemporaryDirectory() as folder:
        logs = anndata.AnnData(log_normalize(adata.X).astype(np.float32), obs=adata.obs, var=adata.var)
        logs.obsm["spatial"] = adata.obsm["spatial"]
        logs.write_h5ad(f"{folder}/cells.h5ad")
        pairs.to_csv(f"{folder}/pairs.csv", index=False)
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        for _ in range(rounds):
            started, used = time.perf_counter(), time.process_time()
            tl.ligrec(adata, resource=pairs, cell_type="type")
            own.append([time.perf_counter() - started, time.process_time() - used])
            command = [python, "-c", _LIANA, f"{folder}/cells.h5ad", f"{folder}/pairs.csv"]
            answer = subprocess.run(command, check=True, capture_output=True, text=True, env=clean | environment)
            taken = json.loads(answer.stdout.splitlines()[-1])
            other.append([taken["seconds"], taken["core_seconds"]])
    own_s, other_s = (np.median(times, axis=0) for times in (own, other))
    return {
        "cells": adata.n_obs, "pairs": len(pairs), "rounds": rounds,
        "seconds": own_s[0], "core_seconds": own_s[1], "liana_seconds": other_s[0], "liana_core_seconds": other_s[1],
        "ratio_of_core_seconds": other_s[1] / own_s[1], "relative_error_to_dense": dense_error(adata, pairs),
    }  # fmt: skip


def measure(n_cells: int, n_pairs: int) -> dict[str, float]:
    """Test pairs, and score the cells, of a simulated table in this process."""
    n_genes = 1_200
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.4, 0.5, n_genes)
    adata = anndata.AnnData(sparse.vstack(
        [sparse.csr_matrix(rng.poisson(rate, (2_000, n_genes)).astype(np.float32)) for _ in range(n_cells // 2_000)],
        format="csr",
    ))  # fmt: skip
    adata.obs_names, adata.var_names = np.arange(n_cells).astype(str), [f"G{gene}" for gene in range(n_genes)]
    adata.obs["type"] = rng.integers(12, size=n_cells).astype(str)
    adata.obsm["spatial"] = rng.random((n_cells, 2)) * np.sqrt(n_cells * 150.0)
    often = np.flatnonzero(adata.X.getnnz(axis=0) >= 10)
    drawn = np.stack([rng.permuted(often)[:2] for _ in range(n_pairs)])
    pairs = pd.DataFrame({"ligand": adata.var_names[drawn[:, 0]], "receptor": adata.var_names[drawn[:, 1]]})
    data_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    started, used = time.perf_counter(), time.process_time()
    tl.ligrec(adata, resource=pairs, cell_type="type")
    tested, tested_used = time.perf_counter(), time.process_time()
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    scores = ligand_receptor_scores(adata)
    return {
        "pairs_tested": int(adata.uns["ligrec"]["n_tested"]), "seconds": tested - started,
        "core_seconds": tested_used - used, "gb_with_the_data": data_gb, "peak_gb": peak_gb,
        "scores_core_seconds": time.process_time() - tested_used, "scores_values": int(scores.X.nnz),
        "scores_peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }  # fmt: skip


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transcripts", type=Path)
    parser.add_argument("--profiles", type=Path)
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--liana", help="Python that has liana.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="Default: all; the others are kept as they were.")
    parser.add_argument("--sets", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--n-cells", type=int, default=100_000)
    parser.add_argument("--n-pairs", type=int, default=1_000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.n_cells, arguments.n_pairs)))
        return
    found: dict[str, Any] = earlier_results("ligrec")
    found["machine"] = describe("spaf-analysis", "numpy", "scipy", "anndata")
    for part in arguments.parts or PARTS:
        for name, result in measured(part, arguments):
            print(name, result, flush=True)
            found[name] = result
        if arguments.write:  # what was measured is kept if a later part is cut off
            write_results("ligrec", found)


def measured(part: str, arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the result of each measurement of a part; nothing where its data are not named."""
    if part in ("window", "cells", "liana") and arguments.transcripts:
        profiles = pd.read_csv(arguments.profiles, index_col=0)
        window = annotated(*of_transcripts(arguments.transcripts), profiles)
        if part == "window":
            yield "false_alarms_window", false_alarms(window)
        if part == "cells" and arguments.cells:
            yield "false_alarms_cells", false_alarms(annotated(*of_cells(arguments.cells, profiles), profiles))
        if part == "liana" and arguments.liana:
            for n_pairs in (23, 500):
                yield f"beside_liana_{n_pairs}_pairs", beside_liana(window, arguments.liana, arguments.rounds, n_pairs)
    if part == "planted":
        yield part, planted(arguments.sets)
    if part == "states":
        yield part, states(20 * arguments.sets)
    if part == "large":
        words = ["--measure", "--n-cells", str(arguments.n_cells), "--n-pairs", str(arguments.n_pairs)]
        answer = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
        yield part, {"cells": arguments.n_cells} | json.loads(answer.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
