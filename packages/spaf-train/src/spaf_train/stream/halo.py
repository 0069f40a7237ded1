"""Whole halos: every cell within the radius of the corpus around the cells that a block owns.

A block carries the halo that its own pairs need, and a pair across a border belongs to the block of the lower number.
So of two neighbouring blocks one alone has the cells on the other side. What the other lacks is read from its
neighbours.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spaf_train._csr import csr_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from spaf_data import Block, BlockRef


class Halos:
    """Completes the halos of the blocks of a split.

    Where blocks lie is found by reading those of a slide once, when a block of it is first asked for.

    Parameters
    ----------
    refs
        The blocks of the split.
    read
        Reads a block.
    radius
        How far a halo reaches, um: that of the corpus.
    skip_shards
        Names of shards that are not read; their cells are missing in halos.
    """

    def __init__(
        self,
        refs: Sequence[BlockRef],
        read: Callable[[BlockRef], Block],
        radius: float,
        skip_shards: Collection[str] = (),
    ) -> None:
        self._refs, self._read, self._radius = refs, read, radius
        self._places: dict[str, list[int]] = {}
        for place, ref in enumerate(refs):
            if ref.shard not in skip_shards:
                self._places.setdefault(ref.slide, []).append(place)
        self._boxes: dict[int, NDArray[np.float64]] = {}  # lowest and highest coordinates of a block's cells, (2, 2)

    def completed(self, place: int, block: Block) -> Block:
        """Return a block with its whole halo; what it had comes first, and pairs stay as they are."""
        others = [other for other in self._touching(place) if other != place]
        tree, known = cKDTree(block.coordinates[: block.n_owned]), set(block.cell_ids.tolist())
        for other in others:
            neighbour = self._read(self._refs[other])
            n = neighbour.n_owned
            near = tree.query(neighbour.coordinates[:n], distance_upper_bound=np.nextafter(self._radius, np.inf))[0]
            chosen = [row for row in np.flatnonzero(np.isfinite(near)) if neighbour.cell_ids[row] not in known]
            block = _with_halo(block, neighbour, np.array(chosen, dtype=np.int64))
        return block

    def reach(self, slide: str) -> float:
        """Return up to what distance (um) every neighbour of the cells that a block of a slide owns is in it."""
        return np.inf if len(self._places.get(slide, [])) == 1 else self._radius

    def _touching(self, place: int) -> list[int]:
        """Return the blocks of the slide whose cells may lie within the radius of those of a block."""
        places = self._places[self._refs[place].slide]
        if len(places) == 1:
            return places
        for other in places:
            if other not in self._boxes:
                block = self._read(self._refs[other])
                own = block.coordinates[: block.n_owned]
                self._boxes[other] = np.stack([own.min(axis=0), own.max(axis=0)]).astype(np.float64)
        low, high = self._boxes[place]
        reach = self._radius
        return [
            other
            for other in places
            if (self._boxes[other][0] <= high + reach).all() and (self._boxes[other][1] >= low - reach).all()
        ]


def _with_halo(block: Block, other: Block, rows: NDArray[np.int64]) -> Block:
    """Return a block with some cells of another behind its halo."""
    if not rows.size:
        return block
    entries, n_entries = csr_rows(other.indptr, rows)
    edges, n_edges = csr_rows(other.colocalized_indptr, rows)
    return dataclasses.replace(
        block,
        cell_ids=np.concatenate([block.cell_ids, other.cell_ids[rows]]),
        coordinates=np.concatenate([block.coordinates, other.coordinates[rows]]),
        indptr=np.concatenate([block.indptr, block.indptr[-1] + np.cumsum(n_entries)]),
        genes=np.concatenate([block.genes, other.genes[entries]]),
        counts=np.concatenate([block.counts, other.counts[entries]]),
        colocalized_indptr=np.concatenate(
            [block.colocalized_indptr, block.colocalized_indptr[-1] + np.cumsum(n_edges)]
        ),
        colocalized=np.concatenate([block.colocalized, other.colocalized[edges]]),
    )
