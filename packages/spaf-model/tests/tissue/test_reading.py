import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spaf_model import InputError, match_genes
from spaf_model.tissue.reading import genes_of, places_of, read_counts, read_slides, slides_of


def read(adata, vocabulary=None, *, layer=None, slide_key=None, with_places=True):
    vocabulary = vocabulary or genes_of([adata])
    match = match_genes(adata.var, vocabulary, min_fraction=0.0)
    return read_slides(adata, vocabulary, match, layer=layer, slide_key=slide_key, with_places=with_places)


def as_type(matrix, kind):
    match kind:
        case "csc":
            return sp.csc_matrix(matrix)
        case "coo":
            return sp.csr_matrix(matrix.tocoo())
        case "dense":
            return matrix.toarray()
        case "array":
            return sp.csr_array(matrix)
        case _:
            return matrix.toarray().astype(kind)


@pytest.mark.parametrize("kind", ["csc", "coo", "dense", "array", "float16", "uint8", "int64", "uint32", "float64"])
def test_counts_of_every_kind_of_matrix_are_the_same(slide, kind):
    other = anndata.AnnData(as_type(slide.X, kind), obs=slide.obs, var=slide.var, obsm=dict(slide.obsm))
    expected, found = read(slide)[0].counts, read(other)[0].counts
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), expected.toarray())


def test_a_backed_file_and_a_layer_are_read(slide, tmp_path):
    slide.layers["raw"] = slide.X.copy()
    slide.write_h5ad(tmp_path / "slide.h5ad")
    backed = anndata.read_h5ad(tmp_path / "slide.h5ad", backed="r")
    expected = read(slide)[0].counts.toarray()
    np.testing.assert_array_equal(read(backed)[0].counts.toarray(), expected)
    backed.file.close()
    slide.X = slide.X * 0.5
    np.testing.assert_array_equal(read(slide, layer="raw")[0].counts.toarray(), expected)


def test_large_counts_do_not_overflow(slide):
    dense = slide.X.toarray().astype(np.int32)
    dense[0] = 2_000_000_000
    slide.X = sp.csr_matrix(dense)
    assert read(slide)[0].counts[[0]].sum(dtype=np.float64) == pytest.approx(40 * 2e9)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(np.nan, "must be finite"), (-1.0, "must not be negative"), (0.5, "look log-normalised"), (np.inf, "finite")],
)
def test_what_is_no_count_is_refused_and_the_cell_named(slide, value, sentence):
    dense = slide.X.toarray().astype(np.float64)
    dense[7, 3] = value
    dense = np.minimum(dense, 15) if value == 0.5 else dense
    slide.X = dense
    with pytest.raises(InputError, match=rf"{sentence}.*cell7"):
        read(slide)


def test_a_layer_that_is_not_there_is_refused(slide):
    with pytest.raises(InputError, match="no layer 'raw'; the layers are: none"):
        read(slide, layer="raw")
    slide.X = None
    with pytest.raises(InputError, match="has no X"):
        read(slide)


def test_places_that_cannot_be_are_refused(slide):
    slide.obsm["spatial"][3, 1] = np.nan
    with pytest.raises(InputError, match="not finite for 1 of 400 cells, first for cell 'cell3'"):
        places_of(slide)
    slide.obsm["spatial"] = np.ones((400, 4))
    with pytest.raises(InputError, match="2 or 3 coordinates"):
        places_of(slide)
    slide.obsm["spatial"] = pd.DataFrame({"x": ["a"] * 400, "y": ["b"] * 400}, index=slide.obs_names)
    with pytest.raises(InputError, match="does not hold numbers"):
        places_of(slide)
    del slide.obsm["spatial"]
    assert places_of(slide) is None


def test_places_in_a_table_or_in_three_dimensions_are_read(slide):
    expected = slide.obsm["spatial"].copy()
    slide.obsm["spatial"] = pd.DataFrame(expected, columns=["x", "y"], index=slide.obs_names)
    np.testing.assert_array_equal(places_of(slide), expected)
    slide.obsm["spatial"] = np.c_[expected, np.zeros(400)]
    assert places_of(slide).shape == (400, 3)


