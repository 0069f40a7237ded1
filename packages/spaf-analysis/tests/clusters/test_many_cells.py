import numpy as np

from spaf_analysis.clusters.compute import leiden


def test_clusters_of_more_cells_than_are_searched_exactly():
    """From 8,192 cells on neighbours are found by another library."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 2_800)
    found = leiden(np.eye(4)[truth] + rng.normal(0, 0.05, (8_400, 4)), resolution=0.05)
    assert len(np.unique(found)) == 3
    for cluster in range(3):
        assert len(np.unique(truth[found == cluster])) == 1
