"""Two technologies of one tissue in one frame: which embedding finds the place that both have seen.

    python benchmarks/technologies.py SPOTS.h5ad CELLS.h5ad [--write]

The tables hold counts and places in one frame (um). Embeddings read no places: components of the shared genes in three
recipes, each as it is and after Harmony, random numbers, and the completed embedding (what one lacks imputed from the
other), as it is and after Harmony. Each spot is held against the mean of the cells within 60 um; intervals are over
tiles of the tissue.
"""

import argparse
from typing import Any

import anndata
import numpy as np
from _machine import describe, write_results
from scipy import sparse

from spaf_analysis.genes import shared_genes
from spaf_analysis.integrate import baseline_embeddings, completed_embedding, harmony, registered_pairs

_LEAST_COUNTS = 10


def main() -> None:
    """Judge the embeddings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spots")
    parser.add_argument("cells")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    tables = [anndata.read_h5ad(path) for path in (options.spots, options.cells)]
    tables = [table[np.asarray(table.X.sum(axis=1)).ravel() >= _LEAST_COUNTS].copy() for table in tables]
    shared = shared_genes(*tables, ("the spots", "the cells"))
    batch = np.repeat([0, 1], [table.n_obs for table in tables])
    counts = sparse.csr_matrix(sparse.vstack([shared.counts(table.X, at) for at, table in enumerate(tables)]))
    embeddings: dict[str, np.ndarray] = {}
    for name, values in baseline_embeddings(counts).items():
        embeddings[name] = values
        if "random" not in name:
            embeddings[f"{name} + Harmony"] = harmony(values, batch)
    completed = np.vstack(completed_embedding(*tables))
    embeddings["completed"] = completed
    embeddings["completed + Harmony"] = harmony(completed, batch)
    both = anndata.AnnData(
        obs={"batch": np.where(batch == 0, "spots", "cells")},
        obsm={"spatial": np.vstack([np.asarray(table.obsm["spatial"])[:, :2] for table in tables])} | embeddings,
    )
    found = registered_pairs(both, batch="batch", keys={name: name for name in embeddings})
    print(found.to_string(), flush=True)
    results: dict[str, Any] = {
        "machine": describe("numpy", "scipy", "scikit-learn", "harmonypy"),
        "spots": tables[0].n_obs, "cells": tables[1].n_obs, "shared_genes": len(shared.names),
        "embeddings": found.to_dict(orient="records"),
    }  # fmt: skip
    if options.write:
        write_results("technologies", results)


if __name__ == "__main__":
    main()
