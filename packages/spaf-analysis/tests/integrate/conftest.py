"""Cells of three types in three batches, whose counts differ by batch."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse


def make_batches(n_cells: int = 360, *, shift: float = 0.7, n_genes: int = 60, seed: int = 0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    kind, batch = rng.integers(3, size=n_cells), rng.integers(3, size=n_cells)
    profiles = rng.gamma(0.6, 1, (3, n_genes)) * 4
    effects = np.exp(rng.normal(0, shift, (3, n_genes)))
    counts = rng.poisson(profiles[kind] * effects[batch])
    adata = ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(
            {
                "kind": pd.Categorical([f"t{one}" for one in kind]),
                "batch": pd.Categorical([f"b{one}" for one in batch]),
            },
            index=[f"c{cell}" for cell in range(n_cells)],
        ),
        var=pd.DataFrame(index=[f"G{gene}" for gene in range(n_genes)]),
    )
    # An embedding that knows the type and hardly the batch.
    adata.obsm["X_SpaF"] = 3 * np.eye(3)[kind] + rng.normal(0, 0.5, (n_cells, 3)) + 0.2 * batch[:, None]
    return adata


@pytest.fixture(scope="session")
def batches() -> ad.AnnData:
    return make_batches()
