"""Cells of a tissue and of a reference that live on the same few axes, counted by two technologies."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

N_SHARED, N_OTHERS, N_RARE = 60, 30, 6


def counted(rng: np.random.Generator, states: np.ndarray, loadings: np.ndarray, rate: np.ndarray) -> sparse.csr_matrix:
    expected = np.exp(states @ loadings) * rate * rng.gamma(8.0, 1 / 8.0, (len(states), 1))
    return sparse.csr_matrix(rng.poisson(expected).astype(np.float32))


@pytest.fixture(scope="session")
def made() -> dict[str, np.ndarray]:
    """States, loadings and counts; of the others the last six are noise in the query."""
    rng = np.random.default_rng(0)
    n_genes = N_SHARED + N_OTHERS
    loadings = rng.normal(0, 0.5, (4, n_genes)) * rng.gamma(1.0, 1.0, n_genes)
    loadings[:, -N_RARE:] = 0.0
    rate = rng.lognormal(0.3, 0.7, n_genes)
    rate[-N_RARE:] = 0.3
    states = rng.normal(size=(500, 4)), rng.normal(size=(400, 4))
    platform = rng.lognormal(0.0, 0.4, n_genes)
    query = counted(rng, states[0], loadings, rate * platform)
    return {"query": query, "reference": counted(rng, states[1], loadings, rate), "states": states[0]}


@pytest.fixture
def tables(made: dict[str, np.ndarray]) -> tuple[ad.AnnData, ad.AnnData]:
    """The spatial table, which has the shared genes alone, and the reference, its genes in another order."""
    names = [f"G{gene}" for gene in range(N_SHARED + N_OTHERS)]
    rng = np.random.default_rng(1)
    spatial = ad.AnnData(
        made["query"][:, :N_SHARED].copy(), obs=pd.DataFrame(index=[f"c{i}" for i in range(500)]),
        var=pd.DataFrame(index=names[:N_SHARED]),
    )  # fmt: skip
    spatial.obsm["spatial"] = rng.uniform(0, 500, (500, 2))
    reference = ad.AnnData(
        made["reference"][:, ::-1].tocsr(), obs=pd.DataFrame(index=[f"r{i}" for i in range(400)]),
        var=pd.DataFrame(index=names[::-1]),
    )  # fmt: skip
    return spatial, reference
