import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

from spaf_data import InputError, ReadOptions, read_counts, read_transcripts

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    spatialdata = pytest.importorskip("spatialdata")
geopandas = pytest.importorskip("geopandas")

pytestmark = [
    # Of dask, xarray and zarr, when spatialdata makes and writes elements.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def make(truth, *, with_cells=True, with_table=True, gene="gene"):
    """The truth as a SpatialData object whose system "global" is of pixels."""
    from spatialdata.models import PointsModel, ShapesModel, TableModel
    from spatialdata.transformations import Scale

    to_pixels = {"global": Scale([4.7, 4.7], axes=("x", "y"))}
    names = np.array(["", *(f"cell_{i}" for i in range(1, len(truth.corners) + 1))])
    table = pd.DataFrame(
        {
            "x": truth.x,
            "y": truth.y,
            "z": truth.plane.astype(float),
            gene: pd.Categorical(truth.gene),
            "qv": np.where(truth.plane == 0, 40.0, 20.0),
            "nucleus_boundaries": np.where(truth.plane == 0, names[truth.cell], ""),
        }
    )
    keys = {"feature_key": "gene"} if gene == "gene" else {}
    if with_cells:
        table["owner"] = names[truth.cell]
        keys["instance_key"] = "owner"
    elements = {
        "transcripts": PointsModel.parse(
            table, transformations={"global": Scale([4.7, 4.7, 1.0], axes=("x", "y", "z"))}, **keys
        ),
        "cells": ShapesModel.parse(
            geopandas.GeoDataFrame(geometry=truth.squares(), index=names[1:]), transformations=to_pixels
        ),
    }
    if with_table:
        counts = truth.counts()
        adata = anndata.AnnData(
            counts.to_numpy().astype(np.float32),
            obs=pd.DataFrame({"region": "cells", "cell": names[counts.index]}, index=names[counts.index]),
            var=pd.DataFrame(index=list(counts.columns)),
        )
        adata.obs["region"] = adata.obs["region"].astype("category")
        elements["table"] = TableModel.parse(adata, region="cells", region_key="region", instance_key="cell")
    return spatialdata.SpatialData.init_from_elements(elements)


def assert_is_truth(found, truth):
    counts = truth.counts()
    counts.index = [f"cell_{i}" for i in counts.index]
    counts = counts.sort_index()
    assert found.cells.tolist() == counts.index.tolist()
    assert found.genes == counts.columns.tolist()
    seen = np.zeros(counts.shape, int)
    np.add.at(seen, (found.cell, found.gene), 1)
    np.testing.assert_array_equal(seen, counts.to_numpy())
    assert found.account.read == len(truth.x)
    assert found.x.max() < 72, "um, not the pixels of the system global"
    np.testing.assert_array_equal(found.in_nucleus, found.z == 0)
    np.testing.assert_allclose(found.areas, 100.0)


def test_object_and_store(truth, tmp_path):
    sdata = make(truth)
    sdata.write(tmp_path / "slide.zarr")
    assert_is_truth(read_transcripts(sdata), truth)
    assert_is_truth(read_transcripts(tmp_path / "slide.zarr"), truth)


def test_min_qv(truth):
    found = read_transcripts(make(truth), min_qv=30.0)
    assert found.account.low_quality == ((truth.plane == 1) & (truth.gene != "Blank-7")).sum()


def test_cells_by_shapes(truth):
    found = read_transcripts(make(truth, with_cells=False))
    assert found.parameters["cells"] == "by polygon"
    assert_is_truth(found, truth)


def test_pixel_size(truth):
    found = read_transcripts(make(truth), options=ReadOptions(pixel_size=0.5))
    assert 34 < found.x.max() < 36
    np.testing.assert_allclose(found.areas, 25.0)


def test_points_key(truth):
    sdata = make(truth)
    sdata["other"] = sdata["transcripts"]
    with pytest.raises(InputError, match=r"has 2 points, so name one with points_key; it has: transcripts, other"):
        read_transcripts(sdata)
    with pytest.raises(InputError, match=r"has no points 'spots'; it has: transcripts, other"):
        read_transcripts(sdata, options=ReadOptions(points_key="spots"))
    assert_is_truth(read_transcripts(sdata, options=ReadOptions(points_key="other")), truth)


def test_counts(truth, tmp_path):
    sdata = make(truth)
    sdata.write(tmp_path / "slide.zarr")
    for source in (sdata, tmp_path / "slide.zarr"):
        slide = read_counts(source, min_transcripts=1)
        counts = truth.counts()
        np.testing.assert_array_equal(slide.X.toarray(), counts.to_numpy())
        # The table has no places of its own: they are those of its shapes.
        np.testing.assert_allclose(slide.obsm["spatial"], truth.corners[counts.index - 1] + 5.0)
        assert slide.uns["spaf"]["parameters"]["table_key"] == "table"


def test_no_table_and_no_points(truth, tmp_path):
    sdata = make(truth, with_table=False)
    with pytest.raises(InputError, match="is not a run with counts"):
        read_counts(sdata)
    del sdata.points["transcripts"]
    with pytest.raises(InputError, match="the SpatialData object is not a run with transcripts"):
        read_transcripts(sdata)


def test_no_column_of_genes(truth):
    with pytest.raises(InputError, match=r"points 'transcripts' of .* have no column of genes .*: x, y, z, what, qv"):
        read_transcripts(make(truth, gene="what"))


def test_damaged_store(truth, tmp_path):
    make(truth).write(tmp_path / "slide.zarr")
    for file in (tmp_path / "slide.zarr" / "points").rglob("*.parquet"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"slide.zarr cannot be read by spatialdata"):
        read_transcripts(tmp_path / "slide.zarr")


def test_table_of_the_oldest_layout(truth, tmp_path):
    """The library passes over it in silence."""
    make(truth, with_table=False).write(tmp_path / "slide.zarr")
    (tmp_path / "slide.zarr" / "table" / "table").mkdir(parents=True)
    with pytest.raises(InputError, match=r"slide.zarr has its table in the folder 'table', a layout that"):
        read_counts(tmp_path / "slide.zarr")
