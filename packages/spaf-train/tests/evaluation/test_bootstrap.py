import numpy as np

from spaf_train.evaluation import pair_weights, percentile_interval, spatial_tiles
from spaf_train.evaluation.discrimination import discrimination


def test_tiles_are_squares_of_one_slide():
    xy = np.array([[0.0, 0.0], [49.0, 49.0], [51.0, 0.0], [0.0, 0.0], [500.0, 500.0]])
    tiles = spatial_tiles(xy, np.array(["a", "a", "a", "b", "a"]), side=50.0)
    assert tiles.code[0] == tiles.code[1]
    assert len({tiles.code[0], tiles.code[2], tiles.code[3], tiles.code[4]}) == tiles.n == 4


def test_tiles_grow_with_the_tissue_and_hold_neighbours():
    rng = np.random.default_rng(0)
    small, large = (spatial_tiles(rng.random((2_000, 2)) * side) for side in (300.0, 10_000.0))
    assert small.side == 50.0
    assert 990 < large.side < 1_010
    assert 90 <= large.n <= 110


def test_weights_count_the_pairs_of_the_assembled_tissue():
    rng = np.random.default_rng(0)
    xy = rng.random((60, 2)) * 200
    tiles = spatial_tiles(xy, side=70.0)
    left, right = rng.integers(0, 60, 300), rng.integers(0, 60, 300)
    weights = pair_weights(tiles, left, right, n_replicates=20, seed=5)
    drawn = np.random.default_rng(5).multinomial(tiles.n, np.full(tiles.n, 1 / tiles.n), size=20)
    for replicate in range(20):
        # The tissue put together for real: copies of tiles, and the pairs of cells in it.
        copies = [(tile, copy) for tile in range(tiles.n) for copy in range(drawn[replicate, tile])]
        for pair in range(300):
            ends = tiles.code[left[pair]], tiles.code[right[pair]]
            if ends[0] == ends[1]:
                expected = sum(tile == ends[0] for tile, _ in copies)
            else:
                expected = sum(a[0] == ends[0] and b[0] == ends[1] for a in copies for b in copies)
            assert weights[replicate, pair] == expected


def test_interval_is_that_of_the_tissue_and_not_of_the_pairs():
    # All pairs of a tile have one score: there are as many observations as tiles, however many pairs are drawn.
    rng = np.random.default_rng(0)
    xy = np.repeat(np.stack(np.meshgrid(range(5), range(5)), axis=-1).reshape(-1, 2) * 100.0, 40, axis=0)
    tiles = spatial_tiles(xy, side=100.0)
    cells = np.arange(len(xy))
    labels = cells % 2 == 0
    scores = rng.normal(size=25)[tiles.code] + labels * rng.normal(1, 1, size=25)[tiles.code]
    by_tissue = discrimination(labels, scores, pair_weights(tiles, cells, cells, n_replicates=500, seed=0)).auroc
    resampled_pairs = rng.multinomial(len(cells), np.full(len(cells), 1 / len(cells)), 500)
    by_pair = discrimination(labels, scores, resampled_pairs).auroc
    wide, narrow = percentile_interval(0.5, by_tissue), percentile_interval(0.5, by_pair)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_interval_covers_the_mean_of_a_population_of_tiles():
    # The mean over 30 independent tiles, 300 times: the 95 % interval should hold the truth in about 95 of 100.
    rng = np.random.default_rng(0)
    xy = np.stack([np.arange(30) * 100.0, np.zeros(30)], axis=1)
    tiles = spatial_tiles(xy, side=100.0)
    cells = np.arange(30)
    weights = pair_weights(tiles, cells, cells, n_replicates=400, seed=1)
    covered = 0
    for _ in range(300):
        values = rng.normal(2.0, 1.0, 30)
        interval = percentile_interval(values.mean(), weights @ values / weights.sum(axis=1))
        covered += interval.low <= 2.0 <= interval.high
    assert 0.88 < covered / 300 < 0.98


def test_interval_of_undefined_replicates():
    assert np.isnan(percentile_interval(0.7, np.full(10, np.nan)).low)
    half = percentile_interval(0.7, np.r_[np.full(4, np.nan), np.linspace(0.6, 0.8, 6)])
    assert 0.6 < half.low < half.high < 0.8


def test_same_seed_same_weights():
    tiles = spatial_tiles(np.random.default_rng(0).random((100, 2)) * 300)
    left, right = np.arange(50), np.arange(50, 100)
    first, second, other = (pair_weights(tiles, left, right, n_replicates=5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_few_tiles_are_said_to_be_few():
    xy = np.arange(40.0)[:, None] * [60.0, 0.0]
    assert spatial_tiles(xy[:19], side=50.0).are_few
    assert not spatial_tiles(xy[:20], side=50.0).are_few
