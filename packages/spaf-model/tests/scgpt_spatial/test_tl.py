"""The call of the published project."""

from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from spaf_model import InputError
from spaf_model.scgpt_spatial import ScGPTSpatial, ScGPTSpatialConfig, tl


@pytest.fixture
def directory(model: ScGPTSpatial, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_in_place_and_new(model: ScGPTSpatial, directory: Path, adata: anndata.AnnData, tmp_path: Path) -> None:
    model.embed(adata)
    expected = adata.obsm["X_SpaF"]
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    adata.var["feature_name"] = adata.var_names
    adata.var_names = [f"other{position}" for position in range(adata.n_vars)]
    adata.obs["celltype"] = "T"
    for matrix in (sp.csr_matrix(adata.X), sp.csc_matrix(adata.X), adata.X.toarray()):
        adata.X = matrix
        returned = tl.embed_data(adata, directory, batch_size=3)
        assert returned is adata
        np.testing.assert_allclose(adata.obsm["X_scGPT"], expected, atol=1e-5)
    assert adata.n_vars == 40
    new = tl.embed_data(adata, directory, obs_to_save="celltype", return_new_adata=True, use_fast_transformer=False)
    np.testing.assert_allclose(new.X, expected, atol=1e-5)
    assert list(new.obs.columns) == ["celltype"]
    assert new.obs_names.tolist() == adata.obs_names.tolist()
    assert tl.embed_data(adata, directory, return_new_adata=True).obs_names.tolist() == adata.obs_names.tolist()
    adata.write_h5ad(tmp_path / "slide.h5ad")
    read = tl.embed_data(tmp_path / "slide.h5ad", directory)
    np.testing.assert_allclose(read.obsm["X_scGPT"], expected, atol=1e-5)
    backed = anndata.read_h5ad(tmp_path / "slide.h5ad", backed="r")
    np.testing.assert_allclose(tl.embed_data(backed, directory).obsm["X_scGPT"], expected, atol=1e-5)
    backed.file.close()


def test_the_limit_is_that_of_the_call(model: ScGPTSpatial, directory: Path, adata: anndata.AnnData) -> None:
    short = tl.embed_data(adata, directory, gene_col="index", max_length=6, return_new_adata=True).X
    model.config = ScGPTSpatialConfig(**{**model.config.as_dict(), "max_length": 6})
    model.embed(adata)
    expected = adata.obsm["X_SpaF"] / np.linalg.norm(adata.obsm["X_SpaF"], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=1e-5)
    whole = tl.embed_data(adata, directory, gene_col="index", return_new_adata=True).X
    assert np.abs(whole - short).max() > 1e-3


def test_what_cannot_be_is_one_sentence(directory: Path, adata: anndata.AnnData, tmp_path: Path) -> None:
    cases: dict[str, dict[str, object]] = {
        r"var has no column 'feature_name' \(gene_col\); it has: none": {},
        "max_length must be a whole number of at least 2, not 1": {"gene_col": "index", "max_length": 1},
        "batch_size must be a whole number of at least 1": {"gene_col": "index", "batch_size": 0},
        r"obs has no column 'kind' \(obs_to_save\)": {"gene_col": "index", "obs_to_save": ["kind"]},
        "There is no layer 'raw'": {"gene_col": "index", "layer": "raw"},
        "neither a model directory nor a published folder": {"gene_col": "index", "model_dir": tmp_path / "none"},
        "is not a published folder": {"gene_col": "index", "model_dir": tmp_path},
        "does not exist or is not a file": {"adata_or_file": tmp_path / "none.h5ad"},
    }
    for sentence, options in cases.items():
        arguments = {"adata_or_file": adata, "model_dir": directory, **options}
        with pytest.raises(InputError, match=sentence):
            tl.embed_data(**arguments)  # type: ignore[arg-type]
    assert "X_scGPT" not in adata.obsm
    (tmp_path / "bad.h5ad").write_text("no")
    with pytest.raises(InputError, match="cannot be read as an h5ad"):
        tl.embed_data(tmp_path / "bad.h5ad", directory)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("negative", "Counts must not be negative: cell 'cell3' has the value -1"),
        ("logarithms", "The values look log-normalised or scaled"),
        ("twice", "Gene 'GENE1' occurs more than once"),
        ("mouse", "these look like genes of mouse"),
    ],
)
def test_bad_cells(directory: Path, adata: anndata.AnnData, change: str, sentence: str) -> None:
    adata.var["feature_name"] = adata.var_names.to_numpy(dtype=object)
    dense = adata.X.toarray()
    if change == "negative":
        dense[3, 2] = -1
    elif change == "logarithms":
        dense = np.log1p(dense)
    elif change == "twice":
        adata.var.loc["GENE2", "feature_name"] = "GENE1"
    else:
        adata.var["feature_name"] = [name.title() for name in adata.var_names]
    adata.X = dense
    with pytest.raises(InputError, match=sentence):
        tl.embed_data(adata, directory)
    assert "X_scGPT" not in adata.obsm