def test_slides_inside_a_table_are_told_apart(slide):
    slide.obs["slide"] = pd.Categorical(["b", "a"] * 200)
    first, second = read(slide)
    assert (first.name, second.name) == ("a", "b")
    np.testing.assert_array_equal(first.rows, np.arange(1, 400, 2))
    np.testing.assert_array_equal(second.coordinates, slide.obsm["spatial"][::2])
    slide.obs["other"] = "one"
    assert set(slides_of(slide, "other")) == {"one"}
    slide.obs["slide"] = slide.obs["slide"].where(np.arange(400) > 0)
    with pytest.raises(InputError, match="no slide for 1 of 400 cells"):
        slides_of(slide, None)
    with pytest.raises(InputError, match=r"no obs column 'sample' \(slide_key\); obs has: slide, other"):
        slides_of(slide, "sample")


def test_cells_without_counts_are_left_out(slide):
    dense = slide.X.toarray()
    dense[[2, 9]] = 0
    slide.X = sp.csr_matrix(dense)
    np.testing.assert_array_equal(read(slide)[0].rows, np.setdiff1d(np.arange(400), [2, 9]))


@pytest.mark.parametrize("n_cells", [1, 9])
def test_a_slide_of_few_cells_is_refused(slide, n_cells):
    with pytest.raises(InputError, match=f"has {n_cells} cells with counts.*at least 10"):
        read(slide[:n_cells].copy())


def test_a_table_without_cells_is_refused(slide):
    with pytest.raises(InputError, match="has no cells"):
        read(slide[:0].copy())


def table(names, ids=None):
    var = pd.DataFrame(index=names) if ids is None else pd.DataFrame({"gene_ids": ids}, index=names)
    rng = np.random.default_rng(len(names))
    return anndata.AnnData(rng.poisson(2.0, (12, len(names))).astype(np.float32), var=var)


def test_genes_of_several_tables_are_joined_by_id_else_by_symbol():
    ids = ["ENSG00000000001", "ENSG00000000002.5", ""]
    vocabulary = genes_of([table(["A", "B", "C"], ids), table(["OLD_B", "C", "D"], ["ENSG00000000002", "", ""])])
    assert [vocabulary.tokens[token] for token in vocabulary.gene_token_ids] == ["A", "B", "C", "D"]


def test_ids_as_names_are_shown_by_their_symbols():
    one = table(["ENSG00000000001", "ENSG00000000002"])
    one.var["gene_name"] = ["A", "B"]
    vocabulary = genes_of([one])
    assert [vocabulary.tokens[token] for token in vocabulary.gene_token_ids] == ["A", "B"]
    assert read_counts(one, vocabulary, match_genes(one.var, vocabulary, min_fraction=1.0), layer=None)[0].shape == (
        12,
        2,
    )


def test_two_genes_of_one_symbol_are_told_by_their_ids():
    ids = ["ENSG00000000001", "ENSG00000000002", "ENSG00000000003"]
    with pytest.warns(UserWarning, match="not unique"):
        one = table(["A", "A", "B"], ids)
    vocabulary = genes_of([one])
    assert vocabulary.gene_token_ids.size == 3
    match = match_genes(one.var, vocabulary, min_fraction=1.0)
    np.testing.assert_array_equal(read_counts(one, vocabulary, match, layer=None)[0].toarray(), one.X)


def test_columns_of_one_gene_are_added():
    one = table(["A", "A_2", "B"], ["ENSG00000000001", "ENSG00000000001", ""])
    vocabulary = genes_of([one])
    match = match_genes(one.var, vocabulary, min_fraction=1.0)
    expected = np.c_[one.X[:, 0] + one.X[:, 1], one.X[:, 2]]
    np.testing.assert_array_equal(read_counts(one, vocabulary, match, layer=None)[0].toarray(), expected)


def test_a_gene_that_stands_in_the_table_twice_is_refused():
    with pytest.warns(UserWarning, match="not unique"):
        one = table(["A", "A", "B"])
    with pytest.raises(InputError, match="'A' occurs more than once"):
        read(one)
