import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from spaf_data import InputError, ReadOptions, read_counts


@pytest.fixture
def adata(truth):
    """The truth as a table of cells with a control, places in um and an annotation."""
    counts = truth.counts()
    counts.insert(2, "BLANK_0001", 1)
    return anndata.AnnData(
        sparse.csr_matrix(counts.to_numpy().astype(np.float32)),
        obs=pd.DataFrame({"cell_type": "T", "tissue": "Skin"}, index=[f"c{cell}" for cell in counts.index]),
        var=pd.DataFrame({"gene_ids": [f"ENSG{i:011d}" for i in range(7)]}, index=list(counts.columns)),
        obsm={"spatial": truth.corners[counts.index - 1] + 5.0},
    )


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
def test_object_file_and_store_agree(adata, tmp_path):
    adata.write_h5ad(tmp_path / "slide.h5ad")
    adata.write_zarr(tmp_path / "slide.zarr")
    for source in (adata, tmp_path / "slide.h5ad", tmp_path / "slide.zarr"):
        slide = read_counts(source, condition="Healthy")
        genes = [gene for gene in adata.var_names if gene != "BLANK_0001"]
        assert slide.var_names.tolist() == genes
        np.testing.assert_array_equal(slide.X.toarray(), adata[:, genes].X.toarray())
        assert slide.X.dtype == np.int32
        assert slide.var["gene_ids"].tolist() == adata.var["gene_ids"].drop("BLANK_0001").tolist()
        np.testing.assert_array_equal(slide.obsm["spatial"], adata.obsm["spatial"])
        assert slide.obs["cell_type"].tolist() == ["T"] * slide.n_obs
        assert slide.obs["tissue"].unique().tolist() == ["Skin"], "what the table says of itself"
        assert slide.obs["condition"].unique().tolist() == ["Healthy"]
        assert slide.uns["spaf"]["account"]["controls"] == adata.n_obs


def test_pixels_become_um(adata):
    slide = read_counts(adata, options=ReadOptions(pixel_size=0.5))
    np.testing.assert_allclose(slide.obsm["spatial"], adata.obsm["spatial"] / 2)


def test_layer(adata):
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X / 3
    with pytest.raises(InputError, match=r"must be integers of at least 0, but in the AnnData cell 'c1' has .*layer"):
        read_counts(adata)
    slide = read_counts(adata, options=ReadOptions(layer="counts"))
    assert slide.X.sum() == adata.layers["counts"].sum() - adata.n_obs
    with pytest.raises(InputError, match="has no layer 'raw'; it has: counts"):
        read_counts(adata, options=ReadOptions(layer="raw"))


def test_small_cells_are_counted(adata):
    depth = np.asarray(adata[:, adata.var_names != "BLANK_0001"].X.sum(axis=1)).ravel()
    limit = int(np.median(depth))
    account = read_counts(adata, min_transcripts=limit).uns["spaf"]["account"]
    assert account["small_cells"] == (depth < limit).sum() > 0
    assert account["in_small_cells"] == depth[depth < limit].sum()
    with pytest.raises(InputError, match=rf"no cell of the AnnData has 1000 .* the largest has {int(depth.max())}"):
        read_counts(adata, min_transcripts=1000)


def test_genes_that_share_a_symbol_go_by_their_ids(adata):
    adata.var_names = ["ACTB", "TBCE", "BLANK_0001", "TBCE", "HLA_A", "KRT5", "VIM"]
    assert read_counts(adata).var_names.tolist() == [
        "ACTB", "ENSG00000000001", "ENSG00000000003", "HLA_A", "KRT5", "VIM",
    ]  # fmt: skip
    del adata.var["gene_ids"]
    with pytest.raises(InputError, match="the AnnData has two genes named 'TBCE'"):
        read_counts(adata)


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_two_cells_with_one_name(adata):
    adata.obs_names = ["c1", *adata.obs_names[:-1]]
    with pytest.raises(InputError, match="the AnnData has two cells named 'c1'"):
        read_counts(adata)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_centroid_that_is_not_finite(adata, bad):
    adata.obsm["spatial"][3, 1] = bad
    with pytest.raises(InputError, match=r"centroid that is not finite \(NaN or infinite\) for cell 'c4'"):
        read_counts(adata)


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_count_that_is_none(adata, bad):
    adata.X[2, 4] = bad
    with pytest.raises(InputError, match=r"cell 'c3' has (-1|nan) of gene 'KRT5'"):
        read_counts(adata)


def test_no_places(adata):
    adata.obsm["X_pca"] = adata.obsm.pop("spatial")
    with pytest.raises(InputError, match=r"has no obsm 'spatial' .*; obsm has: X_pca"):
        read_counts(adata)


def test_truncated_file(adata, tmp_path):
    file = tmp_path / "slide.h5ad"
    adata.write_h5ad(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match=r"slide.h5ad cannot be read as an AnnData"):
        read_counts(file)


