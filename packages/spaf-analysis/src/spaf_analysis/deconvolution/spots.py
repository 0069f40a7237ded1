"""Spots made of labelled cells, whose truth is known, also as another technology would see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.errors import InputError


@dataclass(frozen=True)
class MadeSpots:
    """Spots with their truth.

    Attributes
    ----------
    counts
        Spots x genes.
    types
        Names of the columns of `proportions`.
    proportions
        (n_spots, n_types), shares of the cells of a spot.
    n_cells
        (n_spots,), cells in each spot.
    coordinates
        (n_spots, 2), middles of the squares; None for spots without a place.
    """

    counts: sparse.csr_matrix
    types: list[str]
    proportions: NDArray[np.float64]
    n_cells: NDArray[np.int64]
    coordinates: NDArray[np.float64] | None = None


def spots_of_tissue(
    counts: sparse.csr_matrix,
    labels: NDArray[np.str_],
    coordinates: NDArray[np.floating],
    *,
    width: float,
    depth: float = 1.0,
    gene_effect: float = 0.0,
    type_effect: float = 0.0,
    seed: int = 0,
) -> MadeSpots:
    """Add up the cells in squares of a tissue.

    Parameters
    ----------
    counts
        Cells x genes.
    labels
        (n_cells,), types; "" for cells without one, which are left out.
    coordinates
        (n_cells, 2), um.
    width
        Of a square, um.
    depth
        Share of the counts that the spots keep, on average; 1 with effects 0 leaves the counts as they are.
    gene_effect
        Standard deviation of the natural logarithm of a factor of each gene, as between technologies.
    type_effect
        The same of a factor of each gene in each type, as between tissues.
    seed
        Of the effects and of thinning.

    Raises
    ------
    InputError
        If an option is out of range.
    """
    if width <= 0.0:
        raise InputError(f"the width of a spot must be above 0 um, not {width:g}.")
    named = np.flatnonzero(labels != "")
    square = np.floor(np.asarray(coordinates, dtype=np.float64)[named, :2] / width)
    places, spot = np.unique(square, axis=0, return_inverse=True)
    made = _made(counts[named], labels[named], spot.ravel(), len(places), depth, gene_effect, type_effect, seed)
    return MadeSpots(made.counts, made.types, made.proportions, made.n_cells, (places + 0.5) * width)


def spots_of_cells(
    counts: sparse.csr_matrix,
    labels: NDArray[np.str_],
    *,
    n_spots: int = 200,
    cells: int = 10,
    types: int = 4,
    depth: float = 1.0,
    gene_effect: float = 0.0,
    type_effect: float = 0.0,
    seed: int = 0,
) -> MadeSpots:
    """Add up cells drawn at random, of a few types in each spot.

    Parameters
    ----------
    counts, labels, depth, gene_effect, type_effect, seed
        As for `spots_of_tissue`.
    n_spots
        Number of spots.
    cells
        Mean number of cells of a spot, at least 1.
    types
        Most types of a spot: 1 to this many, each as likely, and every type as likely as the next.

    Raises
    ------
    InputError
        If an option is out of range.
    """
    if min(n_spots, cells, types) < 1:
        raise InputError("spots, cells of a spot and types of a spot must be at least 1.")
    rng = np.random.default_rng(seed)
    names, code = np.unique(labels, return_inverse=True)
    found = np.flatnonzero(names != "")
    of_type = [np.flatnonzero(code == kind) for kind in found]
    chosen: list[NDArray[np.int64]] = []
    for _ in range(n_spots):
        some = rng.permutation(len(of_type))[: rng.integers(1, min(types, len(of_type)) + 1)]
        share = rng.dirichlet(np.ones(some.size))
        drawn = rng.choice(some, size=1 + rng.poisson(cells - 1), p=share)
        chosen.append(np.array([rng.choice(of_type[kind]) for kind in drawn]))
    rows = np.concatenate(chosen)
    spot = np.repeat(np.arange(n_spots), [len(one) for one in chosen])
    return _made(counts[rows], labels[rows], spot, n_spots, depth, gene_effect, type_effect, seed)


def _made(
    counts: sparse.csr_matrix,
    labels: NDArray[np.str_],
    spot: NDArray[np.int64],
    n_spots: int,
    depth: float,
    gene_effect: float,
    type_effect: float,
    seed: int,
) -> MadeSpots:
    if depth <= 0.0 or gene_effect < 0.0 or type_effect < 0.0:
        raise InputError("depth must be above 0, and the effects of genes and types at least 0.")
    rng = np.random.default_rng([seed, 1])
    types, code = np.unique(labels, return_inverse=True)
    factor = rng.lognormal(0.0, gene_effect, counts.shape[1])[None] * rng.lognormal(
        0.0, type_effect, (types.size, counts.shape[1])
    )
    factor *= depth / factor.mean()
    seen = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    seen.data *= factor[np.repeat(code, np.diff(seen.indptr)), seen.indices]
    joins = sparse.csr_matrix((np.ones(spot.size), (spot, np.arange(spot.size))), shape=(n_spots, spot.size))
    sums = sparse.csr_matrix(joins @ seen)
    if depth != 1.0 or gene_effect or type_effect:
        sums.data = rng.poisson(sums.data).astype(np.float64)
        sums.eliminate_zeros()
    sums.sort_indices()
    cells = np.zeros((n_spots, types.size))
    np.add.at(cells, (spot, code), 1.0)
    n_cells = cells.sum(axis=1)
    return MadeSpots(sums, types.tolist(), cells / np.maximum(n_cells, 1.0)[:, None], n_cells.astype(np.int64))
