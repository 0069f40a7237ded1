"""Which sizes a new model should have: heads, placement of norms and co-localisation head, trained alike and compared.

    spaf-data build --dataset xenium_breast_window --out BUILD
    python benchmarks/architecture.py BUILD/corpus

Every choice is the preset `small` with one option changed, trained for some hundred steps from several seeds and
scored on the held-out region of the corpus. Losses of masked genes are compared (all else is noisier), beside the
AUROC of co-localised gene pairs and of neighbouring cells, and the tokens trained a second.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from _machine import describe, write_results

from spaf_train import pretrain, read_config

# Of width 64: heads of 32 dimensions, normalised on the way in, with the symmetric head, are the preset.
CHOICES: dict[str, tuple[str, ...]] = {
    "preset": (),
    "heads of 8": ("model.n_heads=8",),
    "heads of 16": ("model.n_heads=4",),
    "one head of 64": ("model.n_heads=1",),
    "norm after": ("model.norm=post",),
    "bilinear head": ("model.colocalization_head=bilinear",),
}
SCORES = ("loss_masked_genes", "auroc_colocalization", "auroc_pairs")


def scores(corpus: Path, out: Path, overrides: tuple[str, ...], seed: int, steps: int) -> dict[str, float]:
    """Train once and return the scores of the last validation and the tokens a second."""
    common = (f"seed={seed}", f"run.steps={steps}", f"run.validate_every={steps}", f"run.checkpoint_every={steps}")
    pretrain(read_config("small", overrides=[*common, *overrides]), corpus, out)
    metrics = pd.read_csv(out / "metrics.csv")
    last = metrics[metrics["split"] == "validation"].iloc[-1]
    speed = metrics.loc[metrics["split"] == "train", "tokens_per_second"].median()
    return {**{name: float(last[name]) for name in SCORES}, "tokens_per_second": float(speed)}


def main() -> None:
    """Train all choices, print a table of means and spreads, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for number, (choice, overrides) in enumerate(CHOICES.items()):
                out = Path(folder) / f"{number}-{seed}"
                runs.append(
                    {"choice": choice, "seed": seed, **scores(options.corpus, out, overrides, seed, options.steps)}
                )
                print(runs[-1], flush=True)
    table = pd.DataFrame(runs).drop(columns="seed").groupby("choice", sort=False).agg(["mean", "std"])
    print(table.round(4).to_string())
    write_results(
        "architecture",
        {
            "machine": describe("spaf-train", "spaf-model", "torch"),
            "steps": options.steps,
            "seeds": options.seeds,
            "means": {choice: {name: float(row[name, "mean"]) for name in (*SCORES, "tokens_per_second")}
                      for choice, row in table.iterrows()},
            "runs": runs,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
