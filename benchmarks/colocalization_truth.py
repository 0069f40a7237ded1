"""Do the called gene pairs co-localise: realised FDR and power on slides with planted truth.

    python benchmarks/colocalization_truth.py [--peer-python PYTHON]

Slides are simulated with gene pairs that share a spot of each cell, and others that are merely the most frequent genes
of the panel. ``strengths`` are shares of the transcripts of a planted gene that lie in the spot; with 0 nothing is
planted. Power is compared **at the same number of calls**, that of ``enrichment`` at FDR 0.05 or, where it makes fewer,
the number of planted pairs: the other methods give as many pairs of their highest rank. Their rank is the number of
cells in which they call a pair (ties: the sum of its frequencies for the published code, else at random).

PYTHON is an interpreter with ``spatialformer==0.1.8``, python-louvain and networkx. The published code sees transcripts
in the order of the file, as its users give them; it sorts the labels apart from the transcripts. It is slow, so it runs
on a few cells, and so do the others beside it.
"""

import argparse
import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from _machine import describe, write_results
from anndata import AnnData

from spaf_data import Transcripts, bin_transcripts, colocalize, read_transcripts, simulate_bundle

LEVEL = 0.05
N_PLANTED = 20
N_ABUNDANT = 10
N_GENES = 300

Pairs = list[tuple[str, str]]


def simulated(folder: Path, seed: int, n_cells: int, strength: float) -> tuple[Transcripts, dict[str, set]]:
    """Return the transcripts of a simulated slide and its planted and merely abundant pairs."""
    bundle = simulate_bundle(
        folder / f"{seed}-{n_cells}-{strength}", n_cells=n_cells, n_genes=N_GENES, seed=seed,
        n_colocalized_pairs=N_PLANTED, n_abundant_pairs=N_ABUNDANT, spot_fraction=strength,
    )  # fmt: skip
    truth = json.loads((bundle / "truth.json").read_text())
    return read_transcripts(bundle), {
        kind: {tuple(sorted(pair)) for pair in truth[f"{kind}_pairs"]} for kind in ("colocalized", "abundant")
    }


def ranked(scores: pd.DataFrame, columns: list[str], seed: int) -> Pairs:
    """Return pairs by descending columns, ties at random."""
    tie = np.random.default_rng(seed).random(len(scores))
    ordered = scores.assign(tie=tie).sort_values([*columns, "tie"], ascending=False)
    return list(zip(ordered.gene_a, ordered.gene_b, strict=True))


def ranks_of_methods(transcripts: Transcripts, seed: int) -> tuple[dict[str, Pairs], Pairs]:
    """Return the pairs of each method by rank, and those that enrichment calls."""
    slide = bin_transcripts(transcripts, min_transcripts=1)
    colocalize(slide, transcripts, method="enrichment", cell_scores=False, key_added="enrichment")
    statistics = slide.uns["enrichment"]["statistics"]
    called = statistics[statistics.fdr < LEVEL]
    ranks = {"enrichment": ranked(statistics.assign(rank=-statistics.p), ["rank", "z"], seed)}
    ranks["communities"] = ranked(cells_of_pairs(slide, transcripts), ["n_cells"], seed)
    return ranks, list(zip(called.gene_a, called.gene_b, strict=True))


def cells_of_pairs(slide: AnnData, transcripts: Transcripts) -> pd.DataFrame:
    """Return the number of cells in which our communities call each pair: the published rule with right labels."""
    colocalize(slide, transcripts, key_added="communities")
    n_cells = np.asarray(slide.obsm["communities"].sum(axis=0, dtype=np.int64)).ravel()
    return slide.uns["communities"]["pairs"].assign(n_cells=n_cells)


def published_ranks(transcripts: Transcripts, python: str, seed: int, folder: Path) -> Pairs:
    """Return the pairs of the published code by rank."""
    # Rows in the order of no file in particular: sorted by gene, as ours are, they would hide its mislaid labels.
    order = np.random.default_rng(seed).permutation(transcripts.n_transcripts)
    columns = {name: getattr(transcripts, name)[order] for name in ("x", "y", "z", "gene", "cell")}
    np.savez(folder / "columns.npz", genes=np.array(transcripts.genes), **columns)
    script = Path(__file__).with_name("_published_pairs.py")
    subprocess.run([python, str(script), str(folder / "columns.npz"), str(folder / "scores.npz")], check=True)
    scores = np.load(folder / "scores.npz")
    a, b = np.triu_indices(len(transcripts.genes), 1)
    names = np.array(transcripts.genes)
    table = pd.DataFrame({"gene_a": names[a], "gene_b": names[b], **{k: scores[k][a, b] for k in scores.files}})
    return ranked(table[table["cells"] > 0], ["cells", "frequency"], seed)


