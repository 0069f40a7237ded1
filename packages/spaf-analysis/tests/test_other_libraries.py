"""What the analyses write is drawn by scanpy, squidpy and spatialdata-plot as it is, and a SpatialData holds it."""

import anndata as ad
import matplotlib
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from spatialdata import SpatialData

from spaf_analysis import tl

matplotlib.use("Agg")
COLUMNS = ("spaf_cluster", "spaf_niche", "label_pred")


@pytest.fixture
def analysed(tissue):
    """The tissue with clusters, map, niches and labels."""
    reference = tissue.copy()
    reference.obs_names = "ref-" + reference.obs_names
    tl.cluster(tissue, resolution=0.2)
    tl.umap(tissue)
    tl.niches(tissue, n_domains=2)
    tl.annotate(tissue, reference, "type", key="X_SpaF")
    return tissue


@pytest.fixture(autouse=True)
def closed():
    from matplotlib import pyplot

    yield
    pyplot.close("all")


@pytest.mark.filterwarnings("ignore")
def test_scanpy_draws_them(analysed):
    for basis in ("X_SpaF_umap", "spatial", "X_SpaF_niche"):
        for column in COLUMNS:
            axes = sc.pl.embedding(analysed, basis=basis, color=column, show=False)
            drawn = axes.collections[0]
            assert len(drawn.get_offsets()) == analysed.n_obs
            assert len(np.unique(drawn.get_facecolors(), axis=0)) == analysed.obs[column].nunique()
    axes = sc.pl.embedding(analysed, basis="spatial", color="label_pred_probability", show=False)
    assert len(axes.collections[0].get_array()) == analysed.n_obs
    assert sc.pl.violin(analysed, "label_pred_probability", groupby="spaf_niche", show=False) is not None


@pytest.mark.filterwarnings("ignore")
def test_squidpy_draws_them(analysed):
    squidpy = pytest.importorskip("squidpy")
    for column in COLUMNS:
        axes = squidpy.pl.spatial_scatter(analysed, color=column, shape=None, return_ax=True)
        assert axes.get_title() == column
    squidpy.gr.nhood_enrichment(analysed, cluster_key="spaf_niche", seed=0, show_progress_bar=False)
    assert analysed.uns["spaf_niche_nhood_enrichment"]["zscore"].shape == (2, 2)
    squidpy.pl.nhood_enrichment(analysed, cluster_key="spaf_niche")


@pytest.mark.filterwarnings("ignore")
def test_spatialdata_plot_draws_them(analysed):
    pytest.importorskip("spatialdata_plot")
    geopandas = pytest.importorskip("geopandas")
    shapely = pytest.importorskip("shapely")
    from matplotlib import pyplot
    from spatialdata.models import ShapesModel, TableModel

    names = analysed.obs_names.to_numpy()
    circles = geopandas.GeoDataFrame(
        {"geometry": [shapely.Point(*place) for place in analysed.obsm["spatial"]], "radius": 8.0}, index=names
    )
    table = analysed.copy()
    table.obs["region"], table.obs["instance"] = pd.Categorical(["cells"] * table.n_obs), names
    store = SpatialData(
        shapes={"cells": ShapesModel.parse(circles)},
        tables={"table": TableModel.parse(table, region="cells", region_key="region", instance_key="instance")},
    )
    for column in COLUMNS:
        _, axes = pyplot.subplots()
        store.pl.render_shapes("cells", color=column, table_name="table").pl.show(ax=axes)
        assert axes.collections


def test_annotate_and_niches_read_and_write_a_spatialdata(tissue):
    alone, reference = tissue.copy(), tissue.copy()
    reference.obs_names = "ref-" + reference.obs_names
    store = SpatialData(tables={"cells": tissue, "other": tissue[:5].copy()})
    of_reference = SpatialData(tables={"reference": reference})
    tl.niches(store, n_domains=2, table_key="cells")
    tl.annotate(store, of_reference, "type", key="X_SpaF", table_key="cells")
    tl.niches(alone, n_domains=2)
    tl.annotate(alone, reference, "type", key="X_SpaF")
    written = store.tables["cells"]
    pd.testing.assert_frame_equal(written.obs[["spaf_niche", "label_pred"]], alone.obs[["spaf_niche", "label_pred"]])
    np.testing.assert_array_equal(written.obsm["X_SpaF_niche"], alone.obsm["X_SpaF_niche"])
    assert written.uns["label_pred"]["method"] == alone.uns["label_pred"]["method"]
    assert not {"spaf_niche", "label_pred"} & set(store.tables["other"].obs)


@pytest.mark.filterwarnings("ignore")
def test_a_store_that_is_written_and_read_holds_them(tissue, tmp_path):
    reference = tissue.copy()
    reference.obs_names = "ref-" + reference.obs_names
    store = SpatialData(tables={"cells": tissue})
    tl.niches(store, n_domains=2)
    tl.annotate(store, reference, "type")
    tissue.uns.pop("spatial_neighbors", None)
    store.write(tmp_path / "store.zarr")
    again = SpatialData.read(tmp_path / "store.zarr").tables["cells"]
    assert isinstance(again, ad.AnnData)
    for column in ("spaf_niche", "label_pred"):
        assert again.obs[column].astype(str).tolist() == tissue.obs[column].astype(str).tolist()
    pd.testing.assert_frame_equal(again.uns["label_pred"]["judged"], tissue.uns["label_pred"]["judged"])
    assert list(again.uns["label_pred"]["notes"]) == list(tissue.uns["label_pred"]["notes"])
