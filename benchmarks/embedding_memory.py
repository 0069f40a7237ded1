"""How much memory it takes to embed a million cells from a backed file.

The file (about 85 genes a cell of a panel of 5,000) is written a part at a time by one process; another opens it backed
and calls `SpatialFormer.embed` with the published configuration (58 M parameters with this panel, random weights) and
reports its peak resident memory. All cells are read, checked, ranked and batched, and the array of embeddings is
filled; but only one batch in two thousand goes through the layers, since all of them would take a day on two cores and
need no more memory::

    python benchmarks/embedding_memory.py [--cells 1000000]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import torch
from _machine import describe, write_results
from _random_cells import random_cells

from spaf_model import SpatialFormer, SpatialFormerConfig, TokenBatch, Vocabulary
from spaf_model.spatialformer import InferenceEncoder

N_GENES = 5000
MEAN_GENES = 85
PART = 20_000  # different cells; the file repeats them
ENCODED = 2000  # one batch in so many goes through the layers


def write_cells(path: Path, n_cells: int) -> None:
    """Write an h5ad of so many cells, a part at a time."""
    genes = [f"GENE{gene}" for gene in range(N_GENES)]
    part = random_cells(genes, min(PART, n_cells), MEAN_GENES, np.random.default_rng(0))
    repeats = -(-n_cells // part.n_obs)
    n_cells = repeats * part.n_obs
    columns = {name: pd.Categorical.from_codes(np.zeros(n_cells, int), [part.obs[name].iloc[0]]) for name in part.obs}
    obs = pd.DataFrame(columns, index=[f"cell{cell}" for cell in range(n_cells)])
    anndata.AnnData(obs=obs, var=part.var).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (n_cells, N_GENES)})
        indptr = np.concatenate([[0], np.cumsum(np.tile(np.diff(part.X.indptr), repeats).astype(np.int64))])
        group["indptr"] = indptr
        for name, values in (("data", part.X.data), ("indices", part.X.indices)):
            stored = group.create_dataset(name, shape=(indptr[-1],), dtype=values.dtype)
            for repeat in range(repeats):
                stored[repeat * values.size : (repeat + 1) * values.size] = values


def embed(path: Path) -> dict[str, Any]:
    """Embed the cells of a file as the docstring says; return the record of the run."""
    adata = anndata.read_h5ad(path, backed="r")
    named = {kind: [str(adata.obs[kind].iloc[0])] for kind in ("species", "assay", "tissue", "condition")}
    vocabulary = Vocabulary.build(list(adata.var_names), scale=np.ones(N_GENES), **named)
    published = SpatialFormerConfig.published().as_dict() | {"n_tokens": None}
    model = SpatialFormer(SpatialFormerConfig.from_dict(published), vocabulary)
    encode = InferenceEncoder.encode
    n_batches = 0

    def encode_some(self: InferenceEncoder, batch: TokenBatch, **options: Any) -> torch.Tensor:
        nonlocal n_batches
        n_batches += 1
        if n_batches % ENCODED == 1:
            return encode(self, batch, **options)
        return torch.zeros(len(batch.ids), 1, model.config.width)

    InferenceEncoder.encode = encode_some  # type: ignore[method-assign]
    model.embed(adata)
    record = adata.uns["spaf"]["embed"]
    assert adata.obsm["X_SpaF"].shape == (adata.n_obs, model.config.width)
    return {
        "n_cells": adata.n_obs,
        "n_parameters": model.n_parameters,
        "n_batches": n_batches,
        "n_batches_encoded": -(-n_batches // ENCODED),
        "embeddings_mb": adata.obsm["X_SpaF"].nbytes / 1e6,
        "peak_rss_mb": record["peak_rss_mb"],
        "seconds": record["seconds"],
    }


def main() -> None:
    """Write the file, embed it in a fresh process, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--written", type=Path, help="embed this file, written before, in this process")
    arguments = parser.parse_args()
    if arguments.written is not None:
        result = embed(arguments.written)
        for name, value in result.items():
            print(f"{name:<20}{value:>14,.0f}")
        write_results("embedding_memory", {"machine": describe("spaf-model", "torch", "anndata", "h5py"), **result})
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "cells.h5ad"
        write_cells(path, arguments.cells)
        subprocess.run([sys.executable, __file__, "--written", path], check=True)


if __name__ == "__main__":
    main()
