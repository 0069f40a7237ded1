"""Every two genes beside each other in space, and the exact moments under permutation within strata, on arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree
from scipy.special import gammainc, gammaincc, ndtr

CUTOFF = 3.0  # standard deviations of the kernel, beyond which a weight (below .011) is taken for none
_CELLS_AT_ONCE = 2_048
_NO_SKEWNESS = 1e-3


@dataclass(frozen=True)
class Moments:
    """What two features beside each other amount to, and what it would be by chance.

    Attributes
    ----------
    observed
        Units x features x features: the sum over pairs of cells i, j of weight times the first feature of j times the
        second of i. The same both ways round.
    excess
        The same of what is left of both features when the mean of each stratum is taken off, less what it is on average
        where whole cells are dealt anew within strata: what is observed, less what both owe to their strata and to
        being in the same cells. On average 0 there.
    variance
        Of the excess where cells are dealt anew within strata, what is left of the second feature lying as it does:
        that where the *first* is dealt anew by itself, over all permutations, times 1 + rho^2 of `spatial_moments`.
    third
        Third central moment where the first feature is dealt anew by itself.
    """

    observed: NDArray[np.float64]
    excess: NDArray[np.float64]
    variance: NDArray[np.float64]
    third: NDArray[np.float64]


class StratumMeans:
    """The mean of each feature in the stratum of some cells, without holding it of all."""

    def __init__(self, values: sparse.csr_matrix, stratum: NDArray[np.int64]) -> None:
        n = np.bincount(stratum)
        joins = sparse.csr_matrix((1 / n[stratum], (stratum, np.arange(len(stratum)))), shape=(len(n), len(stratum)))
        self.means, self.stratum = sparse.csr_matrix(joins @ values), stratum

    def __call__(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return cells x features."""
        return np.asarray(self.means[self.stratum[cells]].toarray())

    def weighed(self, weights: sparse.csr_matrix, beside: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return weights (cells x beside) times the means of the strata of `beside`, by way of the strata: cheaper."""
        strata, column = np.unique(self.stratum[beside], return_inverse=True)
        ends = np.arange(len(beside) + 1)
        joins = sparse.csr_matrix((np.ones(len(beside)), column, ends), shape=(len(beside), len(strata)))
        return np.asarray((weights @ joins) @ self.means[strata].toarray())


def kernel(
    of: NDArray[np.float64], among: NDArray[np.float64], itself: NDArray[np.int64], sigma: float
) -> sparse.csr_matrix:
    """Return Gaussian weights exp(-d^2 / 2 sigma^2) of some cells (rows) and all of their slide, none of a cell itself.

    Parameters
    ----------
    of, among
        Coordinates in um, (rows, 2) and (columns, 2).
    itself
        The column that each row is.
    sigma
        Standard deviation in um; weights beyond `CUTOFF` times that are none.
    """
    found = cKDTree(of).sparse_distance_matrix(cKDTree(among), CUTOFF * sigma, output_type="ndarray")
    row, column = found["i"], found["j"].astype(np.int64)
    other = column != itself[row]
    weight = np.exp(-0.5 * (found["v"][other] / sigma) ** 2)
    return sparse.csr_matrix((weight, (row[other], column[other])), shape=(len(of), len(among)))


def around(
    coordinates: NDArray[np.float64], block: NDArray[np.integer], sigma: float
) -> Iterator[tuple[NDArray[np.int64], sparse.csr_matrix, NDArray[np.int64]]]:
    """Yield cells, their weights, and the cells that the columns of the weights are: whole tiles at a time.

    Parameters
    ----------
    coordinates
        Cells x 2, in um.
    block
        (n_cells, 2): slide and tile of each cell, from 0. Cells of two slides are never beside each other.
    sigma
        Of the kernel, in um.
    """
    assert len(coordinates) == len(block)
    order = np.lexsort((block[:, 1], block[:, 0]))
    slide, tile = block[order].T
    ends = np.flatnonzero(np.diff(slide, append=-1) != 0) + 1
    for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True):
        cells = order[start:end]
        of_tile = np.flatnonzero(np.diff(tile[start:end], append=-1) != 0) + 1
        first = 0
        for last in of_tile.tolist():
            if last - first < _CELLS_AT_ONCE and last != end - start:
                continue
            itself = np.arange(first, last)
            weights = kernel(coordinates[cells[first:last]], coordinates[cells], itself, sigma)
            beside, column = np.unique(weights.indices, return_inverse=True)
            weights = sparse.csr_matrix((weights.data, column, weights.indptr), shape=(last - first, len(beside)))
            yield cells[first:last], weights, cells[beside]
            first = last


def spatial_moments(
    values: sparse.csr_matrix,
    coordinates: NDArray[np.float64],
    block: NDArray[np.integer],
    kind: NDArray[np.integer],
    unit: NDArray[np.integer],
    *,
    sigma: float,
    n_units: int,
) -> Moments:
    """Weigh every two features beside each other, and find the moments under permutation within strata.

    Parameters
    ----------
    values
        Cells x features, none negative.
    coordinates
        Cells x 2, in um.
    block
        (n_cells, 2): slide and tile of each cell, from 0.
    kind
        Type of each cell, from 0; a stratum is the cells of one type in one tile.
    unit
        Of each slide, such as its donor, from 0.
    sigma
        Standard deviation of the Gaussian kernel, in um.
    n_units
        Number of units.

    Returns
    -------
    Moments
        Features x features, by unit.

    Notes
    -----
    Of features l and r with the means of strata taken off, the sum is linear in the permuted one: sum_j l_j u_j,
    where u = W r is the kernel around each cell of the held one. Of n cells of a stratum, with u centred too, its
    permutation moments are 0, sum l^2 sum u^2 / (n - 1) and n sum l^3 sum u^3 / ((n - 1)(n - 2)), and strata add up
    (Hoeffding, Annals of Mathematical Statistics 22, 1951). For all pairs of features that is a few products of
    matrices. Were only one of the two centred, how types lie around each other would be noise: of the weaker of both
    ways .3 % of p were at most .05 where types decide all, in place of 4 to 5 %.

    A cell is not beside itself, so where l and r go together within cells, neighbours have less of the pair than
    independent genes would, wherever they lie, and more where one cell has either. Dealing anew one gene would call
    that; dealing anew whole cells does not. Over these permutations two cells of one stratum have -sum_i l_i r_i /
    (n (n - 1)) of l_j r_i on average, two of different strata nothing, which is taken off. As l_j r_i and l_i r_j
    covary by the square of the covariance within cells, and weights are the same both ways, the variance is 1 + rho^2
    times as large to leading order, rho being the correlation within cells, pooled over the strata of a unit.

    Time grows with cells x features^2 and with neighbours x features; memory with the cells of a few tiles, with
    features^2 and with strata x features.
    """
    shape = (n_units, values.shape[1], values.shape[1])
    found = Moments(*(np.zeros(shape) for _ in range(4)))
    within = np.zeros(shape)
    values = sparse.csr_matrix(values)
    stratum = pd.MultiIndex.from_arrays([*block.T, kind]).factorize()[0]
    means = StratumMeans(values, stratum)
    for some, weights, beside in around(coordinates, block, sigma):
        order = np.argsort(stratum[some], kind="stable")
        cells = some[order]
        first = np.flatnonzero(np.diff(stratum[cells], prepend=-1))
        n = np.diff(first, append=len(cells)).astype(np.float64)[:, None]
        of = int(unit[block[cells[0], 0]])
        weights = weights[order]
        own, surrounding = values[cells].toarray(), weights @ values[beside].toarray()
        found.observed[of] += own.T @ surrounding
        own -= means(cells)
        surrounding -= means.weighed(weights, beside)
        found.excess[of] += own.T @ surrounding
        within[of] += own.T @ own
        inside = sums_inside(weights, stratum[cells], stratum[beside])
        own_weight = np.add.reduceat(inside, first) / np.maximum(n[:, 0] * (n[:, 0] - 1), 1)
        found.excess[of] += own.T @ (own * np.repeat(own_weight, n[:, 0].astype(np.int64))[:, None])
        surrounding -= np.repeat(np.add.reduceat(surrounding, first) / n, n[:, 0].astype(np.int64), axis=0)
        powers = [own, surrounding]
        for power, moment in ((2, found.variance), (3, found.third)):
            powers = [some_power * part for some_power, part in zip(powers, (own, surrounding), strict=True)]
            parts = [np.add.reduceat(part, first) for part in powers]
            with np.errstate(divide="ignore", invalid="ignore"):
                factor = 1 / (n - 1) if power == 2 else n / ((n - 1) * (n - 2))
            moment[of] += (parts[0] * np.where(n >= power, factor, 0.0)).T @ parts[1]
    found.variance[:] *= 1 + _squared_correlation(within)
    return found


def sums_inside(weights: sparse.csr_matrix, of: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sum of weights of each cell (row) to cells of its own stratum, given the strata of both."""
    row = np.repeat(np.arange(len(of)), np.diff(weights.indptr))
    same = of[row] == among[weights.indices]
    return np.asarray(np.bincount(row[same], weights.data[same], minlength=len(of)), dtype=np.float64)


def _squared_correlation(within: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return squared correlations of (..., features, features) sums of products; 0 of a feature that does not vary."""
    scale = np.sqrt(np.diagonal(within, axis1=-2, axis2=-1))
    scale = np.where(scale > 0, scale, np.inf)
    return np.asarray(np.minimum((within / scale[..., None] / scale[..., None, :]) ** 2, 1.0))


def upper_tail(z: NDArray[np.float64], skewness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return P(Z >= z) of a standardised Pearson III distribution (a shifted gamma): three moments are met.

    NaN where z is.
    """
    skewed = np.abs(skewness) > _NO_SKEWNESS
    shape = 4 / np.where(skewed, skewness, 1.0) ** 2
    place = np.maximum(shape + np.where(skewness > 0, z, -z) * np.sqrt(shape), 0)
    tail = np.where(skewness > 0, gammaincc(shape, place), gammainc(shape, place))
    return np.asarray(np.where(skewed | np.isnan(z), tail, ndtr(-z)))
