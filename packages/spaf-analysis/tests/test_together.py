import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from spaf_analysis import InputError, one_table


@pytest.fixture
def files(tissue, tmp_path):
    """Two slides with one gene of its own each, and gene pairs."""
    paths = []
    for name, genes in (("a", [0, 1, 2, 3, 4]), ("b", [5, 3, 2, 1, 0])):
        slide = tissue[:, genes].copy()
        slide.obs["slide"] = pd.Categorical([name] * slide.n_obs)
        slide.obs[f"only_{name}"] = 1
        pairs = pd.DataFrame({"gene_a": slide.var_names[[0, 1, 0]], "gene_b": slide.var_names[[1, 2, 2]]})
        rng = np.random.default_rng(len(paths))
        slide.obsm["colocalization"] = sparse.csr_matrix(rng.integers(0, 2, (slide.n_obs, 3)).astype(np.int8))
        slide.uns["colocalization"] = {"method": "communities", "parameters": {}, "pairs": pairs.astype(object)}
        paths.append(tmp_path / f"{name}.h5ad")
        slide.write_h5ad(paths[-1])
    return paths


def test_cells_genes_and_graphs_of_both(files):
    table, slides = one_table(files), [ad.read_h5ad(file) for file in files]
    n = slides[0].n_obs
    genes = ["LEFT1", "LEFT2", "RIGHT1", "RIGHT2"]
    assert table.var_names.tolist() == genes, "those that both measure"
    for slide, rows in zip(slides, (slice(0, n), slice(n, None)), strict=True):
        part = table[rows]
        assert (part.X != slide[:, genes].X).nnz == 0
        assert part.obs["slide"].astype(str).tolist() == slide.obs["slide"].astype(str).tolist()
        np.testing.assert_array_equal(part.obsm["spatial"], slide.obsm["spatial"])
        assert (part.obsp["spatial_connectivities"] != slide.obsp["spatial_connectivities"]).nnz == 0
        for row in range(0, n, 37):
            assert _pairs(part, row) == {pair for pair in _pairs(slide, row) if pair <= set(genes)}
    assert table.obsp["spatial_connectivities"][:n, n:].nnz == 0
    assert table.obs_names.is_unique
    assert table.obs_names[[0, n]].tolist() == ["a-cell0", "b-cell0"]
    assert not {"only_a", "only_b"} & set(table.obs.columns)
    assert isinstance(table.obs["split"].dtype, pd.CategoricalDtype)


def _pairs(adata, row):
    columns = adata.obsm["colocalization"][row].nonzero()[1]
    return {frozenset(pair) for pair in adata.uns["colocalization"]["pairs"].iloc[columns].to_numpy().tolist()}


def test_what_cannot_stand_together(files, tmp_path):
    with pytest.raises(InputError, match="no slide table to put together"):
        one_table([])
    with pytest.raises(InputError, match=r"a.h5ad is of a slide that another table has too: a"):
        one_table([files[0], files[0]])
    other = ad.read_h5ad(files[1])
    other.var_names = [f"OTHER{gene}" for gene in range(other.n_vars)]
    other.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(InputError, match="share less than 5% of them"):
        one_table([files[0], tmp_path / "other.h5ad"])
    del other.obs["slide"]
    other.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(InputError, match="other.h5ad is no slide table"):
        one_table([files[0], tmp_path / "other.h5ad"])
