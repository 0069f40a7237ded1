"""Permutations of near and far within strata, gene pair by gene pair, each with its own stream of random numbers."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

_TIE = 1e-9  # of sums that are the same but for rounding


@numba.njit(inline="always")
def _next(state: np.uint64) -> np.uint64:
    """Return the next state of SplitMix64, whose mixed value `_mixed` gives (Steele et al. 2014)."""
    return state + np.uint64(0x9E3779B97F4A7C15)


@numba.njit(inline="always")
def _mixed(state: np.uint64) -> np.uint64:
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(parallel=True, cache=True, error_model="numpy")
def permute_within_strata(
    values: NDArray[np.float32],
    near: NDArray[np.bool_],
    starts: NDArray[np.int64],
    features: NDArray[np.int64],
    n_permutations: int,
    enough: int,
    seed: int,
    found: NDArray[np.float64],
    drawn: NDArray[np.float64],
) -> None:
    """Compare near with far pairs of cells for each feature; see `permutation.compare`.

    Parameters
    ----------
    values
        (n_features, n_pairs), ordered by stratum; NaN where a pair of cells has no value.
    near
        (n_pairs,).
    starts
        (n_strata + 1,), where each stratum begins.
    features
        Those to compare.
    n_permutations, enough
        Permutations at most, and as extreme ones after which a feature is done.
    seed
        The stream of a feature depends on it and the number of the feature alone.
    found
        (n of `features`, 6), written: sum over near pairs of what is above the mean of the stratum, its variance under
        permutation, near and far pairs that counted, permutations as extreme, permutations made.
    drawn
        (n of `features`, n_permutations), written with the squared sums over their variance, or without columns.
    """
    n_strata = starts.size - 1
    for place in numba.prange(features.size):
        feature = features[place]
        row = np.empty(values.shape[1], np.float64)
        begins = np.zeros(n_strata + 1, np.int64)
        few = np.zeros(n_strata, np.int64)
        n, n_near, total, variance = 0, 0, 0.0, 0.0
        n_kept = 0
        for stratum in range(n_strata):
            first, first_near, mean, of_near = n, 0, 0.0, 0.0
            for pair in range(starts[stratum], starts[stratum + 1]):
                value = values[feature, pair]
                if not np.isnan(value):
                    row[n] = value
                    mean += value
                    if near[pair]:
                        of_near += value
                        first_near += 1
                    n += 1
            size = n - first
            if first_near == 0 or first_near == size:
                n = first  # nothing could be exchanged here
                continue
            mean /= size
            square = 0.0
            for entry in range(first, n):
                row[entry] -= mean
                square += row[entry] * row[entry]
            total += of_near - first_near * mean
            n_near += first_near
            variance += square * first_near * (size - first_near) / (size * (size - 1.0))
            few[n_kept] = min(first_near, size - first_near)
            n_kept += 1
            begins[n_kept] = n
        found[place, 0], found[place, 1] = total, variance
        found[place, 2], found[place, 3] = n_near, n - n_near
        extreme, made = 0, 0
        if n_kept > 0 and variance > 0.0:
            at_least = abs(total) * (1.0 - _TIE)
            state = _mixed(np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(feature))
            for permutation in range(n_permutations):
                other = 0.0
                for stratum in range(n_kept):
                    first, last = begins[stratum], begins[stratum + 1]
                    part = 0.0
                    for step in range(few[stratum]):
                        state = _next(state)
                        share = np.float64(_mixed(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)
                        here = first + step
                        chosen = here + np.int64(share * (last - here))
                        row[here], row[chosen] = row[chosen], row[here]
                        part += row[here]
                    # Where far pairs are the fewer they are drawn; the sum of the others has the other sign.
                    other += part
                made += 1
                if drawn.shape[1] > 0:
                    drawn[place, permutation] = other * other / variance
                if abs(other) >= at_least:
                    extreme += 1
                    if extreme == enough:
                        break
        found[place, 4], found[place, 5] = extreme, made
