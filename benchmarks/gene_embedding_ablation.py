"""Whether pre-training gains from starting with gene embeddings.

    spaf-data build XENIUM_FOLDER --out BUILD
    python benchmarks/gene_embedding_ablation.py XENIUM_FOLDER BUILD

The preset `small` is trained for some hundred steps from several seeds: without a table of gene vectors, with that of
embeddings of the training cells, and with the same vectors dealt to other genes, which is what a table does that knows
nothing. Scores are those of the held-out region.
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from _machine import describe, write_results

from spaf_data import gene_proximity, read_transcripts
from spaf_train import GeneEmbeddingOptions, gene_embeddings, pretrain, read_config

RESULTS = Path(__file__).parent / "results" / "gene_embedding_ablation.json"
SCORES = ("loss_masked_genes", "auroc_colocalization", "auroc_pairs")

# For each arm its embeddings and their length in units of that of the vectors of tokens.
ARMS: dict[str, tuple[str, float] | None] = {
    "no table": None,
    "null abundance (default)": ("abundance", 1.0),
    "null cells": ("cells", 1.0),
    "shuffled genes": ("shuffled", 1.0),
    "null abundance, scale 5": ("abundance", 5.0),
    "null cells, scale 5": ("cells", 5.0),
    "shuffled genes, scale 5": ("shuffled", 5.0),
}


def make_tables(bundle: Path, build: Path, folder: Path) -> None:
    """Write embeddings of training cells by both nulls, and the default ones with vectors dealt to other genes."""
    (file,) = (build / "slides").glob("*.h5ad")
    obs = anndata.read_h5ad(file).obs
    found = gene_proximity(read_transcripts(bundle), cells=obs.index[obs["split"] == "train"].to_numpy())
    for null in ("cells", "abundance"):
        gene_embeddings(found, GeneEmbeddingOptions(null=null)).save(folder / null)
    made = gene_embeddings(found, GeneEmbeddingOptions())
    embedded = np.flatnonzero(made.genes["embedded"])
    vectors = made.vectors.copy()
    vectors[embedded] = vectors[np.random.default_rng(0).permutation(embedded)]
    dataclasses.replace(made, vectors=vectors).save(folder / "shuffled")


def train_once(corpus: Path, out: Path, table: tuple[Path, float] | None, seed: int, steps: int) -> dict[str, float]:
    """Train once and return the scores of the last validation."""
    options = [f"seed={seed}", *(f"run.{name}={steps}" for name in ("steps", "validate_every", "checkpoint_every"))]
    if table is not None:
        options += [f"gene_embeddings.path={table[0]}", f"gene_embeddings.scale={table[1]}"]
    pretrain(read_config("small", overrides=options), corpus, out)
    metrics = pd.read_csv(out / "metrics.csv")
    last = metrics[metrics["split"] == "validation"].iloc[-1]
    return {name: float(last[name]) for name in SCORES}


def main() -> None:
    """Train all arms, print a table of means and spreads, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("build", type=Path, help="build of that bundle, with one slide")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    runs = finished(options.steps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tables(options.bundle, options.build, folder)
        for number, (arm, choice) in enumerate(ARMS.items()):
            for seed in range(options.seeds):
                if any((run["arm"], run["seed"]) == (arm, seed) for run in runs):
                    continue
                table = None if choice is None else (folder / choice[0], choice[1])
                scores = train_once(options.build / "corpus", folder / f"{number}-{seed}", table, seed, options.steps)
                runs.append({"arm": arm, "seed": seed, **scores})
                print(runs[-1], flush=True)
                write(runs, options.steps)
    print(summarise(runs).round(4).to_string())


def finished(steps: int) -> list[dict[str, Any]]:
    """Return the runs of as many steps that were written before: equal seeds give equal scores."""
    if not RESULTS.exists():
        return []
    results = json.loads(RESULTS.read_text())
    return list(results["runs"]) if results["steps"] == steps else []


def summarise(runs: list[dict[str, Any]]) -> pd.DataFrame:
    """Return mean and standard deviation over the seeds of each arm."""
    return pd.DataFrame(runs).drop(columns="seed").groupby("arm", sort=False).agg(["mean", "std", "count"])


def write(runs: list[dict[str, Any]], steps: int) -> None:
    """Write the results so far."""
    runs = sorted(runs, key=lambda run: (list(ARMS).index(run["arm"]), run["seed"]))
    summary = {
        str(arm): {
            "seeds": int(row[SCORES[0], "count"]),
            **{f"{score}_mean": float(row[score, "mean"]) for score in SCORES},
            **{f"{score}_std": float(row[score, "std"]) for score in SCORES if row[score, "count"] > 1},
        }
        for arm, row in summarise(runs).iterrows()
    }
    machine = describe("spaf-train", "spaf-model", "spaf-data", "torch", "scipy")
    write_results(RESULTS.stem, {"machine": machine, "steps": steps, "summary": summary, "runs": runs})


if __name__ == "__main__":
    main()
