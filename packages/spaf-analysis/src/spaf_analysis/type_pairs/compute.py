"""Cells of each type around those of each other, and what random labels would give, on arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError, cKDTree

MIN_EXPECTED = 5.0  # of a donor, for a pair of types to have a value there
_CELLS_AT_ONCE = 4_096


@dataclass(frozen=True)
class TypeCounts:
    """Numbers of neighbours, by image.

    Attributes
    ----------
    observed
        Images x types x types: how many cells of the second type are neighbours of cells of the first, summed over
        those of the first.
    expected
        The same, on average over all ways to give the labels of all other cells to those around a cell of the first
        type: exact, no permutations. NaN in an image with fewer than two cells.
    sizes
        Images x types: cells.
    area
        Of the convex hull of each image, in um2; NaN with fewer than three cells or all on a line.
    """

    observed: NDArray[np.float64]
    expected: NDArray[np.float64]
    sizes: NDArray[np.int64]
    area: NDArray[np.float64]


def count_types_around(
    coordinates: NDArray[np.floating],
    code: NDArray[np.integer],
    image: NDArray[np.integer],
    n_types: int,
    *,
    radius: float | None = None,
    n_neighbors: int | None = None,
) -> TypeCounts:
    """Count the types of the neighbours of each type, and what random labels would give.

    Parameters
    ----------
    coordinates
        Cells x 2, in um.
    code
        The type of each cell, from 0; all cells must have one.
    image
        The image of each cell, 0 ... n - 1; cells of two images are never neighbours.
    n_types
        Number of types.
    radius
        Neighbours are all cells within it, in um; or ..
    n_neighbors
        .. so many nearest ones. One of both is given.

    Returns
    -------
    TypeCounts
        By image.

    Notes
    -----
    With n cells, n_b of type b, and d neighbours of a cell of type a, the labels of the n - 1 others in random order
    put d (n_b - [a = b]) / (n - 1) cells of type b around it; summed over the cells of type a, that is the expectation.
    Time grows with the number of neighbours; memory does not.
    """
    n_images = int(image.max()) + 1 if len(image) else 0
    observed = np.zeros((n_images, n_types, n_types))
    expected = np.full((n_images, n_types, n_types), np.nan)
    sizes = np.zeros((n_images, n_types), dtype=np.int64)
    area = np.full(n_images, np.nan)
    order = np.argsort(image, kind="stable")
    cells_of = np.split(order, np.cumsum(np.bincount(image, minlength=n_images))[:-1])
    for index, cells in enumerate(cells_of):
        xy, types = np.asarray(coordinates[cells], dtype=np.float64), np.asarray(code[cells], dtype=np.int64)
        n = len(cells)
        sizes[index] = np.bincount(types, minlength=n_types)
        area[index] = _hull_area(xy)
        if n < 2:
            continue
        for left, right in _neighbours(xy, radius, n_neighbors):
            found = np.bincount(types[left] * n_types + types[right], minlength=n_types**2)
            observed[index] += found.reshape(n_types, n_types)
        others = (sizes[index] - np.eye(n_types)) / (n - 1)
        expected[index] = observed[index].sum(axis=1, keepdims=True) * np.maximum(others, 0)
    return TypeCounts(observed, expected, sizes, area)


def of_donors(
    counts: TypeCounts, donor: NDArray[np.integer], n_donors: int, *, min_expected: float = MIN_EXPECTED
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Sum images of a donor, and compare what was observed with what was expected.

    Parameters
    ----------
    counts
        Of images.
    donor
        The donor of each image, from 0; -1 leaves an image out.
    n_donors
        Number of donors.
    min_expected
        Where less is expected of a donor, it has no value: little is said by few cells.

    Returns
    -------
    tuple of numpy.ndarray
        Donors x types x types: observed over expected, less 1 (its expectation under random labels is exactly 0);
        observed; expected.
    """
    shape = (n_donors, *counts.observed.shape[1:])
    observed, expected = np.zeros(shape), np.zeros(shape)
    used = (donor >= 0) & np.isfinite(counts.expected).all(axis=(1, 2))
    np.add.at(observed, donor[used], counts.observed[used])
    np.add.at(expected, donor[used], counts.expected[used])
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(expected >= min_expected, observed / expected - 1, np.nan)
    return excess, observed, expected


def l_statistic(counts: list[TypeCounts], radii: list[float]) -> NDArray[np.float64]:
    """Return the sum over radii of Besag's cross L less the radius: images x types x types.

    Parameters
    ----------
    counts
        Of all cells within each radius.
    radii
        In um.

    Notes
    -----
    L = sqrt(K / pi), and K is the area of the image times the number of pairs over the product of both numbers of
    cells. It is the association of the R package spicyR (Canete et al., Bioinformatics 38, 2022) without edge
    correction and with one density an image, in the convex hull; NaN where a type is not in an image.
    """
    total = np.zeros(counts[0].observed.shape)
    for of_radius, radius in zip(counts, radii, strict=True):
        pairs = of_radius.sizes[:, :, None] * of_radius.sizes[:, None, :]
        with np.errstate(divide="ignore", invalid="ignore"):
            k = np.where(pairs > 0, of_radius.area[:, None, None] * of_radius.observed / pairs, np.nan)
        total += np.sqrt(k / np.pi) - radius
    return total


def _neighbours(
    xy: NDArray[np.float64], radius: float | None, n_neighbors: int | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield cells and their neighbours, for some cells at a time."""
    tree, n = cKDTree(xy), len(xy)
    for start in range(0, n, _CELLS_AT_ONCE):
        some = np.arange(start, min(start + _CELLS_AT_ONCE, n))
        if n_neighbors is not None:
            found = np.reshape(tree.query(xy[some], k=min(n_neighbors, n - 1) + 1)[1], (len(some), -1))
            itself = found == some[:, None]
            # Among cells at one place a cell itself may not be found: the last one then goes in its stead.
            itself[~itself.any(axis=1), -1] = True
            kept = ~itself
            yield np.repeat(some, kept.sum(axis=1)), found[kept].astype(np.int64)
            continue
        assert radius is not None
        pairs = cKDTree(xy[some]).sparse_distance_matrix(tree, radius, output_type="ndarray")
        left, right = some[pairs["i"]], pairs["j"].astype(np.int64)
        yield left[left != right], right[left != right]


def _hull_area(xy: NDArray[np.float64]) -> float:
    if len(xy) < 3:
        return float("nan")
    try:
        return float(ConvexHull(xy).volume)  # which in two dimensions is the area
    except QhullError:
        return float("nan")