def test_the_table_that_is_given_is_left_as_it_is(adata):
    adata.X = sparse.csr_matrix(adata.X)
    adata.X.data[::3] = 0  # zeros that are stored
    adata.X.indices[:2] = adata.X.indices[1::-1].copy()
    adata.X.has_sorted_indices = False
    before = adata.copy()
    read_counts(adata, min_transcripts=1)
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(adata.X, part), getattr(before.X, part))


def test_genes_that_go_by_ensembl_id_get_the_names_of_their_column(adata):
    symbols = adata.var_names.tolist()
    adata.var = pd.DataFrame({"feature_name": symbols}, index=adata.var["gene_ids"].to_numpy())
    adata.var.iloc[0, 0] = None
    slide = read_counts(adata)
    assert slide.var_names.tolist() == ["ENSG00000000000", *[name for name in symbols[1:] if name != "BLANK_0001"]]
    assert slide.var["gene_ids"].tolist() == [f"ENSG{number:011d}" for number in (0, 1, 3, 4, 5, 6)]
    assert slide.uns["spaf"]["parameters"]["gene_names"] == "feature_name"


def test_names_of_genes_stay_where_they_are_no_ids(adata):
    symbols = [name for name in adata.var_names if name != "BLANK_0001"]
    adata.var["feature_name"] = "something else"
    assert read_counts(adata).var_names.tolist() == symbols


def test_genes_by_number_get_names_and_ids_of_their_columns(adata):
    symbols = adata.var_names.tolist()
    ids = adata.var["gene_ids"].tolist()
    adata.var = pd.DataFrame({"feature_name": symbols, "feature_id": ids}, index=[str(n) for n in range(7)])
    slide = read_counts(adata)
    assert slide.var_names.tolist() == [name for name in symbols if name != "BLANK_0001"]
    assert slide.var["gene_ids"].tolist() == [
        one for one, name in zip(ids, symbols, strict=True) if name[:5] != "BLANK"
    ]


def test_ids_among_names_get_those_of_their_column(adata):
    symbols = adata.var_names.tolist()
    rows = [f"ENSG{n:011d}.3" if n < 2 else name for n, name in enumerate(symbols)]
    adata.var = pd.DataFrame({"feature_name": [*symbols[:2], *["other"] * 5]}, index=rows)
    slide = read_counts(adata)
    assert slide.var_names.tolist() == [name for name in symbols if name != "BLANK_0001"]
    assert slide.var["gene_ids"].tolist() == [*rows[:2], "", "", "", ""]


@pytest.mark.parametrize("column", ["ensembl", "ENSEMBL_ID", "Gene_IDs", "feature_id"])
def test_columns_of_ids_whatever_their_case_beside_one_that_says_the_names(adata, column):
    symbols = adata.var_names.tolist()
    adata.var = pd.DataFrame(
        {"gene_id": symbols, column: adata.var["gene_ids"].to_numpy()}, index=[f" {name} " for name in symbols]
    )
    slide = read_counts(adata)
    assert slide.var_names.tolist() == [name for name in symbols if name != "BLANK_0001"]
    assert slide.var["gene_ids"].tolist()[0] == "ENSG00000000000"
    del adata.var[column]
    assert "gene_ids" not in read_counts(adata).var


def test_a_genome_before_all_names_is_none_of_them(adata):
    genes = [name for name in adata.var_names if name != "BLANK_0001"]
    human = adata[:, genes].copy()
    human.var_names = [f"GRCh38_{name}" for name in genes]
    assert read_counts(human).var_names.tolist() == genes


@pytest.mark.parametrize("kind", ["frame", "sparse", "fields", "store"])
def test_places_of_any_kind_are_read(adata, tmp_path, kind):
    x, y = adata.obsm["spatial"].T
    fields = np.rec.fromarrays([y, x], names=["y", "x"])
    source = adata.copy()
    match kind:
        case "frame":
            source.obsm["spatial"] = pd.DataFrame({"y": y, "x": x}, index=adata.obs_names)
        case "sparse":
            source.obsm["spatial"] = sparse.csr_matrix(adata.obsm["spatial"])
        case "fields":
            source.obsm["spatial"] = fields
        case "store":
            source = tmp_path / "slide.h5ad"
            adata.write_h5ad(source)
            with h5py.File(source, "r+") as file:
                del file["obsm/spatial"]
                file["obsm"].create_dataset("spatial", data=np.asarray(fields)).attrs.update(
                    {"encoding-type": "rec-array", "encoding-version": "0.2.0"}
                )
    np.testing.assert_array_equal(read_counts(source).obsm["spatial"], adata.obsm["spatial"])


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        (lambda n: np.full((n, 2), "left"), r"obsm 'spatial' that does not hold numbers"),
        (lambda n: np.zeros(n, [("row", "f8"), ("col", "f8")]), r"obsm 'spatial' of the fields row, col, and none"),
    ],
)
def test_places_that_are_none_are_one_sentence(adata, places, sentence):
    adata.obsm["spatial"] = places(adata.n_obs)
    with pytest.raises(InputError, match=sentence):
        read_counts(adata)
