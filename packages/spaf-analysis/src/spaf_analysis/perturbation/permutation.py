"""Near against far pairs of cells, by permuting which is which within strata of type pair and tile.

What is compared is one value a pair of cells. Within a stratum all pairs of cells that have a value could change places
if nearness meant nothing, so the sum of what near pairs have above the mean of their stratum is held against its
permutations there. The cells of all pairs must be different ones: values that share a cell cannot be exchanged alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import false_discovery_control, genpareto

from spaf_analysis.perturbation._kernels import permute_within_strata

_ENOUGH = 20  # permutations as extreme as what was observed, after which p is known well enough
_TAIL = 250  # largest permuted statistics that a tail is fitted to
_FITTED_BELOW = 10  # fewer permutations as extreme than these: p is that of the tail
_TAILS_AT_ONCE = 512


@dataclass(frozen=True)
class NearFarTest:
    """A comparison of each feature.

    Attributes
    ----------
    z
        Sum of what near pairs have above the mean of their stratum, over its standard deviation under permutation;
        NaN where nothing could be compared.
    difference
        The same as a difference of means: near less far, strata weighted by how well they compare.
    p, fdr
        Two-sided; false discovery rate (Benjamini-Hochberg) over all that were compared.
    n_near, n_far
        Pairs of cells that counted: of strata that have both.
    is_fitted
        Whether p is that of a fitted tail.
    n_permutations
        At most so many of a feature.
    """

    z: NDArray[np.float64]
    difference: NDArray[np.float64]
    p: NDArray[np.float64]
    fdr: NDArray[np.float64]
    n_near: NDArray[np.int64]
    n_far: NDArray[np.int64]
    is_fitted: NDArray[np.bool_]
    n_permutations: int

    @property
    def is_tested(self) -> NDArray[np.bool_]:
        """Which features have a p."""
        return np.isfinite(self.p)


def compare(
    values: NDArray[np.floating],
    near: NDArray[np.bool_],
    stratum: NDArray[np.integer],
    *,
    n_permutations: int,
    min_pairs: int = 2,
    seed: int = 0,
) -> NearFarTest:
    """Compare near with far pairs of cells, feature by feature.

    Parameters
    ----------
    values
        (n_pairs, n_features); NaN where a pair of cells has no value. Pairs without a value are not exchanged.
    near
        (n_pairs,), which pairs of cells are near.
    stratum
        (n_pairs,), within which near and far are permuted.
    n_permutations
        Of a feature, at most: it is done once 20 were as extreme as what was observed, and p is then 20 over the number
        made (Besag and Clifford 1991).
    min_pairs
        Near and far pairs that a feature must have.
    seed
        The permutations of a feature do not depend on which others there are.

    Returns
    -------
    NearFarTest
        Where fewer than 10 of all permutations were as extreme, p is that of a generalised Pareto distribution of the
        250 largest squared statistics (Knijnenburg et al. 2009, Bioinformatics 25, i161), fitted by
        probability-weighted moments (Hosking and Wallis 1987) with a shape of at least 0, so that no p is 0, and at
        least one over the number of different permutations.

    Notes
    -----
    Time grows with pairs of cells times permutations made; a feature of no effect takes about 20 / p of these.
    """
    order = np.argsort(stratum, kind="stable")
    ordered = np.ascontiguousarray(np.asarray(values, dtype=np.float32).T[:, order])
    is_near = np.ascontiguousarray(near[order])
    starts = np.concatenate([[0], np.cumsum(np.unique(stratum, return_counts=True)[1])]).astype(np.int64)
    n_features = ordered.shape[0]
    found = np.zeros((n_features, 6))
    nothing = np.zeros((n_features, 0))
    every = np.arange(n_features)
    permute_within_strata(ordered, is_near, starts, every, n_permutations, _ENOUGH, seed, found, nothing)
    total, variance, extreme, made = found[:, 0], found[:, 1], found[:, 4], found[:, 5]
    n_near, n_far = (found[:, column].astype(np.int64) for column in (2, 3))
    tested = (made > 0) & (np.minimum(n_near, n_far) >= min_pairs)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(tested, total / np.sqrt(variance), np.nan)
        p = np.where(extreme >= _ENOUGH, extreme / made, (extreme + 1) / (made + 1))
        weight = _weights(ordered, is_near, starts)
        difference = np.where(tested, total / weight, np.nan)
    p = np.where(tested, np.minimum(p, 1.0), np.nan)
    fitted = tested & (extreme < _FITTED_BELOW) & (made == n_permutations) & (n_permutations >= 4 * _TAIL)
    for start in range(0, int(fitted.sum()), _TAILS_AT_ONCE):
        some = np.flatnonzero(fitted)[start : start + _TAILS_AT_ONCE]
        again, drawn = np.zeros((some.size, 6)), np.zeros((some.size, n_permutations))
        permute_within_strata(ordered, is_near, starts, some, n_permutations, n_permutations + 1, seed, again, drawn)
        smallest = np.exp(-_log_permutations(ordered[some], is_near, starts))
        p[some] = np.maximum(tail_probability(drawn, z[some] ** 2), smallest)
    fdr = np.full(n_features, np.nan)
    if tested.any():
        fdr[tested] = false_discovery_control(p[tested])
    return NearFarTest(z, difference, p, fdr, n_near, n_far, fitted, n_permutations)


def tail_probability(drawn: NDArray[np.float64], observed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the chance of at least the observed statistics by a generalised Pareto distribution of the drawn ones.

    Parameters
    ----------
    drawn
        (n_features, n_permutations) squared statistics.
    observed
        (n_features,), of the same kind.
    """
    n = drawn.shape[1]
    largest = np.sort(drawn, axis=1)[:, n - _TAIL - 1 :]
    threshold, excess = largest[:, 0], largest[:, 1:] - largest[:, :1]
    mean = excess.mean(axis=1)
    # E[x (1 - F)], by the ranks of the excesses, which are ascending.
    weighted = (excess * (_TAIL - 1 - np.arange(_TAIL)) / (_TAIL - 1)).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = 2 - mean / (mean - 2 * weighted)
        scale = 2 * mean * weighted / (mean - 2 * weighted)
    bounded = ~(shape > 0)  # a bounded tail would give chances of 0
    shape, scale = np.where(bounded, 0.0, shape), np.where(bounded, mean, scale)
    beyond = genpareto.sf(observed - threshold, shape, scale=np.maximum(scale, 1e-300))
    return np.asarray(_TAIL / n * beyond)


def _counts(
    ordered: NDArray[np.float32], near: NDArray[np.bool_], starts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return near pairs and all pairs with a value, features x strata."""
    has = np.isfinite(ordered)
    n = np.add.reduceat(has, starts[:-1], axis=1, dtype=np.float64)
    return np.add.reduceat(has & near, starts[:-1], axis=1, dtype=np.float64), n


def _weights(ordered: NDArray[np.float32], near: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what the sums must be divided by to be differences of means: sums over strata of near x far / all."""
    n_near, n = _counts(ordered, near, starts)
    return np.asarray((n_near * (n - n_near) / np.maximum(n, 1)).sum(axis=1))


def _log_permutations(
    ordered: NDArray[np.float32], near: NDArray[np.bool_], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the logarithm of how many different permutations a feature has."""
    n_near, n = _counts(ordered, near, starts)
    return np.asarray((gammaln(n + 1) - gammaln(n_near + 1) - gammaln(n - n_near + 1)).sum(axis=1))
