import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spaf_data.corpus.tiling import blocks_of_cells, tile_cells
from spaf_data.pairs import positive_pairs


@given(st.integers(0, 300), st.integers(1, 50), st.integers(0, 5))
def test_tiles_are_even_and_no_larger_than_asked(n_cells: int, max_cells: int, seed: int) -> None:
    # Whole coordinates, so that many are equal.
    coordinates = np.random.default_rng(seed).integers(0, 20, (n_cells, 2)).astype(float)
    sizes = np.bincount(tile_cells(coordinates, max_cells))
    assert sizes.sum() == n_cells
    assert len(sizes) == math.ceil(n_cells / max_cells)
    if n_cells:
        assert sizes.max() <= max_cells
        assert np.ptp(sizes) <= 1


def test_tiles_are_compact() -> None:
    coordinates = np.random.default_rng(0).random((8192, 2)) * [2000.0, 1000.0]
    tiles = tile_cells(coordinates, 1024)
    for tile in range(8):
        width, height = np.ptp(coordinates[tiles == tile], axis=0)
        assert max(width, height) < 600  # the eight tiles are squares of 500 um, about


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200), st.integers(1, 60), st.integers(0, 5))
def test_every_cell_and_every_pair_is_in_one_block(n_cells: int, max_cells: int, seed: int) -> None:
    coordinates = np.random.default_rng(seed).integers(0, 200, (n_cells, 2)).astype(float)
    pairs = positive_pairs(coordinates, 30.0)
    owned, found = [], []
    for block in blocks_of_cells(tile_cells(coordinates, max_cells), pairs):
        cells = np.concatenate([block.owned, block.halo])
        assert len(np.unique(cells)) == len(cells)
        assert (block.pairs[:, 0] < block.pairs[:, 1]).all()
        assert (block.pairs[:, 0] < len(block.owned)).all()
        assert sorted(map(tuple, block.pairs.tolist())) == list(map(tuple, block.pairs.tolist()))
        # The halo is no larger than needed.
        assert set(range(len(block.owned), len(cells))) <= set(block.pairs.ravel().tolist())
        owned.append(block.owned)
        found.append(np.sort(cells[block.pairs], axis=1))
    assert sorted(np.concatenate([*owned, []])) == list(range(n_cells))
    found = np.concatenate([*found, np.empty((0, 2))]).tolist()
    assert sorted(found) == pairs.tolist()
