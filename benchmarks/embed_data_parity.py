"""Whether `spaf_model.tl.embed_data` returns what the published call returns.

The published package, in an environment of its own, makes random weights of full size (v2) and is called as its README
does, for single cells and for pairs. Here the same calls are made with the same checkpoint. Above a difference of 1e-4
the script fails. Gene pairs differ on purpose: the published ones carry the names of the genes five ranks further
down and are read from one triangle of an asymmetric head; their overlap with ours is reported::

    python -m venv peer && peer/bin/pip install torch==2.13.0 spatialformer==0.1.8
    pip download --no-deps spatialformer==0.1.8
    python benchmarks/embed_data_parity.py peer/bin/python spatialformer-0.1.8-py3-none-any.whl
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from _machine import describe, write_results
from published_parity import TOLERANCE, random_cells, run_published

import spaf_model
from spaf_model.spatialformer.published.vocabulary import read_wheel_vocabulary

N_CELLS = 12  # the pairs are the first half with the second


def overlap(ours: list[list[list[str]]], theirs: list[list[list[str]]]) -> float:
    """Return the Jaccard index of the gene pairs of cells, whatever the order within a pair."""
    one, other = (
        {(cell, frozenset(pair)) for cell, pairs in enumerate(cells) for pair in pairs} for cells in (ours, theirs)
    )
    return len(one & other) / len(one | other)


def main() -> None:
    """Make both calls on both sides, print the differences, write them, and fail above the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", type=Path, help="interpreter that has the published package")
    parser.add_argument("wheel", type=Path, help="the published wheel")
    arguments = parser.parse_args()
    adata = random_cells(read_wheel_vocabulary(arguments.wheel, "v2"), np.random.default_rng(0))[:N_CELLS].copy()
    del adata.obs["species"], adata.obs["assay"]  # the calls have to do with their arguments
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run_published("_published_calls.py", arguments.python, adata, folder)
        names = list(adata.obs_names)
        call = {
            "tissue": "Breast",
            "condition": "Disease",
            "assay": "Xenium",
            "method": "cls",
            "model_ckp_path": str(folder / "model.ckpt"),
            "batch_size": 4,
            "num_workers": 1,
            "wheel": arguments.wheel,
        }
        single = spaf_model.tl.embed_data(adata=adata, mode="single", threshold=0.9, reveal_name=True, **call)
        pairs = {"mode": "pair", "left_cell": names[: N_CELLS // 2], "right_cell": names[N_CELLS // 2 :]}
        embeddings, probabilities = spaf_model.tl.embed_data(adata=adata, **pairs, **call)
        with np.load(folder / "results.npz") as published:
            assert single is adata
            assert [len(part) for part in probabilities] == published["batches"].tolist()
            found = {
                "embeddings of cells": float(np.abs(single.obsm["X_SpaF"] - published["single"]).max()),
                "embeddings of pairs": float(np.abs(embeddings - published["embeddings"]).max()),
                "probabilities of pairs": float(
                    np.abs(torch.cat(probabilities).numpy() - published["probabilities"]).max()
                ),
            }
        theirs = json.loads((folder / "gene_pairs.json").read_text())
        versions = json.loads((folder / "versions.json").read_text())
    ours = list(single.obs["Gene_Pairs"])
    counts = adata.to_df()
    genes = [set(counts.columns[counts.loc[name] > 0]) for name in names]
    foreign = [
        sum(not set(pair) <= genes[cell] for cell, pairs in enumerate(cells) for pair in pairs)
        for cells in (ours, theirs)
    ]
    jaccard = overlap(ours, theirs)
    for name, difference in found.items():
        print(f"{name:<24}{difference:>10.1e}")
    print(f"gene pairs: {sum(map(len, ours))} here, {sum(map(len, theirs))} published, Jaccard index {jaccard:.3f}")
    print(f"of them with a name that is no gene of the cell: {foreign[0]} here, {foreign[1]} published")
    write_results(
        "embed_data_parity",
        {
            "machine": describe("spaf-model", "torch", "numpy"),
            "published": versions,
            "n_cells": N_CELLS,
            "largest_absolute_difference": found,
            "tolerance": TOLERANCE,
            "n_gene_pairs": {"here": sum(map(len, ours)), "published": sum(map(len, theirs))},
            "n_gene_pairs_with_a_name_that_is_no_gene_of_the_cell": {"here": foreign[0], "published": foreign[1]},
            "gene_pairs_jaccard": jaccard,
        },
    )
    if not max(found.values()) <= TOLERANCE:
        sys.exit(f"The largest difference, {max(found.values()):.1e}, is above {TOLERANCE:.0e}.")


if __name__ == "__main__":
    main()
