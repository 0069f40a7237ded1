from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

CONTEXT = {"tissue": "Breast", "condition": "Disease", "species": "Human", "assay": "Xenium"}


def _make_slide(
    name: str = "slide", n_cells: int = 300, seed: int = 0, genes: int | list[str] = 20, split: str | None = None
) -> ad.AnnData:
    """Make a slide of cells in 400 x 200 um with random counts, random co-localised pairs and a gap of 60 um."""
    rng = np.random.default_rng(seed)
    names = [f"G{i}" for i in range(genes)] if isinstance(genes, int) else genes
    counts = sparse.csr_matrix(rng.poisson(0.7, (n_cells, len(names))).astype(np.int32))
    coordinates = rng.random((n_cells, 2)) * [400.0, 200.0]
    pairs = [(a, b) for a in range(len(names)) for b in range(a + 1, len(names))]
    pairs = [pairs[i] for i in rng.permutation(len(pairs))[: 3 * len(names)]]
    colocalized = sparse.csr_matrix((rng.random((n_cells, len(pairs))) < 0.2).astype(np.int8))
    x = coordinates[:, 0]
    by_region = np.where(x >= 300, "validation", np.where(x >= 240, "gap", "train"))
    obs = pd.DataFrame(
        {"slide": name, **CONTEXT, "split": by_region if split is None else split},
        index=[f"cell-{i}" for i in rng.permutation(n_cells)],
    )
    adata = ad.AnnData(counts, obs=obs.astype("category"), var=pd.DataFrame(index=names))
    adata.obsm["spatial"] = coordinates
    adata.obsm["colocalization"] = colocalized
    adata.uns["colocalization"] = {
        # Names in no particular order, as a pair has none.
        "pairs": pd.DataFrame([(names[b], names[a]) for a, b in pairs], columns=["gene_a", "gene_b"]),
        "method": "communities",
        "parameters": {},
    }
    return adata


@pytest.fixture(scope="session")
def make_slide() -> Callable[..., ad.AnnData]:
    return _make_slide
