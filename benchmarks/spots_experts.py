"""Do experts earn anything? Four experts, two a token, beside one expert, on the corpus of `spots`.

    python benchmarks/spots_experts.py OUT [--steps 120] [--write]

OUT is where ``spots.py`` made its corpus. Both models learn masked values alone from the same batches, with short
cells so that it takes minutes; the one expert has the size of each of the four, a quarter of their weights and half
of what a token is computed by. Compared is the share explained of held-out masked values beyond gene means, and what
the router tells of the technology.
"""

import argparse
from pathlib import Path
from typing import Any

import spots
from _machine import describe, write_results

from spaf_train import pretrain, read_config

SHORT = [
    "model.max_length=65",
    "objectives.cell_values.enabled=false",
    "objectives.neighbourhood.enabled=false",
    "objectives.masked_values.weight=1.0",
    "sampling.windows.neighbours=0",
    "sampling.windows.cells=64",
    "run.validation_inputs=1500",
    "run.best_metric=last",
]
VARIANTS = {"one expert": ["model.n_experts=1"], "four experts, two a token": ["model.n_experts=4", "model.n_active=2"]}


def main() -> None:
    """Train both, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = {"steps": options.steps}
    for seed in range(options.seeds):
        for name, overrides in VARIANTS.items():
            more = [f"run.steps={options.steps}", f"run.validate_every={options.steps}", f"seed={seed}"]
            config = read_config("scgpt_spatial", overrides=[*spots.OPTIONS, *SHORT, *more, *overrides])
            folder = options.out / f"experts-{config.model.n_experts}-{seed}"
            best = pretrain(config, options.out / "corpus", folder, resume=True).best
            kept = {key: value for key, value in best.items() if key.startswith(("explained", "information", "least"))}
            results.setdefault(name, []).append(kept)
            print(name, seed, kept, flush=True)
    if options.write:
        write_results("spots_experts", {**results, "machine": describe("spaf-train", "torch")})


if __name__ == "__main__":
    main()
