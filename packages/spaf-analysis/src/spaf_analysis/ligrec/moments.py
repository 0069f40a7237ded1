"""Every two genes beside each other in space, and the exact moments under permutation within strata, on arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
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
    expected, variance, third
        Its mean, variance and third central moment where the values of the *first* feature are dealt anew among the
        cells of each stratum, and those of the second stay. All permutations, none drawn.
    """

    observed: NDArray[np.float64]
    expected: NDArray[np.float64]
    variance: NDArray[np.float64]
    third: NDArray[np.float64]


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
    The sum is linear in the permuted feature l: T = sum_j l_j u_j, where u = W r is the kernel around each cell of the
    held one. Of n cells of a stratum, with centred l and u, its permutation moments are 0,
    sum l^2 sum u^2 / (n - 1) and n sum l^3 sum u^3 / ((n - 1)(n - 2)), and strata add up (Hoeffding, Annals of
    Mathematical Statistics 22, 1951). For all pairs of features that is a few products of matrices. Time grows with
    cells x features^2 and with the neighbours x features; memory with the cells of a few tiles and with features^2.
    """
    shape = (n_units, values.shape[1], values.shape[1])
    found = Moments(*(np.zeros(shape) for _ in range(4)))
    values = sparse.csr_matrix(values)
    for cells, weights, beside in around(coordinates, block, sigma):
        keys = np.stack([block[cells, 1], kind[cells]])
        order = np.lexsort(keys[::-1])
        first = np.r_[0, np.flatnonzero((np.diff(keys[:, order]) != 0).any(axis=0)) + 1]
        of = int(unit[block[cells[0], 0]])
        own = values[cells[order]].toarray().astype(np.float64, copy=False)
        surrounding = weights[order] @ values[beside].toarray()
        n = np.diff(first, append=len(cells)).astype(np.float64)[:, None]
        found.observed[of] += own.T @ surrounding
        sums = [np.add.reduceat(part, first) for part in (own, surrounding)]
        found.expected[of] += (sums[0] / n).T @ sums[1]
        stratum = np.repeat(np.arange(len(n)), n[:, 0].astype(np.int64))
        for part, total in zip((own, surrounding), sums, strict=True):
            part -= (total / n)[stratum]
        for power, moment in ((2, found.variance), (3, found.third)):
            parts = [np.add.reduceat(part**power, first) for part in (own, surrounding)]
            with np.errstate(divide="ignore", invalid="ignore"):
                factor = 1 / (n - 1) if power == 2 else n / ((n - 1) * (n - 2))
            moment[of] += (parts[0] * np.where(n >= power, factor, 0.0)).T @ parts[1]
    return found


def upper_tail(z: NDArray[np.float64], skewness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return P(Z >= z) of a standardised Pearson III distribution (a shifted gamma): three moments are met.

    NaN where z is.
    """
    skewed = np.abs(skewness) > _NO_SKEWNESS
    shape = 4 / np.where(skewed, skewness, 1.0) ** 2
    place = np.maximum(shape + np.where(skewness > 0, z, -z) * np.sqrt(shape), 0)
    tail = np.where(skewness > 0, gammaincc(shape, place), gammainc(shape, place))
    return np.asarray(np.where(skewed, tail, ndtr(-z)))
