import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from spaf_model import CellCounts, CellSource, InputError, ReadingOptions, TissueModel, Vocabulary, check_counts

_CONTEXT = {"condition": "Disease", "tissue": "Breast", "species": "Human", "assay": "Xenium"}
INDPTR = np.array([0, 2, 4])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0, np.nan, 1.0], "finite: cell 'b' has the value nan"),
        ([1.0, np.inf, 1.0, 1.0], "finite: cell 'a' has the value inf"),
        ([1.0, 2.0, 3.0, -2.0], "negative: cell 'b' has the value -2.0"),
        ([1.0, 2.0, 0.69, 1.1], "log-normalised or scaled .cell 'b' has the value 0.69.*layer="),
        ([1.0, -0.5, 0.69, 1.1], "log-normalised or scaled"),
        ([1.0, 250.5, 3.0, 1.0], "whole numbers: cell 'a' has the value 250.5"),
    ],
)
def test_what_is_not_a_count_is_refused_by_name(values: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_counts(INDPTR, np.array(values), cell_names=["a", "b"])


def test_counts_are_accepted_in_any_dtype() -> None:
    for dtype in (np.int32, np.uint8, np.float64, np.float32, bool):
        check_counts(INDPTR, np.array([0, 1, 1, 0]).astype(dtype))
    check_counts(np.array([0, 0]), np.array([], dtype=np.float32))


def test_integer_counts_may_not_be_negative() -> None:
    with pytest.raises(InputError, match="the cell at position 1 has the value -3"):
        check_counts(INDPTR, np.array([1, 2, 3, -3]))


def test_empty_rows_between_cells_do_not_shift_the_name() -> None:
    with pytest.raises(InputError, match="'c'"):
        check_counts(np.array([0, 1, 1, 2]), np.array([1.0, -1.0]), cell_names=["a", "b", "c"])


def test_what_is_read_of_an_anndata(adata: anndata.AnnData, vocabulary: Vocabulary) -> None:
    some = adata[:, :39].copy()
    source = CellSource(some, vocabulary, ReadingOptions())
    cells = source.read()
    assert cells.n_cells == 60
    np.testing.assert_array_equal(cells.n_genes, np.diff(some.X.indptr))
    genes = vocabulary.gene_token_ids
    np.testing.assert_array_equal(cells.matrix().toarray()[:, genes[:39]], some.X.toarray())
    assert cells.measured[genes].tolist() == [True] * 39 + [False]  # the last gene is unknown, not zero
    assert not cells.measured[: genes[0]].any()
    assert cells.counts.dtype == np.float32
    assert (cells.slides.tolist(), cells.slide_names, cells.places) == ([0] * 60, [""], None)
    assert source.none().n_cells == 0


def test_chunks_join_to_the_whole(
    adata: anndata.AnnData, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    adata.obs["sample"] = np.repeat(["b", "a", "c"], 20)
    adata.obsm["spatial"] = np.random.default_rng(0).random((60, 2))
    whole = CellSource(adata, vocabulary, ReadingOptions(), by_slide=True).read()
    assert whole.slides.tolist() == np.repeat([0, 1, 2], 20).tolist()
    assert whole.slide_names == ["b", "a", "c"]
    np.testing.assert_array_equal(whole.places, adata.obsm["spatial"])
    monkeypatch.setattr("spaf_model.cell_source._ROWS_AT_A_TIME", 17)
    source = CellSource(adata, vocabulary, ReadingOptions(), by_slide=True)
    joined = CellCounts.joined([cells for _, cells in source.chunks()])
    for name in ("indptr", "tokens", "counts", "context", "measured", "slides", "places"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


def test_places_that_are_none(adata: anndata.AnnData, vocabulary: Vocabulary) -> None:
    source = CellSource(adata, vocabulary, ReadingOptions(), cells=np.array([3, 5]), by_slide=True)
    assert source.read().places is None
    adata.obsm["spatial"] = np.arange(120.0).reshape(60, 2)
    source = CellSource(adata, vocabulary, ReadingOptions(), cells=np.array([3, 5]), by_slide=True)
    assert source.read().places.tolist() == [[6.0, 7.0], [10.0, 11.0]]  # type: ignore[union-attr]
    for places, message in (
        (np.ones((60, 4)), "2 or 3 coordinates a cell"),
        (np.full((60, 2), "x"), "not hold numbers"),
    ):
        adata.obsm["spatial"] = places
        with pytest.raises(InputError, match=message):
            CellSource(adata, vocabulary, ReadingOptions(), by_slide=True)


def _cells(values: np.ndarray | sparse.csr_matrix, genes: list[str]) -> anndata.AnnData:
    return anndata.AnnData(values, var=pd.DataFrame(index=genes[: values.shape[1]]))


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_true_and_false_are_no_counts(make: type, vocabulary: Vocabulary, genes: list[str]) -> None:
    adata = _cells(make(np.ones((3, 5), dtype=bool)), genes)
    source = CellSource(adata, vocabulary, ReadingOptions(**_CONTEXT, min_gene_fraction=0.0))
    with pytest.raises(InputError, match=r"say true and false, which genes are seen and not how often: .*layer="):
        source.read()


def test_counts_that_float16_has_rounded(vocabulary: Vocabulary, genes: list[str]) -> None:
    options = ReadingOptions(**_CONTEXT, min_gene_fraction=0.0)
    values = np.full((2, 5), 2048, dtype=np.float16)
    assert CellSource(_cells(values, genes), vocabulary, options).read().counts.max() == 2048
    values[1, 1] = 2050
    with pytest.raises(InputError, match=r"float16 and reach 2050, where that type has no odd numbers above 2048"):
        CellSource(_cells(values, genes), vocabulary, options).read()


def test_own_tissue_models_look_at_the_type_too() -> None:
    for values, sentence in (
        (np.ones((12, 4), bool), "true and false"),
        (np.full((12, 4), 4000, np.float16), "float16"),
    ):
        adata = anndata.AnnData(values, obsm={"spatial": np.random.default_rng(0).uniform(0, 99, (12, 2))})
        with pytest.raises(InputError, match=sentence):
            TissueModel.fit(adata)


def test_some_cells_are_those_of_the_matrix() -> None:
    cells = CellCounts(
        indptr=np.array([0, 2, 2, 5]),
        tokens=np.array([3, 1, 0, 2, 3]),
        counts=np.array([1, 2, 3, 4, 5], dtype=np.float32),
        context=np.arange(12).reshape(3, 4),
        measured=np.ones(4, dtype=bool),
        slides=np.array([0, 1, 1]),
    )
    rows = np.array([2, 0, 1, 2])
    some = cells.take(rows)
    np.testing.assert_array_equal(some.matrix().toarray(), cells.matrix().toarray()[rows])
    assert some.context.tolist() == cells.context[rows].tolist()
    assert some.slides.tolist() == [1, 0, 1, 1]
    assert cells.take(rows[:0]).n_cells == 0
