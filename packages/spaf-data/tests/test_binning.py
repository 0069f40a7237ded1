import numpy as np
import pytest
from scipy import sparse

from spaf_data import InputError, Transcripts, bin_transcripts


def dense_twin(transcripts, min_transcripts):
    counts = np.zeros((transcripts.n_cells, transcripts.n_genes), int)
    np.add.at(counts, (transcripts.cell, transcripts.gene), 1)
    large = counts.sum(axis=1) >= min_transcripts
    return counts[large], large


@pytest.mark.parametrize("min_transcripts", [1, 30, 150])
def test_counts_agree_with_a_dense_twin(transcripts, min_transcripts):
    adata = bin_transcripts(transcripts, min_transcripts=min_transcripts)
    counts, large = dense_twin(transcripts, min_transcripts)
    assert sparse.isspmatrix_csr(adata.X)
    assert adata.X.dtype == np.int32
    assert adata.X.has_canonical_format
    np.testing.assert_array_equal(adata.X.toarray(), counts)
    assert adata.obs_names.tolist() == transcripts.cells[large].tolist()
    assert adata.var_names.tolist() == transcripts.genes
    assert adata.obs["n_transcripts"].tolist() == counts.sum(axis=1).tolist()


def test_account_says_where_every_transcript_went(transcripts):
    adata = bin_transcripts(transcripts, min_transcripts=100)
    account = adata.uns["spaf"]["account"]
    assert account["binned"] == adata.X.sum()
    assert account["in_small_cells"] > 0
    parts = ("controls", "low_quality", "unassigned", "in_small_cells", "binned")
    assert account["read"] == sum(account[part] for part in parts)
    assert account["cells"] == account["small_cells"] + account["kept_cells"]
    assert account["kept_cells"] == adata.n_obs


def test_nucleus_centroid_and_area(transcripts):
    adata = bin_transcripts(transcripts, min_transcripts=1)
    np.testing.assert_array_equal(adata.obsm["spatial"], transcripts.centroids)
    np.testing.assert_array_equal(adata.obs["area"], transcripts.areas)
    cell = 5
    inside = slice(transcripts.offsets[cell], transcripts.offsets[cell + 1])
    assert adata.obs["nucleus_fraction"].iloc[cell] == pytest.approx(transcripts.in_nucleus[inside].mean())


def test_centroid_of_transcripts_where_there_is_no_segmentation():
    transcripts = Transcripts.from_arrays(
        x=np.array([0.0, 2.0, 10.0]),
        y=np.array([1.0, 3.0, 10.0]),
        gene=np.array([0, 1, 1]),
        cell=np.array([0, 0, 1]),
        genes=["a", "b"],
        cells=["one", "two"],
    )
    adata = bin_transcripts(transcripts, min_transcripts=1)
    assert adata.obsm["spatial"].tolist() == [[1.0, 2.0], [10.0, 10.0]]
    assert adata.obs["nucleus_fraction"].isna().all()
    assert "area" not in adata.obs
    assert "gene_ids" not in adata.var


def test_context_is_given_else_the_run_s_else_unknown(transcripts):
    obs = bin_transcripts(transcripts, slide="s1", tissue="Skin").obs
    assert {key: obs[key].cat.categories.tolist() for key in ("slide", "tissue", "condition", "species", "assay")} == {
        "slide": ["s1"],
        "tissue": ["Skin"],
        "condition": ["unknown"],
        "species": ["Simulated"],
        "assay": ["Xenium"],
    }


def test_no_cell_is_large_enough(transcripts):
    with pytest.raises(InputError, match="no cell has 100000 transcripts"):
        bin_transcripts(transcripts, min_transcripts=100000)


def test_survives_the_disk(transcripts, tmp_path):
    import anndata

    adata = bin_transcripts(transcripts)
    adata.write_h5ad(tmp_path / "slide.h5ad")
    back = anndata.read_h5ad(tmp_path / "slide.h5ad")
    np.testing.assert_array_equal(back.X.toarray(), adata.X.toarray())
    assert back.uns["spaf"]["account"] == adata.uns["spaf"]["account"]
    assert back.var["gene_ids"].tolist() == transcripts.gene_ids
