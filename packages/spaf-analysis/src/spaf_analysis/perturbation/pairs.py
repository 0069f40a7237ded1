"""Near pairs of cells of two types, and far ones that are like them: of the same types, tile and genes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

_KEPT = 0.75  # of the matches of a tile, those whose cells are most alike


@dataclass(frozen=True)
class CellPairs:
    """Pairs of cells, no cell in two of them.

    Attributes
    ----------
    left, right
        Positions of the two cells.
    near
        Whether they are neighbours.
    stratum
        Within which near and far could change places: slide and tile (all pairs are of one pair of types).
    similarity
        Of each pair, the mean share of genes that its cells have in common with those of its match; NaN of given pairs.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    near: NDArray[np.bool_]
    stratum: NDArray[np.int64]
    similarity: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.left)


def matched_pairs(
    coordinates: NDArray[np.float64],
    slide: NDArray[np.generic],
    is_left: NDArray[np.bool_],
    is_right: NDArray[np.bool_],
    has_gene: NDArray[np.bool_],
    *,
    near: float,
    far: float,
    tile: float,
    max_pairs: int,
    seed: int = 0,
    names: NDArray[np.str_] | None = None,
) -> CellPairs:
    """Choose near and far pairs of cells at random, and match those that have much the same genes.

    Parameters
    ----------
    coordinates
        (n_cells, 2), in um.
    slide
        Of each cell; no pair spans slides.
    is_left, is_right
        Cells of either type; both may be the same type.
    has_gene
        (n_cells, n_genes), the genes that a cell has counts of.
    near, far
        A near pair is at most so far apart, a far one at least; in um.
    tile
        Side of the squares in um, in one of which all four cells of a match lie.
    max_pairs
        Near pairs at most.
    seed
        Of what is chosen.
    names
        Of the cells, which put in order those that lie in one place; None: their rows do.

    Notes
    -----
    What is drawn does not depend on the order of the rows: cells are ordered by coordinates, then by name.
    Each cell is in one pair at most, so that under no effect any two pairs of a tile could change places. Memory grows
    with the square of the cells of a tile.
    """
    rng = np.random.default_rng(seed)
    stratum = np.unique(
        np.c_[np.unique(slide, return_inverse=True)[1], np.floor(coordinates / tile)], axis=0, return_inverse=True
    )[1].ravel()
    ties = np.arange(len(coordinates)) if names is None else names
    order = np.lexsort((ties, *coordinates.T))
    usable = order[(is_left | is_right)[order]]
    of_usable = stratum[usable]
    matches: list[tuple[int, int, int, int, float, int]] = []
    for one in range(int(stratum.max(initial=-1)) + 1):
        cells = usable[of_usable == one]
        if len(cells) >= 4:
            of_tile = _of_tile(
                coordinates[cells], is_left[cells], is_right[cells], has_gene[cells], near=near, far=far, rng=rng
            )
            matches += [
                (int(cells[a]), int(cells[b]), int(cells[c]), int(cells[d]), alike, one)
                for a, b, c, d, alike in of_tile
            ]
    kept = [matches[place] for place in np.sort(rng.permutation(len(matches))[:max_pairs])]
    near_left, near_right, far_left, far_right = (
        np.array([match[side] for match in kept], dtype=np.int64) for side in range(4)
    )
    alike, where = np.array([match[4] for match in kept], dtype=float), np.array([match[5] for match in kept], np.int64)
    return CellPairs(
        np.concatenate([near_left, far_left]), np.concatenate([near_right, far_right]),
        np.arange(2 * len(kept)) < len(kept), np.tile(where, 2), np.tile(alike, 2),
    )  # fmt: skip


def given_pairs(
    coordinates: NDArray[np.float64],
    slide: NDArray[np.generic],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    near: NDArray[np.bool_],
    tile: float,
) -> CellPairs:
    """Return pairs that were chosen elsewhere, in strata by the slide and tile of their left cell."""
    keys = np.c_[np.unique(slide, return_inverse=True)[1], np.floor(coordinates / tile)][left]
    stratum = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    return CellPairs(left, right, near, stratum.astype(np.int64), np.full(len(left), np.nan))


def _of_tile(
    xy: NDArray[np.float64],
    is_left: NDArray[np.bool_],
    is_right: NDArray[np.bool_],
    has_gene: NDArray[np.bool_],
    *,
    near: float,
    far: float,
    rng: np.random.Generator,
) -> list[tuple[int, int, int, int, float]]:
    """Return matches of one tile: the cells of a near pair, those of its far pair, and how alike they are.

    Near and far pairs are drawn alike, as many of each, and those that have no like are left out of both: were the far
    ones searched for by their genes, they would be cells of many genes.
    """
    pairs = cKDTree(xy).query_pairs(near, output_type="ndarray")
    both_ways = np.concatenate([pairs, pairs[:, ::-1]])
    pairs = both_ways[is_left[both_ways[:, 0]] & is_right[both_ways[:, 1]]]
    free = np.ones(len(xy), dtype=bool)
    of_near, of_far = [], []
    for left, right in pairs[rng.permutation(len(pairs))]:
        if not (free[left] and free[right]):
            continue
        free[[left, right]] = False
        other = _far_pair(xy, np.flatnonzero(free & is_left), np.flatnonzero(free & is_right), far, rng)
        if other is None:
            break
        free[list(other)] = False
        of_near.append((int(left), int(right)))
        of_far.append(other)
    if not of_near:
        return []
    near_cells, far_cells = np.array(of_near), np.array(of_far)
    alike = _alike(has_gene[near_cells[:, 0]], has_gene[far_cells[:, 0]])
    alike = (alike + _alike(has_gene[near_cells[:, 1]], has_gene[far_cells[:, 1]])) * np.float32(0.5)
    row, column = linear_sum_assignment(alike, maximize=True)
    best = np.argsort(-alike[row, column], kind="stable")[: int(np.ceil(_KEPT * len(row)))]
    matched = zip(row[best], column[best], strict=True)
    return [(*of_near[one], *of_far[other], float(alike[one, other])) for one, other in matched]


def _far_pair(
    xy: NDArray[np.float64],
    lefts: NDArray[np.int64],
    rights: NDArray[np.int64],
    far: float,
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    """Return a pair of free cells far apart at random; None if there is none."""
    for left in rng.permutation(lefts):
        others = rights[np.linalg.norm(xy[rights] - xy[left], axis=1) >= far]
        if len(others):
            return int(left), int(rng.choice(others))
    return None


def _alike(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Return the share of genes that two cells have in common, of all cells with all others."""
    left, right = one.astype(np.float32), other.astype(np.float32)
    shared = left @ right.T
    either = left.sum(axis=1)[:, None] + right.sum(axis=1) - shared
    return np.asarray(shared / np.maximum(either, 1), dtype=np.float32)
