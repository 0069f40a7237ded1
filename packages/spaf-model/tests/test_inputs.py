import tracemalloc
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from spaf_model import InputError, SpatialFormer, SpatialFormerConfig


@pytest.fixture
def expected(model: SpatialFormer, adata: anndata.AnnData) -> np.ndarray:
    copy = adata.copy()
    model.embed(copy)
    return copy.obsm["X_SpaF"]


def test_each_table_of_a_list_gets_its_own_result(
    model: SpatialFormer, adata: anndata.AnnData, expected: np.ndarray
) -> None:
    parts = [adata[:25].copy(), adata[25:].copy()]
    model.embed(parts)
    np.testing.assert_allclose(np.concatenate([part.obsm["X_SpaF"] for part in parts]), expected, atol=1e-5)
    assert [part.uns["spaf"]["embed"]["n_cells"] for part in parts] == [25, 35]
    model.predict_colocalization(parts, 0.5)
    assert [part.obsm["colocalization_pred"].shape[0] for part in parts] == [25, 35]


def test_nothing_is_written_where_one_table_of_a_list_does_not_fit(
    model: SpatialFormer, adata: anndata.AnnData
) -> None:
    other = adata.copy()
    other.var_names = [f"other{position}" for position in range(other.n_vars)]
    with pytest.raises(InputError, match="Only 0 of 40 genes"):
        model.embed([adata, other])
    assert "X_SpaF" not in adata.obsm
    with pytest.raises(InputError, match="list of AnnData is empty"):
        model.embed([])


def test_slides_of_one_table_keep_their_own_context(model: SpatialFormer, adata: anndata.AnnData) -> None:
    tissue = np.where(np.arange(60) % 3 == 0, "Lung", "Breast")
    adata.obs["tissue"] = tissue
    model.embed(adata)
    for name in ("Lung", "Breast"):
        slide = adata[tissue == name].copy()
        model.embed(slide, tissue=name, key_added="alone")
        np.testing.assert_allclose(slide.obsm["alone"], slide.obsm["X_SpaF"], atol=1e-5)
    adata.obs["tissue"] = "Breast"
    model.embed(adata, key_added="breast")
    assert (np.abs(adata.obsm["breast"] - adata.obsm["X_SpaF"]).max(axis=1)[tissue == "Lung"] > 1e-3).all()


def test_table_of_a_spatialdata(model: SpatialFormer, adata: anndata.AnnData, expected: np.ndarray) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    sdata = spatialdata.SpatialData(tables={"cells": adata.copy()})
    model.embed(sdata)
    np.testing.assert_array_equal(sdata.tables["cells"].obsm["X_SpaF"], expected)
    left, right = ["cell1"], ["cell2"]
    np.testing.assert_array_equal(
        model.embed_pairs(sdata, left, right, table_key="cells").embeddings,
        model.embed_pairs(adata, left, right).embeddings,
    )
    sdata.tables["more"] = adata[:9].copy()
    with pytest.raises(InputError, match="which table of the SpatialData to use; it has: cells, more"):
        model.embed(sdata)
    with pytest.raises(InputError, match="no table 'none'; it has: cells, more"):
        model.embed(sdata, table_key="none")
    model.embed(sdata, table_key="more")
    np.testing.assert_allclose(sdata.tables["more"].obsm["X_SpaF"], expected[:9], atol=1e-5)


def test_what_is_no_table_of_cells(model: SpatialFormer, adata: anndata.AnnData) -> None:
    with pytest.raises(InputError, match="an AnnData or a SpatialData, not as a DataFrame"):
        model.embed(adata.to_df())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="table_key='cells' names a table of a SpatialData, but an AnnData"):
        model.embed(adata, table_key="cells")


def test_genes_by_column_by_index_or_by_id_give_one_result(
    model: SpatialFormer, adata: anndata.AnnData, expected: np.ndarray
) -> None:
    numbers = [f"n{position}" for position in range(40)]
    by_column, by_id = adata.copy(), adata.copy()
    by_column.var["gene_name"] = by_column.var_names.to_numpy()
    by_column.var_names = numbers
    by_id.var_names = [f"ENSG{position:011d}.7" for position in range(40)]
    for other in (by_column, by_id):
        model.embed(other)
        np.testing.assert_array_equal(other.obsm["X_SpaF"], expected)


def test_backed_file_is_read_in_bounded_memory(
    model: SpatialFormer, adata: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_cells = 6_000
    rng = np.random.default_rng(1)
    counts = sp.csr_matrix(rng.poisson(1.0, size=(n_cells, 40)).astype(np.float32))
    # Most of the file is genes that the model does not know: they have to be read, and not to be kept.
    others = sp.random(n_cells, 4_000, density=0.03, format="csr", random_state=1, dtype=np.float32)
    others.data[:] = 1.0
    whole = sp.hstack([counts, others], format="csr")
    big = anndata.AnnData(whole)
    big.var_names = [*adata.var_names, *(f"other{position}" for position in range(4_000))]
    big.write_h5ad(tmp_path / "big.h5ad")
    size = whole.data.nbytes + whole.indices.nbytes
    del big, whole, others
    monkeypatch.setattr("spaf_model.cell_source._ROWS_AT_A_TIME", 250)
    small = SpatialFormer(SpatialFormerConfig(width=8, n_layers=1, n_heads=1, max_genes=2), model.vocabulary, seed=0)
    context = dict.fromkeys(("tissue", "condition", "species", "assay"), "unknown")
    backed = anndata.read_h5ad(tmp_path / "big.h5ad", backed="r")
    tracemalloc.start()
    try:
        small.embed(backed, **context)  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        backed.file.close()
    assert np.isfinite(backed.obsm["X_SpaF"]).all()
    assert peak < size / 2
