"""Tissue with types in patches, and one pair of genes planted beside each other within each type."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse


def make_tissue(seed=0, *, n=900, n_genes=30, planted=True, n_donors=1):
    """Cells some 13 um apart; genes follow types, and types follow patches of 90 um; nothing else unless planted."""
    parts = []
    for donor in range(n_donors):
        rng = np.random.default_rng((seed, donor))
        side = np.sqrt(n * 150.0)
        xy = rng.random((n, 2)) * side
        patch = (xy // 90).astype(int)
        kind = (patch.sum(axis=1) + (rng.random(n) < 0.25)) % 3
        rates = np.random.default_rng(99).gamma(1.0, 2.0, (3, n_genes)) + 0.2
        means = rates[kind]
        if planted:  # discs of 25 um in which cells of any type send and receive
            centres = rng.random((n // 75, 2)) * side
            near = (np.linalg.norm(xy[:, None] - centres[None], axis=2) < 25).any(axis=1)
            means[:, 0] = np.where(near & (rng.random(n) < 0.6), 9.0, 0.4)
            means[:, 1] = np.where(near & (rng.random(n) < 0.6), 9.0, 0.4)
        counts = sparse.csr_matrix(rng.poisson(means).astype(np.float32))
        obs = {"type": [f"t{one}" for one in kind], "donor": f"d{donor}", "slide": f"s{donor}"}
        part = ad.AnnData(counts, obs=pd.DataFrame(obs, index=[f"{donor}-{cell}" for cell in range(n)]))
        part.var_names = [f"G{gene}" for gene in range(n_genes)]
        part.obsm["spatial"] = xy
        parts.append(part)
    return ad.concat(parts)


PAIRS = pd.DataFrame(
    {
        "ligand": ["G0", "G2", "G4", "G6_G7", "G8", "ELSEWHERE", "G9"],
        "receptor": ["G1", "G3", "G5", "G10", "G11_G12", "G1", "ELSEWHERE"],
    }
)


@pytest.fixture(scope="session")
def planted():
    return make_tissue()
