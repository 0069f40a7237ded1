"""Tissues of several donors with planted niches."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

# Three niches with the same three cell types in other proportions.
PROPORTIONS = np.array([[0.7, 0.2, 0.1], [0.1, 0.7, 0.2], [0.2, 0.1, 0.7]])
RATES = np.array([[9, 9, 1, 1, 1, 1, 3, 3], [1, 1, 9, 9, 1, 1, 3, 3], [1, 1, 1, 1, 9, 9, 3, 3]])


def make_tissues(
    n_donors: int = 2, *, side: int = 24, effect: bool = False, batch: float = 0.0, seed: int = 0
) -> ad.AnnData:
    """Make one slide a donor: stripes of three niches. Of the effect, the first half of donors have more of type t0 in
    niche n1, and gene G6 in all cells of it.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for donor in range(n_donors):
        xy = np.stack(np.meshgrid(np.arange(side) * 10.0, np.arange(side) * 10.0), axis=-1).reshape(-1, 2)
        xy = xy + rng.normal(0, 2, xy.shape)
        niche = np.clip((xy[:, 0] // (side * 10 / 3)).astype(int), 0, 2)
        changed = effect and donor < n_donors // 2
        mixture = PROPORTIONS.copy()
        if changed:
            mixture[1] = [0.35, 0.5, 0.15]
        kind = np.array([rng.choice(3, p=mixture[one]) for one in niche])
        rates = RATES[kind] * np.exp(batch * rng.normal(size=8)) * rng.gamma(20, 1 / 20, 8)
        if changed:
            rates[niche == 1, 6] *= 4
        parts.append(
            ad.AnnData(
                sparse.csr_matrix(rng.poisson(rates).astype(np.float32)),
                obs=pd.DataFrame(
                    {
                        "slide": f"s{donor}", "donor": f"d{donor}", "type": [f"t{one}" for one in kind],
                        "region": [f"n{one}" for one in niche],
                        "condition": "ill" if donor < n_donors // 2 else "well",
                    },
                    index=[f"{donor}_{cell}" for cell in range(len(xy))],
                ),
                var=pd.DataFrame(index=[f"G{gene}" for gene in range(8)]),
                obsm={"spatial": xy, "X_SpaF": np.eye(3)[kind] + rng.normal(0, 0.3, (len(xy), 3))},
            )
        )  # fmt: skip
    return ad.concat(parts)


@pytest.fixture(scope="session")
def tissues() -> ad.AnnData:
    """Two donors without any effect."""
    return make_tissues()


@pytest.fixture(scope="session")
def patients() -> ad.AnnData:
    """Ten donors, of which five are ill."""
    return make_tissues(10, side=18, effect=True)
