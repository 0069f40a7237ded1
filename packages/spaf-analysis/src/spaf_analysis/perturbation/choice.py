"""Which pairs of cells of a table are looked at, and which genes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_analysis.cell_pairs.tool import distances_of
from spaf_analysis.defaults import MAX_CELL_PAIRS, MIN_CELL_PAIRS
from spaf_analysis.errors import InputError
from spaf_analysis.genes import check_gene_names
from spaf_analysis.perturbation.pairs import CellPairs, given_pairs, matched_pairs
from spaf_analysis.tables import check_radius, labels_of, places_of, slide_names
from spaf_model import Model, match_genes

if TYPE_CHECKING:
    import anndata as ad
    from scipy import sparse

_TILE = 3.0  # side of a tile, in the least distance of far pairs


@dataclass(frozen=True, kw_only=True)
class PairChoice:
    """Which pairs of cells: near and matched far ones of two types, or those of a table.

    Parameters
    ----------
    cell_type
        Column of `obs` with cell types.
    left, right
        The two types; they may be the same.
    pairs
        In place of types, a table with the columns `left`, `right` (names of cells) and `near` (true or false).
    near, far
        Distances in um: near pairs are at most, far ones at least so far apart. None: those of the cell graph, or 30
        and 80 um.
    tile
        Side of the squares within which near and far pairs are matched and permuted, in um; None: three times `far`.
    max_pairs
        Near pairs at most, each with a far one.
    min_pairs
        Near and far pairs of cells that must have both genes of a gene pair.
    seed
        Of the choice.
    """

    cell_type: str | None = None
    left: str | None = None
    right: str | None = None
    pairs: pd.DataFrame | None = None
    near: float | None = None
    far: float | None = None
    tile: float | None = None
    max_pairs: int = MAX_CELL_PAIRS
    min_pairs: int = MIN_CELL_PAIRS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pairs is None and None in (self.cell_type, self.left, self.right):
            raise InputError("name the column of cell types and two types (cell_type, left, right), or give pairs.")
        if self.pairs is not None and (self.left is not None or self.right is not None):
            raise InputError("give two cell types (left, right) or pairs of cells, not both.")
        for name in ("max_pairs", "min_pairs"):
            if getattr(self, name) < 2:
                raise InputError(f"{name} must be at least 2, not {getattr(self, name)}.")

    @property
    def is_one_type(self) -> bool:
        """Whether the two cells of a pair have no order."""
        return self.pairs is None and self.left == self.right

    @property
    def names(self) -> tuple[str, str]:
        """What the cells of either side are called."""
        return (self.left or "left cells", self.right or "right cells")

    def distances(self, table: ad.AnnData) -> tuple[float, float, float]:
        """Return near, far and the side of a tile, in um.

        Raises
        ------
        InputError
            If they contradict each other.
        """
        usual = distances_of(table)
        near = usual.positive if self.near is None else float(self.near)
        far = max(usual.hard_min, near) if self.far is None else float(self.far)
        tile = _TILE * far if self.tile is None else float(self.tile)
        if not 0 < near <= far < tile * np.sqrt(2) < np.inf:
            raise InputError(
                f"near ({near:g} um) must be above 0 and at most far ({far:g} um), and a tile (side {tile:g} um) must "
                "be large enough for cells that are far apart."
            )
        return near, far, tile

    def of(self, table: ad.AnnData, has_gene: NDArray[np.bool_]) -> CellPairs:
        """Choose the pairs of cells of a table.

        Raises
        ------
        InputError
            If a column, a type or a cell is not there, cells have no places, or there are too few pairs.
        """
        near, far, tile = self.distances(table)
        xy, slide = places_of(table), slide_names(table)
        if self.pairs is not None:
            chosen = _given(table, self.pairs, xy, slide, tile)
        else:
            assert self.cell_type is not None
            code, names = labels_of(table, self.cell_type, "cell_type", least=1)
            for side in self.names:
                if side not in names:
                    raise InputError(
                        f"obs column {self.cell_type!r} has no cells of type {side!r}; it has: {', '.join(names)}."
                    )
            check_radius(xy, slide, near, "near")
            is_left, is_right = (code == names.index(side) for side in self.names)
            chosen = matched_pairs(
                xy, slide, is_left, is_right, has_gene, near=near, far=far, tile=tile, max_pairs=self.max_pairs,
                seed=self.seed, names=table.obs_names.to_numpy().astype(str),
            )  # fmt: skip
        n_near, n_far = int(chosen.near.sum()), int((~chosen.near).sum())
        if min(n_near, n_far) < self.min_pairs:
            cells = " and ".join(repr(name) for name in self.names)
            raise InputError(
                f"there are {n_near} near and {n_far} far pairs of {cells} (within {near:g} um, beyond {far:g} um, no "
                f"cell in two of them), and at least {self.min_pairs} of each are needed; try a larger tile (now "
                f"{tile:g} um) or fewer pairs (min_pairs)."
            )
        return chosen


def _given(
    table: ad.AnnData, pairs: pd.DataFrame, xy: NDArray[np.float64], slide: NDArray[np.str_], tile: float
) -> CellPairs:
    for column in ("left", "right", "near"):
        if column not in pairs:
            raise InputError(f"the table of pairs has no column {column!r}; it has: {', '.join(map(str, pairs))}.")
    if not table.obs_names.is_unique:
        raise InputError("cells cannot be named, because two have one name; make names unique first.")
    found_cells: list[NDArray[np.int64]] = []
    for column in ("left", "right"):
        found = table.obs_names.get_indexer(pairs[column].astype(str))
        if (found < 0).any():
            raise InputError(f"the pairs name a cell that is not there: {str(pairs[column].iloc[found.argmin()])!r}.")
        found_cells.append(found.astype(np.int64))
    cells, times = np.unique(np.concatenate(found_cells), return_counts=True)
    if times.max(initial=0) > 1:
        raise InputError(
            f"cell {str(table.obs_names[cells[times.argmax()]])!r} is in {times.max()} pairs: values of pairs that "
            "share a cell cannot be exchanged, so each cell may be in one."
        )
    said = pairs["near"].astype(str).str.strip().str.casefold()
    unknown = said[~said.isin(("true", "false", "1", "0"))]
    if len(unknown):
        raise InputError(f"the column near of the pairs must hold true or false, not {unknown.iloc[0]!r}.")
    left, right = found_cells
    return given_pairs(xy, slide, left, right, said.isin(("true", "1")).to_numpy(), tile)


def genes_of_cells(
    table: ad.AnnData, counts: sparse.csr_matrix, model: Any, genes: Sequence[str] | None
) -> NDArray[np.bool_]:
    """Return which genes each cell has counts of, (n_cells, n_genes): of those asked for that the model knows.

    Raises
    ------
    InputError
        If a gene is not in the table or twice, or the model lacks it.
    """
    known = np.ones(table.n_vars, dtype=bool)
    if isinstance(model, Model):
        known = match_genes(table.var, model.vocabulary, min_fraction=0.0).token_ids >= 0
    used = known
    if genes is not None:
        if isinstance(genes, str):
            raise InputError(f"genes is a list of names, not {genes!r}.")
        check_gene_names(table)
        place = table.var_names.get_indexer(list(genes))
        if (place < 0).any():
            raise InputError(f"the table has no gene {list(genes)[int(place.argmin())]!r}.")
        lacking = [gene for gene, column in zip(genes, place, strict=True) if not known[column]]
        if lacking:
            raise InputError(f"the model lacks {len(lacking)} of the genes asked for, such as {lacking[0]!r}.")
        used = np.isin(np.arange(table.n_vars), place)
    return np.asarray((counts > 0).toarray() & used)
