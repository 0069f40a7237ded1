import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from spaf_analysis import InputError, cluster, marker_genes, umap


def test_clusters_find_the_types_and_are_ordered_by_size(tissue):
    cluster(tissue, resolution=0.2)
    labels = tissue.obs["spaf_cluster"]
    assert adjusted_rand_score(tissue.obs["type"], labels) > 0.95
    sizes = labels.value_counts()[list(labels.cat.categories)]
    assert list(labels.cat.categories) == [str(rank + 1) for rank in range(len(sizes))]
    assert sizes.is_monotonic_decreasing
    assert tissue.uns["spaf_cluster"]["resolution"] == 0.2


def test_clusters_are_the_same_each_time(tissue):
    cluster(tissue, key_added="first")
    cluster(tissue, key_added="second")
    assert tissue.obs["first"].equals(tissue.obs["second"].rename("first"))


def test_cells_without_an_embedding_have_no_cluster(tissue):
    tissue.obsm["X_SpaF"][3] = np.nan
    cluster(tissue)
    assert tissue.obs["spaf_cluster"].isna().to_numpy().nonzero()[0].tolist() == [3]
    assert marker_genes(tissue)["n_cells"].sum() == tissue.n_obs - 1


def test_missing_embedding_names_what_there_is(tissue):
    with pytest.raises(InputError, match=r"obsm has no embedding 'X_other'; it has: spatial, X_SpaF"):
        cluster(tissue, key="X_other")
    tissue.obsm["X_SpaF"][2:] = np.nan
    with pytest.raises(InputError, match="only 2 cells have an embedding"):
        cluster(tissue)


def test_marker_genes_are_those_planted(tissue):
    markers = marker_genes(tissue, key="type", n_genes=2)
    assert set(markers.loc["0", "genes"]) == {"LEFT1", "LEFT2"}
    assert set(markers.loc["1", "genes"]) == {"RIGHT1", "RIGHT2"}
    assert markers["share"].sum() == pytest.approx(1)


def test_umap_is_the_same_each_time_and_keeps_types_apart(tissue):
    first, second = umap(tissue.obsm["X_SpaF"]), umap(tissue.obsm["X_SpaF"])
    np.testing.assert_array_equal(first, second)
    types = tissue.obs["type"].to_numpy() == "1"
    centres = first[types].mean(axis=0), first[~types].mean(axis=0)
    nearer = np.linalg.norm(first - centres[0], axis=1) < np.linalg.norm(first - centres[1], axis=1)
    assert (nearer == types).mean() > 0.95
