"""Patterns of genes inside cells: planted ones found, others not, and how fast.

    python benchmarks/patterns.py [--seeds 20] [--first-seed 1000] [--write]

Slides are simulated with `pattern_genes` genes of each pattern and with outlines of cells and nuclei. The depth is such
that a planted gene has about 30 transcripts a cell. AUROC of a pattern is over genes: those planted with it against
genes without any, by the standard score; beside it the baseline, which is told of the other genes' patterns. A call is
right where the gene's planted pattern is that one or makes it true (`IMPLIED`), and false otherwise; the realised rate
is the mean over slides of false calls among all calls. ``planted alone`` asks the same of the planted patterns and what
is false: rows that a planted pattern makes true are left out before p are adjusted, for a rate over all calls says
nothing of a part of them. ``of_planted_and_false`` is that part of the calls after all. With labels permuted every call
is false. Times are of the processor, warm, of cells with a median of about 150 transcripts.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _machine import describe, earlier_results, write_results
from scipy.stats import false_discovery_control
from sklearn.metrics import roc_auc_score

import spaf_data
from spaf_analysis.patterns import location_baseline
from spaf_data.simulate.recipe import PATTERNS

N_GENES, N_PER_PATTERN, DEPTH = 100, 3, 1_900
# What else is true of a gene of each pattern, by how it is planted: all that is not uniform lies closer together.
IMPLIED = {
    "nuclear": {"nuclear"},
    "perinuclear": {"perinuclear", "cytoplasmic", "central", "punctate"},
    "peripheral": {"peripheral", "cytoplasmic", "edge", "punctate"},
    "central": {"central", "nuclear", "punctate"},
    "polarised": {"polarised", "punctate"},
    "punctate": {"punctate", "polarised", "cytoplasmic"},
}


def simulate(folder: Path, **recipe: Any) -> tuple[Any, Any, dict[str, list[str]]]:
    """Return transcripts, outlines and truth of a slide."""
    bundle = spaf_data.simulate_bundle(folder, n_colocalized_pairs=0, **recipe)
    transcripts = spaf_data.read_transcripts(bundle)
    truth = json.loads((bundle / "truth.json").read_text()).get("patterns", {})
    return transcripts, spaf_data.read_outlines(bundle, transcripts), truth


def judge(seed: int, pattern_fraction: float, depth: float) -> dict[str, Any]:
    """Find the planted patterns of a slide of 200 cells."""
    with tempfile.TemporaryDirectory() as folder:
        transcripts, outlines, truth = simulate(
            Path(folder) / "bundle", n_cells=200, n_genes=N_GENES, seed=seed, depth=depth,
            n_pattern_genes=N_PER_PATTERN, pattern_fraction=pattern_fraction,
        )  # fmt: skip
        table = spaf_data.subcellular_patterns(transcripts, outlines=outlines).table
        summary = spaf_data.location_summary(transcripts)
    planted = {gene for genes in truth.values() for gene in genes}
    plain = [gene for gene in transcripts.genes if gene not in planted]
    scores = table.pivot(index="gene", columns="pattern", values="z")
    auroc, baseline, power = {}, {}, {}
    for name in PATTERNS:
        genes = [*truth[name], *plain]
        has = np.isin(genes, truth[name])
        auroc[name] = roc_auc_score(has, scores[name].reindex(genes).fillna(0.0))
        by_location = summary.loc[genes]
        baseline[name] = roc_auc_score(has, np.nan_to_num(location_baseline(by_location, has)))
        rows = table[(table["pattern"] == name) & table["gene"].isin(truth[name])]
        power[name] = float((rows["fdr"] <= 0.05).mean())
    called = table[table["fdr"] <= 0.05]
    of_pattern = {gene: name for name, genes in truth.items() for gene in genes}
    named = zip(called["gene"], called["pattern"], strict=True)
    false = sum(is_false(of_pattern, *name) for name in named)
    right = int((called["pattern"] == called["gene"].map(of_pattern)).sum())
    is_right = (table["pattern"] == table["gene"].map(of_pattern)).to_numpy()
    judged = is_right | [is_false(of_pattern, *name) for name in zip(table["gene"], table["pattern"], strict=True)]
    called_alone = false_discovery_control(table["p"].to_numpy()[judged]) <= 0.05
    per_cell = summary.loc[sorted(planted), "n_transcripts"].median() / transcripts.n_cells
    return {
        "auroc": auroc, "baseline": baseline, "power": power, "false": false, "right": right, "called": len(called),
        "alone": {"called": int(called_alone.sum()), "false": int((called_alone & ~is_right[judged]).sum())},
        "transcripts_of_gene_a_cell": float(per_cell),
    }  # fmt: skip


def is_false(of_pattern: dict[str, str], gene: str, pattern: str) -> bool:
    """Tell whether a call is of a pattern that the gene neither has nor gets from the one it has."""
    return pattern not in IMPLIED.get(of_pattern.get(gene, ""), ())


def of_nothing(seed: int) -> dict[str, float]:
    """Count calls where labels are permuted within the nucleus and the rest of each cell of a slide with patterns."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        transcripts, outlines, _ = simulate(
            Path(folder) / "bundle", n_cells=200, n_genes=N_GENES, seed=seed, depth=150, n_pattern_genes=N_PER_PATTERN
        )
        order = np.lexsort((rng.random(transcripts.n_transcripts), transcripts.cell))
        gene = np.empty_like(transcripts.gene)
        gene[:] = transcripts.gene[order]
        x, y, inside = (np.array(values) for values in (transcripts.x, transcripts.y, transcripts.in_nucleus))
        shuffled = spaf_data.Transcripts.from_arrays(
            x=x, y=y, gene=gene, cell=transcripts.cell, genes=transcripts.genes, cells=transcripts.cells,
            in_nucleus=inside,
        )  # fmt: skip
        table = spaf_data.subcellular_patterns(shuffled, outlines=outlines).table
    return {
        "tested": len(table), "below_05": float((table["p"] < 0.05).mean()),
        "below_001": float((table["p"] < 0.001).mean()), "called": int((table["fdr"] <= 0.05).sum()),
    }  # fmt: skip


