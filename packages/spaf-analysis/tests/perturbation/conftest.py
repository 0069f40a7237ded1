"""Tissue of two types, and a scorer whose interactions are known: no model is trained."""

from collections.abc import Iterator

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from spaf_model import PerturbedPair

N_GENES = 30


class BilinearScore:
    """``x W y`` of the log counts of two cells: the interaction of genes i and j is ``x_i W_ij y_j``."""

    def __init__(self, weights: np.ndarray, *, compares_states: bool = True) -> None:
        self.weights = weights
        self.compares_states = compares_states
        self.source = "toy"
        self.asked: list[np.ndarray | None] = []

    def perturb_pairs(self, adata, left, right, *, wanted=None, **options) -> Iterator[PerturbedPair]:
        self.asked.append(wanted)
        counts = np.log1p(np.asarray(adata.X.todense()))
        for a, b in zip(left, right, strict=True):
            x, y = counts[a], counts[b]
            i, j = np.flatnonzero(x), np.flatnonzero(y)
            both = x[:, None] * self.weights * y
            interaction = both[np.ix_(i, j)]
            if wanted is not None and not self.compares_states:
                interaction = np.where(wanted[np.ix_(i, j)], interaction, np.nan)
            yield PerturbedPair(both.sum(), i, j, -both.sum(axis=1)[i], -both.sum(axis=0)[j], interaction)


def _table(counts: np.ndarray, of_type: np.ndarray, xy: np.ndarray) -> ad.AnnData:
    adata = ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(
            {"type": pd.Categorical(np.array(["A", "B"])[of_type])}, index=[f"c{i}" for i in range(len(xy))]
        ),
        var=pd.DataFrame(index=[f"GENE{i}" for i in range(N_GENES)]),
    )
    adata.obsm["spatial"] = xy
    return adata


def make_tissue(seed: int, *, n_cells: int = 1600) -> ad.AnnData:
    """Cells of types A and B anywhere in a square mm: the types alone decide what a cell has."""
    rng = np.random.default_rng(seed)
    of_type = rng.integers(0, 2, n_cells)
    rates = rng.gamma(2.0, 1.0, (2, N_GENES)) + 0.5
    level = rng.normal(0, 0.5, (n_cells, N_GENES))
    return _table(rng.poisson(rates[of_type] * np.exp(level)), of_type, rng.random((n_cells, 2)) * 1000)


def make_pairs(
    seed: int, *, n_pairs: int, planted: list[tuple[int, int]], correlation: float
) -> tuple[ad.AnnData, pd.DataFrame]:
    """Near and far pairs of cells of A and B; in near ones the amounts of planted genes go together."""
    rng = np.random.default_rng(seed)
    n = 2 * n_pairs
    rates = rng.gamma(4.0, 1.0, (2, N_GENES)) + 1.0
    left, right = rng.normal(0, 0.5, (2, n, N_GENES))
    for first, second in planted:
        alone = np.sqrt(1 - correlation**2)
        right[:n_pairs, second] = correlation * left[:n_pairs, first] + alone * right[:n_pairs, second]
    counts = np.concatenate([rng.poisson(rates[0] * np.exp(left)), rng.poisson(rates[1] * np.exp(right))])
    centre = rng.random((n, 2)) * 500
    apart = np.where(np.arange(n)[:, None] < n_pairs, 10.0, 100.0) * np.array([1.0, 0.0])
    adata = _table(counts, np.repeat([0, 1], n), np.concatenate([centre, centre + apart]))
    names = adata.obs_names.to_numpy()
    return adata, pd.DataFrame({"left": names[:n], "right": names[n:], "near": np.arange(n) < n_pairs})


@pytest.fixture
def score() -> BilinearScore:
    """A scorer that compares states."""
    return BilinearScore(np.random.default_rng(0).normal(size=(N_GENES, N_GENES)))


@pytest.fixture
def bilinear():
    """Make a scorer."""
    return lambda **options: BilinearScore(np.random.default_rng(0).normal(size=(N_GENES, N_GENES)), **options)


@pytest.fixture(name="make_tissue")
def tissue_maker():
    """Make tissue in which types alone decide."""
    return make_tissue


@pytest.fixture(name="make_pairs")
def pairs_maker():
    """Make pairs of cells with planted interactions."""
    return make_pairs
