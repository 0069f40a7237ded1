"""Attention from gene to gene beside what explains it: position, detection, correlation, shuffled pairs of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

if TYPE_CHECKING:
    from spaf_model import GeneAttention

BETWEEN = ("left_to_right", "right_to_left")
DIRECTIONS = (*BETWEEN, "within_left", "within_right")


@dataclass(frozen=True)
class GeneWeights:
    """Mean attention of one direction, of the pairs of genes that were seen.

    Attributes
    ----------
    query, key
        Columns of the asking gene and of the one it looks at, ascending.
    weight
        Mean over the pairs of cells that have both.
    n_pairs
        How many these are.
    n_genes
        Of the table.
    """

    query: NDArray[np.int64]
    key: NDArray[np.int64]
    weight: NDArray[np.float64]
    n_pairs: NDArray[np.int64]
    n_genes: int

    @classmethod
    def of(cls, attention: GeneAttention, direction: str) -> GeneWeights:
        """Take one direction of what a model gave."""
        weights, n_pairs = attention.weights[direction].tocsr(), attention.n_pairs[direction].tocsr()  # type: ignore[index]
        query = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
        return cls(
            query, weights.indices.astype(np.int64), weights.data.astype(np.float64), n_pairs.data.astype(np.int64),
            weights.shape[0],
        )  # fmt: skip

    @property
    def codes(self) -> NDArray[np.int64]:
        """One number for each pair of genes, ascending."""
        return self.query * self.n_genes + self.key

    def weight_of(self, codes: NDArray[np.int64], *, min_pairs: int = 1) -> NDArray[np.float64]:
        """Return the weight of some pairs of genes; NaN where fewer pairs of cells have both."""
        found = np.full(len(codes), np.nan)
        own = self.codes
        if not own.size:
            return found
        place = np.minimum(np.searchsorted(own, codes), own.size - 1)
        there = (own[place] == codes) & (self.n_pairs[place] >= min_pairs)
        found[there] = self.weight[place[there]]
        return found


def against_shuffled(
    weight: NDArray[np.float64], shuffled: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Hold weights against those of shuffled pairs of cells.

    Parameters
    ----------
    weight
        (n,), of the pairs as they are.
    shuffled
        (n_shuffles, n), of the same cells with other partners.

    Returns
    -------
    tuple of numpy.ndarray
        Mean of the shuffled ones; the weight less that mean over its standard error, which has Student's distribution
        of n_shuffles - 1 degrees of freedom if partners mean nothing; p, two-sided. NaN where a shuffle has no value.
    """
    n = len(shuffled)
    mean, deviation = shuffled.mean(axis=0), shuffled.std(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(deviation > 0, (weight - mean) / (deviation * np.sqrt(1 + 1 / n)), np.nan)
    return mean, t, 2 * stats.t.sf(np.abs(t), n - 1)


def explained(weight: NDArray[np.float64], controls: Sequence[NDArray[np.float64]]) -> float:
    """Return the share of the variance of weights that a linear regression on controls explains; NaN of too few."""
    return 1.0 - _share_left(weight, residual(weight, controls))


def residual(weight: NDArray[np.float64], controls: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return what a linear regression on controls leaves of weights; NaN where one of them has no value."""
    design = np.column_stack([np.ones(len(weight)), *controls])
    known = np.isfinite(weight) & np.isfinite(design).all(axis=1)
    left = np.full(len(weight), np.nan)
    if known.sum() > design.shape[1]:
        scale = np.maximum(np.abs(design[known]).max(axis=0), 1e-300)  # controls are of very different size
        fitted = np.linalg.lstsq(design[known] / scale, weight[known], rcond=None)[0]
        left[known] = weight[known] - design[known] / scale @ fitted
    return left


def _share_left(weight: NDArray[np.float64], left: NDArray[np.float64]) -> float:
    known = np.isfinite(left)
    variance = float(weight[known].var()) if known.sum() > 2 else 0.0
    return float(left[known].var()) / variance if variance > 0 else float("nan")


def correlations(
    one: NDArray[np.float64], other: NDArray[np.float64], query: NDArray[np.int64], key: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the correlation of the amounts of pairs of genes over pairs of cells.

    Parameters
    ----------
    one, other
        (n_pairs, n_genes), amounts in the cell of the query and of the key.
    query, key
        The genes.
    """
    standard = []
    for amounts in (one, other):
        centred = amounts - amounts.mean(axis=0)
        size = np.sqrt((centred**2).mean(axis=0))
        standard.append(np.divide(centred, size, out=np.zeros_like(centred), where=size > 0))
    table = standard[0].T @ standard[1] / len(one)
    return np.asarray(table[query, key])


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the rank correlation of what both know; NaN of fewer than three or of no variation."""
    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < 3 or np.ptp(one[known]) == 0 or np.ptp(other[known]) == 0:
        return float("nan")
    return float(stats.spearmanr(one[known], other[known]).statistic)