def speed(n_cells: int, repeats: int = 3) -> dict[str, float]:
    """Take the time of all patterns, warm."""
    with tempfile.TemporaryDirectory() as folder:
        transcripts, outlines, _ = simulate(
            Path(folder) / "bundle", n_cells=n_cells, n_genes=300, seed=0, depth=185, n_pattern_genes=1
        )
        spaf_data.subcellular_patterns(transcripts, outlines=outlines)
        used, wall = [], []
        for _ in range(repeats):
            started, before = time.perf_counter(), time.process_time()
            spaf_data.subcellular_patterns(transcripts, outlines=outlines)
            used.append(time.process_time() - before)
            wall.append(time.perf_counter() - started)
    return {
        "n_cells": n_cells, "median_transcripts": float(np.median(np.diff(transcripts.offsets))),
        "core_seconds": float(np.median(used)), "seconds": float(np.median(wall)),
        "cells_a_core_second": n_cells / float(np.median(used)),
    }  # fmt: skip


def main() -> None:
    """Judge, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1_000)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    results = earlier_results("patterns") or {"planted": {}}
    results["machine"] = describe("spaf-data", "spaf-analysis", "numpy", "numba")

    def keep(name: str, found: dict[str, Any], within: dict[str, Any]) -> None:
        """Print a part and, if asked, write it, so that it is kept if a later one is cut off."""
        print(name, found, flush=True)
        within[name] = found
        if arguments.write:
            write_results("patterns", results)

    for name, fraction, depth in (("half moved", 0.5, DEPTH), ("a fifth moved", 0.2, DEPTH), ("shallow", 0.5, 150)):
        slides = [judge(seed, fraction, depth) for seed in seeds]
        row = {
            key: pd.DataFrame([s[key] for s in slides]).mean().round(3).to_dict()
            for key in ("auroc", "baseline", "power")
        }
        rate = [s["false"] / max(s["called"], 1) for s in slides]
        part = [s["false"] / max(s["false"] + s["right"], 1) for s in slides]
        alone = [s["alone"]["false"] / max(s["alone"]["called"], 1) for s in slides]
        row |= {
            "realised_fdr": float(np.mean(rate)), "realised_fdr_planted_alone": float(np.mean(alone)),
            "of_planted_and_false": float(np.mean(part)),
            "planted_alone": pd.DataFrame([s["alone"] for s in slides]).sum().to_dict(),
            "calls": sum(s["called"] for s in slides), "false_calls": sum(s["false"] for s in slides),
            "right_calls": sum(s["right"] for s in slides), "slides": len(slides), "first_seed": seeds[0],
            "transcripts_of_gene_a_cell": float(np.mean([s["transcripts_of_gene_a_cell"] for s in slides])),
        }  # fmt: skip
        keep(name, row, results["planted"])
    nothing = pd.DataFrame([of_nothing(seed) for seed in seeds]).mean().to_dict()
    keep("labels_permuted", nothing | {"slides": len(seeds), "first_seed": seeds[0]}, results)
    keep("speed", speed(arguments.cells), results)


if __name__ == "__main__":
    main()
