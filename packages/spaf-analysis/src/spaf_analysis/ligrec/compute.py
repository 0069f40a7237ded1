"""Ligand-receptor pairs against chance within type and tile, and among expression-matched gene pairs, on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import false_discovery_control

from spaf_analysis.ligrec.moments import Moments, upper_tail

FDR = 0.05
_FEW = 10
_LEAST_FOR_TAIL = 100
_TAIL = 0.1


@dataclass(frozen=True)
class PairTests:
    """Each pair, against both kinds of chance.

    Attributes
    ----------
    observed, expected
        Of all units; what is expected is what both owe to type and tile and to being in the same cells, or observed
        less the excess.
    z, p, fdr
        Against permutations within strata, one-sided; of the two ways (by where the receptors are, or the ligands)
        the one that says less counts.
    ratio
        Observed over expected.
    ratio_matched
        The same of all expression-matched pairs together.
    rank
        Share of the matched pairs whose z is smaller.
    p_matched, fdr_matched
        Share of the matched pairs, and the pair itself, whose z is as large; see `p_among`.
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
    ways, skewness = standardised(together)
    z = np.minimum(ways, ways.T)
    n = len(pairs)
    ratio_matched, rank, p_matched = (np.full(n, np.nan) for _ in range(3))
    n_matched = np.zeros(n, dtype=np.int64)
    expected, by_unit = together.observed - together.excess, moments.observed - moments.excess
    of_units = np.full((len(moments.observed), n), np.nan)
    shared = _shared(subunits)
    banned = np.eye(len(subunits), dtype=bool)
    if known:
        banned[tuple(np.array(sorted(known)).T)] = True
    for index, (one, other) in enumerate(np.asarray(pairs).tolist()):
        a, b = _random_pairs(one, other, pools, shared, banned)
        tested = np.isfinite(z[a, b])
        a, b = a[tested], b[tested]
        n_matched[index] = len(a)
        if np.isfinite(z[one, other]) and len(a):
            rank[index] = np.mean(z[a, b] < z[one, other])
            p_matched[index] = p_among(float(z[one, other]), z[a, b])
        ratio_matched[index] = _ratio(together.observed[a, b].sum(), expected[a, b].sum())
        own = _ratio(moments.observed[:, one, other], by_unit[:, one, other])
        of_units[:, index] = own - _ratio(moments.observed[:, a, b].sum(axis=1), by_unit[:, a, b].sum(axis=1))
    at = tuple(np.asarray(pairs).T)
    p = np.maximum(*(upper_tail(ways[way], skewness[way]) for way in (at, at[::-1])))
    return PairTests(
        together.observed[at], expected[at], z[at], p, adjusted(p),
        _ratio(together.observed[at], expected[at]), ratio_matched, rank, p_matched, adjusted(p_matched), n_matched,
        of_units,
    )  # fmt: skip


def p_among(value: float, others: NDArray[np.floating]) -> float:
    """Return the share of values, and of one itself, that are as large, by a fitted tail where that is a handful.

    Notes
    -----
    Where fewer than ten of at least a hundred are as large, their largest tenth is taken for exponential beyond its
    threshold (as by Knijnenburg et al., Bioinformatics 25, 2009, with the shape that is safe for lighter tails):
    without it nothing could be called among many pairs.
    """
    as_large = int(np.sum(others >= value))
    p = (1 + as_large) / (1 + len(others))
    if as_large >= _FEW or len(others) < _LEAST_FOR_TAIL:
        return p
    threshold = float(np.quantile(others, 1 - _TAIL))
    beyond = others[others > threshold] - threshold
    if not len(beyond) or value <= threshold:
        return p
    return min(p, len(beyond) / len(others) * float(np.exp(-(value - threshold) / beyond.mean())))


def adjusted(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Benjamini-Hochberg false discovery rate over all p-values that are known; NaN for the others."""
    found = np.full(len(p), np.nan)
    tested = np.isfinite(p)
    if tested.any():
        found[tested] = false_discovery_control(p[tested])
    return found


def _all(moments: Moments) -> tuple[NDArray[np.float64], ...]:
    return moments.observed, moments.excess, moments.variance, moments.third


def standardised(moments: Moments) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return z and skewness of each two features, by where the second lies; NaN where no cell can change places."""
    observed, excess, variance, third = _all(moments)
    # What rounding leaves of strata of one cell is no variance.
    known = np.where(variance > 1e-18 * np.maximum(observed, 1e-300) ** 2, variance, np.nan)
    deviation = np.sqrt(known)
    return excess / deviation, third / (deviation * known)


def _shared(subunits: Sequence[frozenset[int]]) -> NDArray[np.bool_]:
    """Return which features have a gene in common, (n_features, n_features)."""
    feature = np.repeat(np.arange(len(subunits)), [len(genes) for genes in subunits])
    gene = np.array([gene for genes in subunits for gene in genes], dtype=np.int64)
    parts = sparse.csr_matrix((np.ones(len(gene)), (feature, gene)))
    return np.asarray((parts @ parts.T).toarray() > 0)


def _random_pairs(
    one: int, other: int, pools: NDArray[np.integer], shared: NDArray[np.bool_], banned: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of genes as frequent as two features, but for theirs and those that are banned."""
    left, right = (pool[~(shared[one, pool] | shared[other, pool])] for pool in (pools[one], pools[other]))
    row, column = np.nonzero(~banned[left[:, None], right[None]])
    return left[row], right[column]


def _ratio(observed: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(np.asarray(expected) > 0, np.divide(observed, expected), np.nan))
