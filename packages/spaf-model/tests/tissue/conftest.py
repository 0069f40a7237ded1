from collections.abc import Callable

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

N_GENES = 40


def simulate(
    n_cells: int, *, seed: int = 0, side: float | None = None, n_genes: int = N_GENES, depth: float = 60.0
) -> anndata.AnnData:
    """Cells some 9 um apart, whose genes follow three smooth fields, and four cell types that do not care for place."""
    rng = np.random.default_rng(seed)
    side = side or 9.0 * np.sqrt(n_cells)
    places = rng.uniform(0, side, (n_cells, 2))
    fixed = np.random.default_rng(99)  # what genes do is the same for every seed
    fields = fixed.normal(0, 0.8, (3, n_genes))
    types = fixed.normal(0, 1.0, (4, n_genes))
    waves = np.stack([np.sin(places[:, 0] / 60), np.cos(places[:, 1] / 75), np.sin(places.sum(axis=1) / 90)], axis=1)
    rates = np.exp(waves @ fields + types[rng.integers(0, 4, n_cells)])
    rates *= depth / rates.sum(axis=1, keepdims=True)
    names = [f"G{gene:02d}" for gene in range(n_genes)]
    adata = anndata.AnnData(
        sp.csr_matrix(rng.poisson(rates).astype(np.int32)),
        obs=pd.DataFrame(index=[f"cell{cell}" for cell in range(n_cells)]),
        var=pd.DataFrame(index=names),
    )
    adata.obsm["spatial"] = places
    return adata


@pytest.fixture(scope="session")
def simulated() -> Callable[..., anndata.AnnData]:
    return simulate


@pytest.fixture
def slide() -> anndata.AnnData:
    return simulate(400)


@pytest.fixture
def counts(slide: anndata.AnnData) -> sp.csr_array:
    return sp.csr_array(slide.X).astype(np.float32)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
