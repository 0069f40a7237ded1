"""Cells with counts and places, from wherever they come, and draws of tissue from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_data import Distances

_TILE = 300.0  # um, of the tissue that is drawn where there are more cells than are asked for


class HasPlaces(Protocol):
    """Counts of cells and where they are."""

    @property
    def counts(self) -> sparse.csr_matrix:
        """Cells x genes."""

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """(n_cells, 2), um."""

    @property
    def slide(self) -> NDArray[np.str_]:
        """(n_cells,)."""


@dataclass(frozen=True)
class PlacedCells:
    """Cells with counts and places, in the form in which a corpus has them too.

    Attributes
    ----------
    counts
        Cells x genes.
    coordinates
        (n_cells, 2), um. Of single precision, as a corpus holds them: the same cells are the same wherever they are
        read.
    slide
        (n_cells,).
    """

    counts: sparse.csr_matrix
    coordinates: NDArray[np.float64]
    slide: NDArray[np.str_]

    @classmethod
    def of(cls, counts: Any, coordinates: NDArray[np.floating], slide: NDArray[np.str_] | None = None) -> PlacedCells:
        """Return cells from arrays, on one slide if None is named."""
        matrix = sparse.csr_matrix(counts)
        if not matrix.has_sorted_indices:
            matrix = matrix.sorted_indices()
        places = np.asarray(coordinates, dtype=np.float32)[:, :2].astype(np.float64)
        return cls(matrix, places, np.full(len(places), "") if slide is None else np.asarray(slide, dtype=str))

    def __len__(self) -> int:
        return len(self.slide)

    def take(self, rows: NDArray[np.integer]) -> PlacedCells:
        """Return some of the cells."""
        return PlacedCells(sparse.csr_matrix(self.counts[rows]), self.coordinates[rows], self.slide[rows])


def drawn_tissue(
    coordinates: NDArray[np.floating],
    slide: NDArray[np.str_],
    *,
    max_cells: int,
    distances: Distances = Distances(),
    seed: int = 0,
) -> NDArray[np.int64]:
    """Return the rows of about as many cells as are asked for, whole tiles of tissue so that neighbours stay together.

    Parameters
    ----------
    coordinates
        (n_cells, 2), um.
    slide
        The slide of each cell.
    max_cells
        All rows where there are no more; else tiles by chance until so many are reached.
    distances
        Tiles are 300 um wide, or ten radii of neighbours where that is more.
    seed
        Of the draw, which does not depend on the order of the cells.
    """
    if len(slide) <= max_cells:
        return np.arange(len(slide))
    side = max(_TILE, 10.0 * distances.positive)
    cell = np.floor(np.asarray(coordinates, dtype=np.float32).astype(np.float64)[:, :2] / side).astype(np.int64)
    code = np.unique(slide, return_inverse=True)[1].ravel()
    _, tile, size = np.unique(np.column_stack([code, cell]), axis=0, return_inverse=True, return_counts=True)
    order = np.random.default_rng([seed, len(size)]).permutation(len(size))
    before = np.cumsum(size[order]) - size[order]
    return np.flatnonzero(np.isin(tile.ravel(), order[before < max_cells]))


def in_one_order(cells: HasPlaces) -> NDArray[np.int64]:
    """Return the cells by slide and place: what is fitted in this order is the same wherever cells come from."""
    return np.lexsort((cells.coordinates[:, 1], cells.coordinates[:, 0], cells.slide)).astype(np.int64)
