"""Comparisons with donors as units: exact where arrangements can be counted out, with the family-wise error by max-T.

Images and cells of one donor are no independent observations, so whatever is compared is first one value a donor. The
p-values rest on nothing but that donors could have changed places (between two conditions: permutation of donors) or
that a donor's value could as well have had the other sign (against zero: sign flips, of values that are symmetric about
zero where there is nothing). With few donors there are few arrangements, so the smallest p that can come out is said
with the result: two conditions of three donors allow none below .1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from spaf_analysis.defaults import N_PERMUTATIONS

_AT_ONCE = 4_000_000  # arrangements x features
_OFFSET = 0.05  # quantile of the standard errors of all features that is added to each
_TIE = 1e-9  # of statistics that are the same but for rounding


@dataclass(frozen=True)
class DonorTest:
    """A comparison of each feature.

    Attributes
    ----------
    difference
        Mean of the first condition less that of the second, or the mean where there is one; NaN where fewer than two
        donors have a value (of each condition).
    statistic
        The difference over its standard error, to which a small constant is added (the 5 % quantile of all features'),
        so that a feature with hardly any variance does not lead.
    p, p_adjusted, fdr
        Two-sided; adjusted for all features by max-T; false discovery rate (Benjamini-Hochberg) over all.
    n_donors
        Donors with a value.
    n_arrangements
        How many were looked at, the one that was observed among them.
    is_exact
        Whether these are all that there are.
    smallest_p
        The smallest p that can come out of any feature, by the donors that have a value there.
    """

    difference: NDArray[np.float64]
    statistic: NDArray[np.float64]
    p: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]
    fdr: NDArray[np.float64]
    n_donors: NDArray[np.int64]
    n_arrangements: int
    is_exact: bool
    smallest_p: float


def compare_conditions(
    values: NDArray[np.floating],
    is_first: NDArray[np.bool_],
    *,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> DonorTest:
    """Compare two conditions, each feature by itself, by permuting donors.

    Parameters
    ----------
    values
        Donors x features; NaN where a donor has no value.
    is_first
        Which donors have the first condition.
    n_permutations
        Where there are more arrangements, as many are drawn beside the observed one.
    seed
        Of the draws.

    Returns
    -------
    DonorTest
        Of the first condition less the second.

    Notes
    -----
    Donors without any value are left out before arranging. Of a feature that some donors lack, only arrangements count
    that leave as many of the donors with a value in each condition as were observed: that permutes those donors alone.
    No adjusted p is below the p of its feature.
    """
    known: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    some_value = np.isfinite(known).any(axis=1)
    if some_value.any():
        known, is_first = known[some_value], np.asarray(is_first)[some_value]
    n, n_first = len(is_first), int(is_first.sum())
    is_exact = comb(n, n_first) <= n_permutations + 1
    if is_exact:
        arrangements = np.zeros((comb(n, n_first), n))
        for row, chosen in enumerate(combinations(range(n), n_first)):
            arrangements[row, list(chosen)] = 1
    else:
        rng = np.random.default_rng(seed)
        arrangements = np.vstack([is_first, rng.permuted(np.tile(is_first, (n_permutations, 1)), axis=1)]).astype(float)
    has: NDArray[np.bool_] = np.isfinite(known)
    filled = np.where(has, known, 0.0)
    offset = _offset(_standard_errors(known, has))

    def statistic(some: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        parts = []
        for chosen in (some, 1 - some):
            count = chosen @ has
            with np.errstate(divide="ignore", invalid="ignore"):
                mean = (chosen @ filled) / count
                square = np.maximum((chosen @ filled**2) - count * mean**2, 0)
            parts.append((count, mean, square))
        (n_a, mean_a, square_a), (n_b, mean_b, square_b) = parts
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.sqrt((square_a + square_b) / (n_a + n_b - 2) * (1 / n_a + 1 / n_b))
            t = (mean_a - mean_b) / (error + offset)
        enough = (n_a >= 2) & (n_b >= 2)
        return np.where(enough, mean_a - mean_b, np.nan), np.where(enough, t, np.nan)

    observed = np.asarray(is_first, dtype=np.float64)[None]
    n_of_first, n_with = (observed @ has)[0], has.sum(axis=0)

    def counts(some: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray(some @ has == n_of_first)

    # Both ways round are as extreme where the conditions have the same number of donors.
    smallest = [
        (2 if 2 * first == every else 1) / comb(every, first)
        for every, first in zip(n_with.tolist(), n_of_first.astype(int).tolist(), strict=True)
    ]
    return _test(statistic, counts, observed, arrangements, has, is_exact=is_exact, smallest=np.array(smallest))


def compare_with_zero(
    values: NDArray[np.floating], *, n_permutations: int = N_PERMUTATIONS, seed: int = 0
) -> DonorTest:
    """Compare the mean of each feature with zero by flipping the signs of donors.

    Parameters
    ----------
    values
        Donors x features; NaN where a donor has no value.
    n_permutations
        Where there are more arrangements, as many are drawn beside the observed one.
    seed
        Of the draws.

    Returns
    -------
    DonorTest
        Of the mean; the signs of all features of a donor are flipped together.
    """
    known: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    n = len(known)
    is_exact = 2**n <= n_permutations + 1
    if is_exact:
        flipped = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        arrangements = np.asarray(1.0 - 2.0 * flipped, dtype=np.float64)
    else:
        drawn = np.random.default_rng(seed).integers(0, 2, (n_permutations, n))
        arrangements = np.vstack([np.ones((1, n)), 1.0 - 2.0 * drawn])
    has: NDArray[np.bool_] = np.isfinite(known)
    filled = np.where(has, known, 0.0)
    count = has.sum(axis=0)
    square = (filled**2).sum(axis=0)
    offset = _offset(_standard_errors(known, has))

    def statistic(some: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = (some @ filled) / count
            error = np.sqrt(np.maximum(square - count * mean**2, 0) / (count - 1) / count)
            t = mean / (error + offset)
        enough = count >= 2
        return np.where(enough, mean, np.nan), np.where(enough, t, np.nan)

    def counts(some: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.ones((len(some), len(count)), dtype=bool)

    observed = np.ones((1, n), dtype=np.float64)
    smallest = 2.0 ** (1.0 - count)
    return _test(statistic, counts, observed, arrangements, has, is_exact=is_exact, smallest=smallest)


def _test(
    statistic: Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]],
    counts: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
    observed: NDArray[np.float64],
    arrangements: NDArray[np.float64],
    has: NDArray[np.bool_],
    *,
    is_exact: bool,
    smallest: NDArray[np.float64],
) -> DonorTest:
    difference, t = (values[0] for values in statistic(observed))
    size = np.abs(t) * (1 - _TIE)
    tested = np.isfinite(t)
    as_large, as_large_as_all, n_counting = np.zeros(len(t)), np.zeros(len(t)), np.zeros(len(t))
    for some in _parts(arrangements, max(1, _AT_ONCE // max(len(t), 1))):
        other = np.nan_to_num(np.abs(statistic(some)[1]), nan=0.0)
        counting = counts(some)
        n_counting += counting.sum(axis=0)
        as_large += ((other >= size) & counting).sum(axis=0)
        largest = other[:, tested].max(axis=1, initial=0.0)
        as_large_as_all += (largest[:, None] >= size).sum(axis=0)
    n = len(arrangements)
    p = np.where(tested, as_large / np.maximum(n_counting, 1), np.nan)
    adjusted = np.where(tested, np.maximum(as_large_as_all / n, p), np.nan)
    if not is_exact:
        smallest = np.maximum(smallest, 1 / np.maximum(n_counting, 1))
    fdr = np.full(len(t), np.nan)
    if tested.any():
        fdr[tested] = false_discovery_control(np.clip(p[tested], 0, 1))
    return DonorTest(
        difference, t, p, adjusted, fdr, has.sum(axis=0).astype(np.int64), n, is_exact,
        float(smallest[tested].min()) if tested.any() else float("nan"),
    )  # fmt: skip


def _parts(rows: NDArray[np.float64], at_once: int) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(rows), at_once):
        yield rows[start : start + at_once]


def _standard_errors(values: NDArray[np.float64], has: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the standard error of the mean over all donors, whatever their condition: no arrangement changes it."""
    count = has.sum(axis=0)
    filled = np.where(has, values, 0.0)
    mean = filled.sum(axis=0) / np.maximum(count, 1)
    square = np.where(has, (filled - mean) ** 2, 0.0).sum(axis=0)
    return np.asarray(np.sqrt(square / np.maximum(count - 1, 1) / np.maximum(count, 1)))


def _offset(errors: NDArray[np.float64]) -> float:
    positive = errors[errors > 0]
    return float(np.quantile(positive, _OFFSET)) if positive.size else 1e-12
