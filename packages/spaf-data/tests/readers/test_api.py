import shutil
import sys

import anndata
import numpy as np
import pandas as pd
import pytest

from spaf_data import InputError, find_bundles, has_transcripts, read_counts, read_transcripts


@pytest.fixture
def runs(bundle, tmp_path):
    """A folder of runs of several platforms beside what is none."""
    shutil.copytree(bundle, tmp_path / "xenium")
    (tmp_path / "merscope").mkdir()
    pd.DataFrame({"global_x": [1.0], "global_y": [2.0], "gene": ["VIM"], "cell_id": [4]}).to_csv(
        tmp_path / "merscope" / "detected_transcripts.csv"
    )
    (tmp_path / "cosmx").mkdir()
    pd.DataFrame({"fov": [1], "cell_ID": [3], "x_global_px": [1.0], "y_global_px": [1.0], "target": ["VIM"]}).to_csv(
        tmp_path / "cosmx" / "a_tx_file.csv", index=False
    )
    (tmp_path / "counts").mkdir()
    pd.DataFrame({"cell": [1], "VIM": [40]}).to_csv(tmp_path / "counts" / "cell_by_gene.csv", index=False)
    pd.DataFrame({"EntityID": [1], "center_x": [1.0], "center_y": [1.0]}).to_csv(
        tmp_path / "counts" / "cell_metadata.csv", index=False
    )
    anndata.AnnData(
        np.array([[40]]), pd.DataFrame(index=["a"]), pd.DataFrame(index=["VIM"]), obsm={"spatial": np.ones((1, 2))}
    ).write_h5ad(tmp_path / "table.h5ad")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes.txt").write_text("nothing")
    return tmp_path


def test_auto_recognises_each(runs):
    found = find_bundles(runs)
    assert [path.name for path in found] == ["cosmx", "counts", "merscope", "table.h5ad", "xenium"]
    assert [has_transcripts(path) for path in found] == [True, False, True, False, True]
    for path in found:
        if has_transcripts(path):
            platform = read_transcripts(path).parameters["platform"]
            assert platform == path.name
        else:
            platform = read_counts(path).uns["spaf"]["parameters"]["platform"]
            assert platform == {"counts": "merscope", "table.h5ad": "anndata"}[path.name]


def test_platform_narrows_the_choice(runs):
    assert [path.name for path in find_bundles(runs, platform="merscope")] == ["counts", "merscope"]
    with pytest.raises(InputError, match=r"xenium is not a run with transcripts; looked for \*_tx_file.csv \(cosmx\)"):
        read_transcripts(runs / "xenium", platform="cosmx")


@pytest.mark.parametrize("platform", ["xenium", "merscope", "cosmx"])
def test_file_of_any_name_by_its_columns(runs, platform):
    file = next(file for file in (runs / platform).iterdir() if file.name.endswith(("scripts.parquet", ".csv")))
    renamed = runs / f"renamed{file.suffix}"
    shutil.copy(file, renamed)
    assert read_transcripts(renamed).parameters["platform"] == platform
    assert read_transcripts(file).parameters["platform"] == platform


def test_file_of_no_known_columns(runs):
    pd.DataFrame({"a": [1]}).to_csv(runs / "a.csv", index=False)
    with pytest.raises(InputError, match="a.csv is not a run with transcripts; looked for"):
        read_transcripts(runs / "a.csv")
    with pytest.raises(InputError, match="a.csv has no column 'fov'; it has: a"):
        read_transcripts(runs / "a.csv", platform="cosmx")


@pytest.mark.parametrize("read", [read_transcripts, read_counts, has_transcripts, find_bundles])
def test_what_is_no_run(runs, read):
    with pytest.raises(InputError, match="is not a run with .*; looked for .*"):
        read(runs / "notes")
    with pytest.raises(InputError, match="nowhere does not exist"):
        read(runs / "nowhere")
    with pytest.raises(InputError, match="unknown platform 'slideseq'; choose from auto, "):
        read(runs / "xenium", platform="slideseq")


def test_objects_of_other_kinds(runs):
    adata = anndata.read_h5ad(runs / "table.h5ad")
    with pytest.raises(InputError, match="the AnnData object is not a run with transcripts"):
        read_transcripts(adata)
    assert not has_transcripts(adata)


def test_store_without_the_library(tmp_path, monkeypatch):
    (tmp_path / "slide.zarr" / "points" / "transcripts").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(
        InputError, match=r"slide.zarr needs the library spatialdata: pip install 'spaf-data\[spatialdata\]'"
    ):
        read_transcripts(tmp_path / "slide.zarr")