def calls_for_half(pairs: Pairs, planted: set) -> float:
    """Return how many pairs of the highest rank hold half of the planted ones; NaN where they are not ranked."""
    found = np.cumsum([pair in planted for pair in pairs])
    half = len(planted) / 2
    return float(np.argmax(found >= half) + 1) if planted and found[-1] >= half else float("nan")


def judged(ranks: dict[str, Pairs], called: Pairs, truth: dict[str, set]) -> dict[str, dict[str, float]]:
    """Return the true and merely abundant pairs among equally many calls of each method."""
    n_calls = max(len(called), N_PLANTED)
    rows = {
        f"{method}_calls": {
            "calls": n_calls,
            "true": len(truth["colocalized"].intersection(pairs[:n_calls])),
            "abundant": len(truth["abundant"].intersection(pairs[:n_calls])),
            "calls_for_half": calls_for_half(pairs, truth["colocalized"]),
        }
        for method, pairs in ranks.items()
    }
    rows["enrichment_at_fdr"] = {
        "calls": len(called),
        "true": len(truth["colocalized"].intersection(called)),
        "abundant": len(truth["abundant"].intersection(called)),
    }
    return rows


def experiment(seeds: int, n_cells: int, strength: float, peer_python: str | None) -> dict[str, dict[str, float]]:
    """Return what the methods find in slides of a size, over the seeds."""
    slides = []
    with TemporaryDirectory() as folder:
        for seed in range(seeds):
            transcripts, truth = simulated(Path(folder), seed, n_cells, strength)
            if strength == 0:
                truth["colocalized"] = set()
            ranks, called = ranks_of_methods(transcripts, seed)
            if peer_python:
                ranks["published"] = published_ranks(transcripts, peer_python, seed, Path(folder))
            slides.append(judged(ranks, called, truth))
    summary = {}
    for method in slides[0]:
        rows = pd.DataFrame([slide[method] for slide in slides])
        half = rows.get("calls_for_half", pd.Series(dtype=float))
        false = (rows["calls"] - rows["true"]) / rows["calls"].clip(lower=1)
        summary[method] = {
            "calls": float(rows["calls"].mean()),
            "false_discovery_rate": float(false.mean()),
            "false_discovery_rate_standard_error": float(false.std(ddof=1) / np.sqrt(len(false))),
            "power": float(rows["true"].mean() / N_PLANTED),
            "abundant_pairs_called": float(rows["abundant"].mean()),
            "calls_for_half_of_planted": float(half.median()) if half.notna().any() else None,
        }
    return summary


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.8, 0.4, 0.3, 0.2, 0.0])
    parser.add_argument("--peer-python")
    parser.add_argument("--peer-seeds", type=int, default=3)
    parser.add_argument("--peer-cells", type=int, default=150)
    parser.add_argument("--peer-strength", type=float, default=0.8)
    options = parser.parse_args()
    runs = [(options.seeds, options.cells, strength, None) for strength in options.strengths]
    if options.peer_python:
        runs.append((options.peer_seeds, options.peer_cells, options.peer_strength, options.peer_python))
    rows = []
    for seeds, n_cells, strength, peer_python in runs:
        found = experiment(seeds, n_cells, strength, peer_python)
        rows.append({"seeds": seeds, "cells": n_cells, "strength": strength, "methods": found})
        table = pd.DataFrame(found).T.rename(columns={"false_discovery_rate_standard_error": "se"}).round(3)
        print(f"\n{seeds} slides of {n_cells} cells, strength {strength:g}\n{table.to_string()}", flush=True)
    write_results(
        "colocalization_truth",
        {
            "machine": describe("spaf-data", "numpy", "numba", "scipy"),
            "nominal_fdr": LEVEL,
            "genes": N_GENES,
            "planted_pairs": N_PLANTED,
            "abundant_pairs": N_ABUNDANT,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
