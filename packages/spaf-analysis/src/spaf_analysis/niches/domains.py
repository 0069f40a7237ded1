"""Domains of tissue: clusters of niche states, whose number is given or the one that halves of the tissue agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline

Method = Literal["kmeans", "mixture"]
METHODS: tuple[Method, ...] = ("kmeans", "mixture")
MAX_FITTED = 100_000  # cells that domains are fitted on; all are then assigned
_MAX_COMPARED = 20_000  # cells that halves of the tissue are fitted and compared on
_N_SPLITS = 5
_STARTS = 10
_MIXTURE_DIMENSIONS = 20
_ORDERED_BY = 3  # dimensions, in which hardly two cells are the same


class _Assigns(Protocol):
    def predict(self, state: NDArray[np.floating]) -> NDArray[np.integer]:
        """Return the domain of each cell."""


@dataclass(frozen=True)
class Domains:
    """Domains of cells.

    Attributes
    ----------
    code
        The domain of each cell: 0, 1, ... from the largest to the smallest.
    n
        Their number.
    centres
        Domains x dimensions, the mean state of each domain.
    stability
        Where the number was chosen: `n_domains`, `stability` (mean adjusted Rand index of the domains of two halves of
        the tissue), `error` (its standard error over the splits); without rows where it was given.
    """

    code: NDArray[np.int64]
    n: int
    centres: NDArray[np.float64]
    stability: pd.DataFrame


def find_domains(
    state: NDArray[np.floating],
    n_domains: int | None,
    tile: NDArray[np.integer],
    *,
    method: Method = "kmeans",
    candidates: Sequence[int] = range(3, 16),
    max_fitted: int = MAX_FITTED,
    seed: int = 0,
) -> Domains:
    """Cluster niche states.

    Parameters
    ----------
    state
        Cells x dimensions.
    n_domains
        Number of domains; None chooses it.
    tile
        Tile of tissue of each cell, by which the tissue is halved where the number is chosen.
    method
        "kmeans", or "mixture": Gaussians with full covariances in the 20 leading principal components of the states.
    candidates
        Numbers of domains to choose from.
    max_fitted
        Of more cells as many are drawn to fit on; all are assigned.
    seed
        Of draws and starts.

    Returns
    -------
    Domains
        Of all slides alike: one clustering is fitted on the cells of all of them.

    Notes
    -----
    Chosen is the largest number whose stability is within one standard error of the best: halves of the tissue, made
    of whole tiles, are clustered on their own, and both clusterings assign the cells of all.
    """
    rng = np.random.default_rng(seed)
    fitted = _drawn(len(state), max_fitted, rng)
    stability = pd.DataFrame({"n_domains": [], "stability": [], "error": []})
    if n_domains is None:
        stability = stabilities(state, tile, candidates, method=method, seed=seed)
        n_domains = _most_stable(stability)
    label = _fit(state[fitted], n_domains, method, seed).predict(state)
    code = by_size(np.asarray(label, dtype=np.int64))
    n = int(code.max()) + 1
    centres = np.stack([state[code == domain].mean(axis=0, dtype=np.float64) for domain in range(n)])
    return Domains(code, n, centres, stability)


def stabilities(
    state: NDArray[np.floating],
    tile: NDArray[np.integer],
    candidates: Sequence[int],
    *,
    method: Method = "kmeans",
    n_splits: int = _N_SPLITS,
    seed: int = 0,
) -> pd.DataFrame:
    """How well the domains of two halves of the tissue agree, for each number of domains; see `find_domains`."""
    rng = np.random.default_rng(seed)
    used = _drawn(len(state), _MAX_COMPARED, rng)
    state, tile = state[used], np.unique(tile[used], return_inverse=True)[1].ravel()
    n_tiles = int(tile.max()) + 1
    halves = []
    for _ in range(n_splits):
        in_first = rng.permutation(n_tiles) < n_tiles // 2
        halves.append(in_first[tile])
    rows = []
    for n in candidates:
        if 2 * n > min(int(half.sum()) for half in (*halves, *(~half for half in halves))):
            continue
        agreement = [
            adjusted_rand_score(
                *(_fit(state[part], n, method, seed, starts=2).predict(state) for part in (half, ~half))
            )
            for half in halves
        ]
        error = float(np.std(agreement, ddof=1) / np.sqrt(n_splits))
        rows.append({"n_domains": int(n), "stability": float(np.mean(agreement)), "error": error})
    return pd.DataFrame(rows, columns=["n_domains", "stability", "error"])


def by_size(label: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return clusters numbered 0, 1, ... without gaps from the largest to the smallest."""
    found, code, size = np.unique(label, return_inverse=True, return_counts=True)
    rank = np.empty(len(found), dtype=np.int64)
    rank[np.argsort(-size, kind="stable")] = np.arange(len(found))
    return np.asarray(rank[code.ravel()])


def _most_stable(stability: pd.DataFrame) -> int:
    if not len(stability):
        return 2
    best = stability.iloc[int(np.argmax(stability["stability"]))]
    good = stability[stability["stability"] >= best["stability"] - best["error"]]
    return int(good["n_domains"].max())


def _fit(state: NDArray[np.floating], n: int, method: Method, seed: int, *, starts: int = _STARTS) -> _Assigns:
    # Starts are drawn by position: in an order of their own, cells give the same domains however a table lists them.
    state = state[np.lexsort(state[:, :_ORDERED_BY].T)]
    if method == "kmeans":
        model: _Assigns = KMeans(n, n_init=starts, random_state=seed).fit(state)
        return model
    n_dimensions = min(_MIXTURE_DIMENSIONS, state.shape[1], len(state) - 1)
    # Rows of length 1 vary little: a larger ridge than the usual one would be all that the covariances hold.
    mixture = GaussianMixture(n, n_init=2, reg_covar=1e-4, random_state=seed)
    fitted: _Assigns = make_pipeline(PCA(n_dimensions, random_state=seed), mixture).fit(state)
    return fitted


def _drawn(n: int, at_most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.arange(n) if n <= at_most else np.sort(rng.choice(n, at_most, replace=False))
