"""Gene pairs that mark groups: false alarms where pairs carry nothing beyond their genes, and markers of real cells.

    python benchmarks/gene_pairs.py [--transcripts TRANSCRIPTS.parquet --profiles PROFILES.csv] [--sets 20] [--write]

Simulated are two groups of 600 cells together, with 16 genes whose Poisson rates differ between groups and whose cells
differ in size; a pair is seen the more often the more both genes have, with a z of no meaning. Real cells are of Xenium
(types by the profile of highest correlation), with z of enrichment; group labels as they are, and dealt anew.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _machine import describe, write_results
from ligrec import annotated, of_transcripts
from scipy import sparse

import spaf_data
from spaf_analysis import tl
from spaf_analysis.gene_pairs import pair_markers


def simulated(seed: int, n: int = 600, n_genes: int = 16) -> np.ndarray:
    """Return p of all pairs of one set."""
    rng = np.random.default_rng(seed)
    is_group = rng.random(n) < 0.4
    counts = rng.poisson(rng.gamma(2.0, 1.0, (2, n_genes))[is_group.astype(int)] * rng.gamma(5.0, 0.2, (n, 1)))
    genes = np.stack(np.triu_indices(n_genes, 1), axis=1)
    both = np.minimum(counts[:, genes[:, 0]], counts[:, genes[:, 1]])
    z = np.where(rng.random(both.shape) < 1 - 0.5**both, rng.normal(0, 1, both.shape), 0.0)
    return pair_markers(sparse.csc_matrix(counts.astype(float)), sparse.csc_matrix(z), genes, is_group).p


def of_window(transcripts: Path, profiles: Path) -> dict[str, Any]:
    """Return markers of the types of real cells, and of the same labels dealt anew."""
    adata = annotated(*of_transcripts(transcripts), pd.read_csv(profiles, index_col=0))
    rows = pd.read_parquet(transcripts)
    rows = rows[rows["cell_id"] >= 0]
    gene = pd.Categorical(rows["feature_name"].astype(str))
    cells, cell = np.unique(rows["cell_id"], return_inverse=True)
    read = spaf_data.Transcripts.from_arrays(
        x=rows["x_location"].to_numpy(), y=rows["y_location"].to_numpy(), gene=gene.codes.astype(int),
        cell=cell, genes=list(gene.categories), cells=np.arange(len(cells)).astype(str).tolist(),
    )  # fmt: skip
    spaf_data.colocalize(adata, read, method="enrichment", key_added="colocalization_enrichment")
    found: dict[str, Any] = {"cells": adata.n_obs}
    adata.obs["dealt anew"] = np.random.default_rng(0).permutation(adata.obs["type"])
    for column in ("type", "dealt anew"):
        started = time.process_time()
        tl.gene_pair_markers(adata, groupby=column, min_cells=50)
        stored = adata.uns["gene_pair_markers"]
        found[column] = {name: stored[name] for name in ("n_tested", "n_called", "n_presence", "n_vanished")}
        found[column]["share of p below .05"] = float((stored["table"]["p"] < 0.05).mean())
        found[column]["core_seconds"] = time.process_time() - started
        print(column, found[column], flush=True)
    return found


def main() -> None:
    """Simulate, and look at real cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transcripts", type=Path)
    parser.add_argument("--profiles", type=Path)
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    started = time.process_time()
    p = np.concatenate([simulated(seed) for seed in range(arguments.sets)])
    found: dict[str, Any] = {
        "machine": describe("spaf-analysis", "numpy", "scipy"),
        "simulated": {"tests": len(p), "share of p below .05": float(np.mean(p < 0.05))},
    }
    found["simulated"]["core_seconds"] = time.process_time() - started
    print(found["simulated"], flush=True)
    if arguments.transcripts:
        found["real"] = of_window(arguments.transcripts, arguments.profiles)
    if arguments.write:
        write_results("gene_pairs", found)


if __name__ == "__main__":
    main()
