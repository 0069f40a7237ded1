"""Ask whether a head of gene co-localisation learns more where its labels are controlled for expression.

    python benchmarks/colocalization_labels.py BUILD TRANSCRIPTS --work FOLDER [--seeds 0 1] [--write]

BUILD is a folder of `spaf-data build` with one slide, TRANSCRIPTS the run it was made of. A small SpatialFormer is
trained for 600 steps, its pair objective left out, on three kinds of labels of single cells: communities of
transcripts, and pairs whose joins are above what the cell's counts explain by 2 and by 3 standard deviations. Each is
asked for its AUROC within strata of expression beside that of the smaller of two counts. Runs in FOLDER that are done
are not done again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import anndata
from _machine import describe, write_results

from spaf_data import colocalize, read_transcripts, write_corpus
from spaf_train import pretrain, read_config

_SCORES = "cells_enriched"
LABELS = {"communities": ("colocalization", 0.0), "z above 2": (_SCORES, 2.0), "z above 3": (_SCORES, 3.0)}
_STEPS = 600


def learnt(slide: anndata.AnnData, labels: str, seed: int, work: Path) -> dict[str, Any]:
    """Return what a run says of its objective."""
    key, least = LABELS[labels]
    name = labels.replace(" ", "-")
    run = work / f"{name}-{seed}"
    if not (run / "run.json").is_file():
        corpus = write_corpus([slide], work / f"corpus-{name}", colocalization_key=key, min_colocalization=least)
        options = [f"run.steps={_STEPS}", "run.threads=1", f"seed={seed}", "objectives.pairs.enabled=false"]
        pretrain(read_config("small", overrides=options), corpus.path, run)
    return json.loads((run / "run.json").read_text())["objectives"]["colocalization"]


def main() -> None:
    """Train, and say what was learnt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("transcripts", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    (file,) = (arguments.build / "slides").glob("*.h5ad")
    slide = anndata.read_h5ad(file)
    colocalize(slide, read_transcripts(arguments.transcripts), method="enrichment", key_added=_SCORES)
    rows: dict[str, Any] = {}
    for labels, (key, least) in LABELS.items():
        rows[labels] = {"n_labels": int((slide.obsm[key].data > least).sum())}
        for seed in arguments.seeds:
            rows[labels][f"seed {seed}"] = learnt(slide, labels, seed, arguments.work)
        print(labels, rows[labels], flush=True)
    if arguments.write:
        machine = describe("spaf-data", "spaf-model", "spaf-train", "torch")
        write_results("colocalization_labels", {"machine": machine, "n_cells": slide.n_obs, "labels": rows})


if __name__ == "__main__":
    main()
