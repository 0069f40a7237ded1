"""Cut the cells of a slide into compact tiles, and tiles with their positive pairs into blocks of cells."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


def tile_cells(coordinates: npt.NDArray[np.floating], max_cells: int) -> npt.NDArray[np.int32]:
    """Cut cells into compact tiles of about equal numbers of cells, by recursive splits across the longer side.

    Parameters
    ----------
    coordinates
        Array (n_cells, 2) in um.
    max_cells
        No tile holds more cells than this.

    Returns
    -------
    The tile of each cell, numbered from 0 so that tiles of near numbers are near on the slide.

    Notes
    -----
    Tiles differ by at most one cell in size. Cells at equal coordinates are told apart by their order. O(N log^2 N).
    """
    n_cells = len(coordinates)
    tiles = np.zeros(n_cells, np.int32)
    pending = [(np.arange(n_cells), 0, math.ceil(n_cells / max_cells))] if n_cells else []
    while pending:
        cells, first_tile, n_tiles = pending.pop()
        if n_tiles == 1:
            tiles[cells] = first_tile
            continue
        axis = int(np.argmax(np.ptp(coordinates[cells], axis=0)))
        cells = cells[np.argsort(coordinates[cells, axis], kind="stable")]
        left_tiles = n_tiles // 2
        # Tiles of a part take floor or ceil of its cells / its tiles: the left part gets the same share.
        cut = len(cells) * left_tiles // n_tiles
        pending.append((cells[:cut], first_tile, left_tiles))
        pending.append((cells[cut:], first_tile + left_tiles, n_tiles - left_tiles))
    return tiles


@dataclass(frozen=True, eq=False)
class BlockCells:
    """The cells and pairs of one block, as indices into the cells that were tiled."""

    owned: npt.NDArray[np.int64]  # ascending
    halo: npt.NDArray[np.int64]  # ascending
    pairs: npt.NDArray[np.int32]  # (n_pairs, 2), i < j, indices into owned followed by halo, sorted


def blocks_of_cells(tiles: npt.NDArray[np.int32], pairs: npt.NDArray[np.integer]) -> Iterator[BlockCells]:
    """Give every positive pair to one tile, and every tile the halo that its pairs need.

    Parameters
    ----------
    tiles
        The tile of each cell, as :func:`tile_cells` returns.
    pairs
        Array (n_pairs, 2) of positive pairs of cells.

    Yields
    ------
    One item a tile, in order of the tiles.

    Notes
    -----
    A pair across a border belongs to the tile of the lower number, so that only one of two neighbouring tiles
    carries a halo along their border.
    """
    n_tiles = int(tiles.max()) + 1 if len(tiles) else 0
    cell_order = np.argsort(tiles, kind="stable")
    cell_bounds = np.searchsorted(tiles[cell_order], np.arange(n_tiles + 1))
    owners = tiles[pairs].min(axis=1)
    pair_order = np.argsort(owners, kind="stable")
    pair_bounds = np.searchsorted(owners[pair_order], np.arange(n_tiles + 1))
    for tile in range(n_tiles):
        owned = cell_order[cell_bounds[tile] : cell_bounds[tile + 1]]
        tile_pairs = pairs[pair_order[pair_bounds[tile] : pair_bounds[tile + 1]]]
        halo = np.unique(tile_pairs[tiles[tile_pairs] != tile])
        local = np.where(
            tiles[tile_pairs] == tile,
            np.searchsorted(owned, tile_pairs),
            len(owned) + np.searchsorted(halo, tile_pairs),
        ).astype(np.int32)
        local.sort(axis=1)
        yield BlockCells(owned, halo, local[np.lexsort((local[:, 1], local[:, 0]))])
