"""Two slides of three cell types in two regions, whose embedding knows both."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse


def make_cells(n_side: int = 14, *, seed: int = 0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(n_side) * 25.0, np.arange(n_side) * 25.0))
    parts = []
    for slide in ("left", "right"):
        places = np.stack([x, y], axis=1) + rng.normal(0, 3, (x.size, 2))
        region = (places[:, 1] > y.max() / 2).astype(int)
        kind = np.where(rng.random(x.size) < 0.7, region, 2)
        profile = np.random.default_rng(7).gamma(0.6, 5.0, (3, 40))
        counts = rng.poisson(profile[kind] * (1.0 if slide == "left" else 1.3))
        part = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)))
        part.obs_names = [f"{slide}{cell}" for cell in range(x.size)]
        part.obs["kind"], part.obs["region"] = [f"k{one}" for one in kind], [f"r{one}" for one in region]
        part.obs["slide"] = slide
        part.obsm["spatial"] = places
        part.obsm["X_good"] = np.eye(3)[kind] + 0.3 * np.eye(3)[region] + rng.normal(0, 0.2, (x.size, 3))
        part.obsm["X_noise"] = rng.normal(size=(x.size, 4))
        parts.append(part)
    table = ad.concat(parts)
    table.var_names = pd.Index([f"G{gene}" for gene in range(40)])
    return table


@pytest.fixture(scope="session")
def cells() -> ad.AnnData:
    return make_cells()


@pytest.fixture
def folder(cells, tmp_path):
    """A folder with the cells and a configuration that asks little of them."""
    cells.write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "benchmark.toml").write_text(TOML)
    return tmp_path


TOML = """
replicates = 20

[data.tissue]
path = "cells.h5ad"
label = "kind"
region = "region"
spot = 60

[methods.good]
key = "X_good"

[methods.noise]
key = "X_noise"

[tasks.identity]
[tasks.annotation]
"""
