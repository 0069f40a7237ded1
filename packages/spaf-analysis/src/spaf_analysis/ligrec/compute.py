"""Ligand-receptor pairs against chance within type and tile, and among expression-matched gene pairs, on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import false_discovery_control

from spaf_analysis.ligrec.moments import Moments, upper_tail


@dataclass(frozen=True)
class PairTests:
    """Each pair, against both kinds of chance.

    Attributes
    ----------
    observed, expected
        Of all units; what is expected is the larger of both ways to permute.
    z, p, fdr
        Against permutations within strata, one-sided; of the two ways (the ligand permuted, or the receptor) the one
        that says less counts.
    ratio
        Observed over expected.
    ratio_matched
        The same of all expression-matched pairs together.
    rank
        Share of the matched pairs whose z is smaller.
    p_matched, fdr_matched
        Share of the matched pairs, and the pair itself, whose z is as large.
    n_matched
        Matched pairs.
    of_units
        Units x pairs: the ratio of a unit less that of its matched pairs; NaN where nothing is expected.
    """

    observed: NDArray[np.float64]
    expected: NDArray[np.float64]
    z: NDArray[np.float64]
    p: NDArray[np.float64]
    fdr: NDArray[np.float64]
    ratio: NDArray[np.float64]
    ratio_matched: NDArray[np.float64]
    rank: NDArray[np.float64]
    p_matched: NDArray[np.float64]
    fdr_matched: NDArray[np.float64]
    n_matched: NDArray[np.int64]
    of_units: NDArray[np.float64]


def feature_values(values: sparse.csr_matrix, features: Sequence[tuple[int, ...]]) -> sparse.csr_matrix:
    """Return cells x features: a gene by itself, a complex by the smallest value of its subunits.

    Parameters
    ----------
    values
        Cells x genes, none negative.
    features
        Columns that make each feature.
    """
    columns = sparse.csc_matrix(values)
    found = columns[:, [feature[0] for feature in features]]
    further = 1
    while any(len(feature) > further for feature in features):
        # One that has no further subunit is compared with its first, which changes nothing.
        found = found.minimum(columns[:, [feature[further % len(feature)] for feature in features]])
        further += 1
    return sparse.csr_matrix(found)


def matched_genes(
    level: NDArray[np.floating], wanted: NDArray[np.floating], n_matched: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each wanted level, the genes nearest to it by the logarithm of their mean: (n_wanted, n), sorted.

    Parameters
    ----------
    level
        Mean of each gene; one of which nothing is seen is none's match.
    wanted
        Mean of each feature.
    n_matched
        Genes a feature, at most.

    Returns
    -------
    tuple of numpy.ndarray
        The genes; and all that are the match of any.
    """
    seen = np.flatnonzero(level > 0)
    place = np.log(level[seen])
    distance = np.abs(place[None] - np.log(np.maximum(wanted, 1e-300))[:, None])
    nearest = seen[np.argsort(distance, axis=1, kind="stable")[:, :n_matched]]
    return nearest, np.unique(nearest)


def judge_pairs(
    moments: Moments,
    pairs: NDArray[np.integer],
    pools: NDArray[np.integer],
    *,
    subunits: Sequence[frozenset[int]],
    known: frozenset[tuple[int, int]],
) -> PairTests:
    """Hold each pair against permutations, and against pairs of genes as frequent as its own.

    Parameters
    ----------
    moments
        Of all features, by unit.
    pairs
        (n_pairs, 2): features.
    pools
        (n_features, n): features that are single genes of a like level, of each feature that is in a pair.
    subunits
        Genes of each feature. A gene is no match for a feature that it is part of.
    known
        Pairs of features, both ways round, that are no random ones.

    Returns
    -------
    PairTests
        With the Benjamini-Hochberg false discovery rate over all pairs.
    """
    together = Moments(*(part.sum(axis=0) for part in (_all(moments))))
    z, p = _weaker(together)
    n = len(pairs)
    ratio_matched, rank, p_matched = (np.full(n, np.nan) for _ in range(3))
    n_matched = np.zeros(n, dtype=np.int64)
    expected = np.maximum(together.expected, together.expected.T)
    by_unit = np.maximum(moments.expected, moments.expected.transpose(0, 2, 1))
    of_units = np.full((len(moments.observed), n), np.nan)
    for index, (one, other) in enumerate(np.asarray(pairs).tolist()):
        a, b = _random_pairs(one, other, pools, subunits, known)
        tested = np.isfinite(z[a, b])
        a, b = a[tested], b[tested]
        n_matched[index] = len(a)
        if np.isfinite(z[one, other]) and len(a):
            as_large = z[a, b] >= z[one, other]
            rank[index], p_matched[index] = 1 - as_large.mean(), (1 + as_large.sum()) / (1 + len(a))
        ratio_matched[index] = _ratio(together.observed[a, b].sum(), expected[a, b].sum())
        own = _ratio(moments.observed[:, one, other], by_unit[:, one, other])
        of_units[:, index] = own - _ratio(moments.observed[:, a, b].sum(axis=1), by_unit[:, a, b].sum(axis=1))
    at = tuple(np.asarray(pairs).T)
    return PairTests(
        together.observed[at], expected[at], z[at], p[at], adjusted(p[at]),
        _ratio(together.observed[at], expected[at]), ratio_matched, rank, p_matched, adjusted(p_matched), n_matched,
        of_units,
    )  # fmt: skip


def adjusted(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Benjamini-Hochberg false discovery rate over all p-values that are known; NaN for the others."""
    found = np.full(len(p), np.nan)
    tested = np.isfinite(p)
    if tested.any():
        found[tested] = false_discovery_control(p[tested])
    return found


def _all(moments: Moments) -> tuple[NDArray[np.float64], ...]:
    return moments.observed, moments.expected, moments.variance, moments.third


def _weaker(moments: Moments) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return z and p of each two features; NaN where no stratum lets any of them change places."""
    observed, expected, variance, third = _all(moments)
    possible = variance > 1e-12 * np.maximum(expected, 1e-300) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.sqrt(np.where(possible, variance, np.nan))
        z = (observed - expected) / deviation
        p = np.where(possible, upper_tail(np.nan_to_num(z), np.nan_to_num(third / deviation**3)), np.nan)
    return np.minimum(z, z.T), np.maximum(p, p.T)


def _random_pairs(
    one: int,
    other: int,
    pools: NDArray[np.integer],
    subunits: Sequence[frozenset[int]],
    known: frozenset[tuple[int, int]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    taken = subunits[one] | subunits[other]
    left, right = ([gene for gene in pools[side].tolist() if not subunits[gene] & taken] for side in (one, other))
    chosen = [(a, b) for a in left for b in right if a != b and (a, b) not in known]
    a, b = np.array(chosen, dtype=np.int64).reshape(-1, 2).T
    return a, b


def _ratio(observed: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(np.asarray(expected) > 0, np.divide(observed, expected), np.nan))
