"""The niche state of several models, by k-means against regions that people have drawn, beside averaged components.

    python benchmarks/niche_state.py NAME=SLIDE.h5ad:COLUMN .. [--seeds 0 1 2 3 4] [--without WORD ..] [--write]

A slide has counts in X, places in obsm["spatial"] and the regions in a column of obs; cells without one are left out.
Nothing is held out and nothing is fitted to the regions but their number, which k-means is given. For each way to make
a state of a cell the adjusted Rand index of k-means is the mean over the seeds, with the least and the largest. Rows:

- ``... PCA``: 30 components of the slide, of log counts, z-scores or Pearson residuals, alone and averaged twice over a
  cell and its nearest ones (15, of spots 18);
- ``niche of ...``: what ``embed(..., niche=True)`` gives: of the own-tissue model by its own definition, and of any
  embedding (two scales side by side), here log PCA, the joint embedding and place of the own-tissue model, and a
  SpatialFormer with random weights.

NAME goes into the results, the path does not.
"""

import argparse
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from _machine import describe, write_results
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from spaf_model import SpatialFormer, SpatialFormerConfig, TissueModel, Vocabulary
from spaf_model.niche import N_CELLS, N_SPOTS, niche_states, surroundings
from spaf_model.spacing import lie_on_grid
from spaf_model.tissue import PearsonResiduals, ZScores
from spaf_model.tissue.components import principal_components

_COMPONENTS = 30

States = NDArray[np.float32]


def states_of(slide: anndata.AnnData) -> dict[str, States]:
    """Return the ways to make a state of each cell, by name."""
    counts = sparse.csr_array(slide.X).astype(np.float32)
    depth = np.asarray(counts.sum(axis=1)).reshape(-1)
    log = np.log1p(counts.toarray() / np.maximum(depth, 1)[:, None] * np.median(depth))
    parts: dict[str, States] = {"log PCA": PCA(min(_COMPONENTS, slide.n_vars), random_state=0).fit_transform(log)}
    for name, kind in {"z-scored PCA": ZScores, "Pearson PCA": PearsonResiduals}.items():
        standardised = kind(counts)
        parts[name] = standardised.project(principal_components([standardised], _COMPONENTS)[0])
    places = np.asarray(slide.obsm["spatial"], dtype=np.float64)
    k = N_SPOTS if lie_on_grid(places) else N_CELLS
    result = dict(parts)
    for name, part in parts.items():
        result[f"{name} averaged twice"] = surroundings(part, places, k)[:, part.shape[1] :]
    one = np.zeros(slide.n_obs, dtype=np.int64)
    result["niche of log PCA"] = niche_states(parts["log PCA"], places, one)
    model = TissueModel.fit(slide)
    model.embed(slide, parts=True, niche=True)
    result["own-tissue embedding"] = slide.obsm["X_SpaF"]
    result["niche of the own-tissue model"] = slide.obsm["X_SpaF_niche"]
    result["niche of its embedding"] = niche_states(slide.obsm["X_SpaF"], places, one)
    result["niche of its place"] = niche_states(slide.obsm["X_SpaF_place"], places, one)
    vocabulary = Vocabulary.build(list(slide.var_names), scale=np.ones(slide.n_vars))
    random = SpatialFormer(SpatialFormerConfig(width=32, n_layers=1, n_heads=4), vocabulary, seed=0)
    context = dict.fromkeys(("tissue", "condition", "species", "assay"), "unknown")
    random.embed(slide, niche=True, key_added="random", method="gene", **context)
    result["niche of a random SpatialFormer"] = slide.obsm["random_niche"]
    return result


def judged(states: States, regions: NDArray[np.str_], seeds: list[int]) -> dict[str, float]:
    """Return the adjusted Rand index of k-means over seeds."""
    k = len(set(regions.tolist()))
    values = [
        adjusted_rand_score(regions, KMeans(k, n_init=10, random_state=seed).fit_predict(states)) for seed in seeds
    ]
    return {"ari": float(np.mean(values)), "least": float(min(values)), "largest": float(max(values))}


def main() -> None:
    """Judge slides and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="+", metavar="NAME=SLIDE.h5ad:COLUMN")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--without", nargs="+", default=["Excluded", "nan"], help="regions that are none")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for text in options.slides:
        name, _, rest = text.partition("=")
        path, _, column = rest.rpartition(":")
        slide = anndata.read_h5ad(Path(path))
        has_region = ~slide.obs[column].astype(str).isin(options.without).to_numpy()
        slide = slide[has_region & (np.asarray(slide.X.sum(axis=1)).reshape(-1) > 0)].copy()
        regions = slide.obs[column].astype(str).to_numpy().astype(np.str_)
        rows = {row: judged(states, regions, options.seeds) for row, states in states_of(slide).items()}
        results[name] = {"n_cells": slide.n_obs, "n_regions": len(set(regions.tolist())), "rows": rows}
        print(f"{name}: {slide.n_obs} cells, {len(set(regions.tolist()))} regions")
        for row, value in sorted(rows.items(), key=lambda item: -item[1]["ari"]):
            print(f"  {row:34s} {value['ari']:.3f} ({value['least']:.3f} to {value['largest']:.3f})")
    if options.write:
        write_results("niche_state", {"seeds": options.seeds, "slides": results, "machine": describe()})


if __name__ == "__main__":
    main()
