"""Whether a converted checkpoint computes what the published package computes with it.

The published package, in an environment of its own, makes random weights of full size (v1 and v2, each with either
attention class), saves them as Lightning checkpoints, and embeds random cells and pairs of cells. Here the checkpoints
are converted, the same cells embedded, and the largest differences reported; above 1e-4 the script fails.

The kernel of the flash class does not install everywhere; a stand-in computes what it would. The head of
v1 comes from the older module of the same wheel, applied to the last layer. It took 26 minutes on two cores that other
programs used as well::

    python -m venv peer && peer/bin/pip install torch==2.13.0 spatialformer==0.1.8
    pip download --no-deps spatialformer==0.1.8
    python benchmarks/published_parity.py peer/bin/python spatialformer-0.1.8-py3-none-any.whl
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from _machine import describe, write_results

from spaf_model import (
    SpatialFormer,
    TokenBatch,
    Vocabulary,
    context_ids,
    convert_published,
    match_genes,
    rank_genes,
)
from spaf_model.spatialformer.published.vocabulary import read_wheel_vocabulary

CASES = ("v1_explicit", "v1_flash", "v2_explicit", "v2_flash")
CONTEXT = {"tissue": "Breast", "condition": "Disease", "species": "Human", "assay": "Xenium"}
N_CELLS = 24  # the pairs are the first half with the second
GENES_PER_CELL = (20, 160)
TOLERANCE = 1e-4


def random_cells(vocabulary: Vocabulary, rng: np.random.Generator) -> anndata.AnnData:
    """Return cells without ties among the ranks of their genes, so that both sides must order them alike."""
    tokens = rng.choice(vocabulary.gene_token_ids, size=400, replace=False)
    scale = vocabulary.scale[tokens]
    counts = np.zeros((N_CELLS, tokens.size), dtype=np.float32)
    for cell in range(N_CELLS):
        genes = rng.choice(tokens.size, size=rng.integers(*GENES_PER_CELL), replace=False)
        while True:
            values = rng.choice(5000, size=genes.size, replace=False) + 1.0
            if np.unique((values / scale[genes]).astype(np.float32)).size == genes.size:
                break
        counts[cell, genes] = values
    names = [vocabulary.tokens[token] for token in tokens]
    return anndata.AnnData(
        sp.csr_matrix(counts),
        obs=pd.DataFrame(CONTEXT, index=[f"cell{cell}" for cell in range(N_CELLS)]),
        var=pd.DataFrame({"gene_name": names}, index=names),
    )


def run_published(script: str, python: Path, adata: anndata.AnnData, folder: Path) -> None:
    """Give cells to a script beside this one in the environment of the published package; it writes into a folder."""
    adata.write_h5ad(folder / "cells.h5ad")
    subprocess.run(
        [python.absolute(), "-W", "ignore", Path(__file__).with_name(script), folder / "cells.h5ad", folder],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=True,
    )


@torch.no_grad()
def differences(model: SpatialFormer, adata: anndata.AnnData, published: Any) -> dict[str, float]:
    """Return the largest absolute difference of each output; fail where tokens differ."""
    vocabulary, network = model.vocabulary, model.network
    found: dict[str, float] = {}

    def compare(name: str, ours: Any, theirs: np.ndarray) -> None:
        assert np.shape(ours) == theirs.shape, f"{name}: {np.shape(ours)} and {theirs.shape}"
        found[name] = max(found.get(name, 0.0), float(np.abs(np.asarray(ours, dtype=np.float64) - theirs).max()))

    for method in ("cls", "gene"):
        model.embed(adata, method=method)
        compare(f"{method} embedding", adata.obsm["X_SpaF"], published[f"single_{method}"])

    context = context_ids(vocabulary, adata.obs)
    token_ids = match_genes(adata.var, vocabulary, min_fraction=0.5).token_ids
    ranked = rank_genes(adata.X.indptr, token_ids[adata.X.indices], adata.X.data, vocabulary.scale)
    cells = np.arange(adata.n_obs)
    batch = TokenBatch.from_cells(ranked, context, cells, vocabulary)
    logits = network.colocalization_logits(network.encode(batch), batch)
    for cell, length in enumerate(batch.lengths[:, 0].tolist()):
        np.testing.assert_array_equal(batch.ids[cell, :length], published[f"tokens_{cell}"])
        compare("co-localisation logits, cells", logits[cell, :length, :length], published[f"colocalization_{cell}"])

    left, right = cells[: adata.n_obs // 2], cells[adata.n_obs // 2 :]
    for order, one, other in (("forward", left, right), ("reverse", right, left)):
        batch = TokenBatch.from_pairs(ranked, context, one, other, vocabulary)
        hidden = network.encode(batch)
        compare("pair embedding", hidden[:, 0], published[f"{order}_cls"])
        compare("pair probability", network.pair_logits(hidden).softmax(1)[:, 1], published[f"{order}_neighbours"])
        logits = network.colocalization_logits(hidden, batch)
        for row, (first, second) in enumerate(batch.lengths.tolist()):
            np.testing.assert_array_equal(batch.ids[row, : first + second], published[f"{order}_tokens_{row}"])
            for segment, (start, stop) in enumerate(((0, first), (first, first + second)), 1):
                compare(
                    "co-localisation logits, pairs",
                    logits[row, start:stop, start:stop],
                    published[f"{order}_colocalization_{row}_{segment}"],
                )
    averaged = model.embed_pairs(adata, left, right).probabilities
    compare(
        "pair probability, both orders",
        averaged,
        (published["forward_neighbours"] + published["reverse_neighbours"]) / 2,
    )
    return found


def main() -> None:
    """Compare all cases, print a table, write the results, and fail above the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", type=Path, help="interpreter that has the published package")
    parser.add_argument("wheel", type=Path, help="the published wheel")
    arguments = parser.parse_args()
    # The genes of v1 are a part of those of v2, with the same ids.
    adata = random_cells(read_wheel_vocabulary(arguments.wheel, "v1"), np.random.default_rng(0))
    rows: dict[str, dict[str, float]] = {}
    sizes: dict[str, int] = {}
    other_variant: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run_published("_published_outputs.py", arguments.python, adata, folder)
        for case in CASES:
            checkpoint = folder / case / "model.ckpt"
            model = convert_published(checkpoint, wheel=arguments.wheel)  # the checkpoint tells its attention
            with np.load(folder / case / "outputs.npz") as published:
                rows[case] = differences(model, adata, published)
                sizes[case] = model.n_parameters
                # What a wrong guess of the attention would do, to show that the comparison can fail.
                wrong = convert_published(
                    checkpoint, wheel=arguments.wheel, attention="flash" if case.endswith("explicit") else "explicit"
                )
                wrong.embed(adata)
                print(f"{case}: compared", flush=True)
                other_variant[case] = float(np.abs(adata.obsm["X_SpaF"] - published["single_cls"]).max())
        versions = json.loads((folder / "versions.json").read_text())
    print(f"{'largest absolute difference':<34}" + "".join(f"{case:>13}" for case in CASES))
    for name in rows[CASES[0]]:
        print(f"{name:<34}" + "".join(f"{rows[case][name]:>13.1e}" for case in CASES))
    print(f"{'(cls, attention guessed wrong)':<34}" + "".join(f"{other_variant[case]:>13.1e}" for case in CASES))
    largest = max(value for row in rows.values() for value in row.values())
    write_results(
        "published_parity",
        {
            "machine": describe("spaf-model", "torch", "numpy"),
            "published": versions,
            "n_cells": adata.n_obs,
            "n_pairs": adata.n_obs // 2,
            "genes_per_cell": [int(n) for n in (np.diff(adata.X.indptr).min(), np.diff(adata.X.indptr).max())],
            "n_parameters": sizes,
            "largest_absolute_difference": rows,
            "largest_absolute_difference_of_cls_with_the_wrong_attention": other_variant,
            "largest": largest,
            "tolerance": TOLERANCE,
        },
    )
    if not largest <= TOLERANCE:
        sys.exit(f"The largest difference, {largest:.1e}, is above {TOLERANCE:.0e}.")


if __name__ == "__main__":
    main()
