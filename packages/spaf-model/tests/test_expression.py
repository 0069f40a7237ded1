import itertools
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spaf_model import InputError, Vocabulary, match_genes
from spaf_model.expression import ExpressionReader


def in_order(read: tuple[np.ndarray, np.ndarray, np.ndarray]) -> list[list[tuple[int, float]]]:
    """Tokens and counts of each cell, by token."""
    indptr, tokens, counts = read
    entries = list(zip(tokens.tolist(), counts.tolist(), strict=True))
    return [sorted(entries[start:stop]) for start, stop in itertools.pairwise(indptr)]


def test_genes_by_index_by_symbol_column_or_by_id(vocabulary: Vocabulary, genes: list[str]) -> None:
    numbers = [f"n{position}" for position in range(len(genes))]
    ids = [f"ENSG{position:011d}.3" for position in range(len(genes))]
    tables = [
        pd.DataFrame(index=genes),
        pd.DataFrame({"gene_name": genes}, index=numbers),
        pd.DataFrame({"gene_ids": ids}, index=numbers),
        pd.DataFrame(index=ids),
        pd.DataFrame({"gene_name": numbers, "feature_id": numbers}, index=genes),
    ]
    for table in tables:
        np.testing.assert_array_equal(
            match_genes(table, vocabulary, min_fraction=1.0).token_ids, vocabulary.gene_token_ids
        )


def test_source_with_most_matches_wins(vocabulary: Vocabulary, genes: list[str]) -> None:
    half = [gene if position % 2 else f"x{position}" for position, gene in enumerate(genes)]
    table = pd.DataFrame({"gene_symbols": genes}, index=half)
    assert len(match_genes(table, vocabulary, min_fraction=1.0).matched) == len(genes)


def test_too_few_and_no_genes(vocabulary: Vocabulary) -> None:
    with pytest.raises(InputError, match="Only 1 of 4 genes"):
        match_genes(pd.DataFrame(index=["GENE1", "x", "y", "z"]), vocabulary, min_fraction=0.5)
    assert len(match_genes(pd.DataFrame(index=["GENE1", "x"]), vocabulary, min_fraction=0.0).matched) == 1
    with pytest.raises(InputError, match="Only 0 of 2 genes"):
        match_genes(pd.DataFrame(index=["y", "x"]), vocabulary, min_fraction=0.0)


def test_repeated_gene_is_refused_by_name(vocabulary: Vocabulary) -> None:
    table = pd.DataFrame({"gene_name": ["GENE1", "GENE2", "GENE1"]}, index=["a", "b", "c"])
    with pytest.raises(InputError, match="'GENE1' occurs more than once"):
        match_genes(table, vocabulary, min_fraction=0.0)


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_columns_of_one_gene_are_added(vocabulary: Vocabulary, form: Any) -> None:
    names = ["GENE7", "old name", "GENE1", "unknown"]
    ids = ["ENSG00000000007", "ENSG00000000007.2", "", "ENSG00000099999"]
    counts = np.array([[1, 4, 3, 9], [0, 2, 0, 5], [2, 0, 0, 0]], dtype=np.float32)
    split = anndata.AnnData(form(counts), var=pd.DataFrame({"gene_ids": ids}, index=names))
    match = match_genes(split.var, vocabulary, min_fraction=0.0)
    assert match.joined == ["old name"]
    reader = ExpressionReader(split, match, layer=None)
    added = anndata.AnnData(
        np.c_[counts[:, 0] + counts[:, 1], counts[:, 2]], var=pd.DataFrame(index=["GENE7", "GENE1"])
    )
    plain = ExpressionReader(added, match_genes(added.var, vocabulary, min_fraction=0.0), layer=None)
    for found, expected in zip(in_order(reader.read(slice(0, 3))), in_order(plain.read(slice(0, 3))), strict=True):
        assert found == expected
    assert (reader.n_counts, reader.n_read) == (26.0, 12.0)


@pytest.mark.parametrize(
    "form", ["csr", "csc", "dense", "csr backed", "csc backed", "dense backed", "csr_array", "layer"]
)
def test_all_forms_of_a_matrix_give_the_same_tokens(
    form: str, adata: anndata.AnnData, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    counts = adata.X.tocsr()
    match = match_genes(adata.var, vocabulary, min_fraction=1.0)
    expected = (counts.indptr, match.token_ids[counts.indices], counts.data)
    converted: dict[str, Any] = {
        "csr": counts,
        "csc": counts.tocsc(),
        "dense": counts.toarray(),
        "csr_array": sp.csr_array(counts),
    }
    layer = None
    kind = form.split()[0]
    if kind == "layer":
        adata.layers["counts"] = counts
        adata.X = np.log1p(counts.toarray())
        layer = "counts"
    else:
        adata.X = converted[kind]
    if form.endswith("backed"):
        adata.write_h5ad(tmp_path / "slide.h5ad")
        adata = anndata.read_h5ad(tmp_path / "slide.h5ad", backed="r")
    reader = ExpressionReader(adata, match, layer=layer)
    pieces = [reader.read(slice(0, 25)), reader.read(np.arange(25, 60))]
    if form.endswith("backed"):
        adata.file.close()
    found = [in_order(piece) for piece in pieces]
    assert found[0] + found[1] == in_order(expected)
    assert all(counts.dtype == np.float32 for _, _, counts in pieces)


def test_repeated_entries_of_a_csr_are_added_and_the_input_is_left_alone(vocabulary: Vocabulary) -> None:
    counts = sp.csr_matrix((np.array([1.0, 2.0, 2.0]), np.array([0, 1, 0]), np.array([0, 3])), shape=(1, 40))
    adata = anndata.AnnData(counts, var=pd.DataFrame(index=vocabulary.tokens[-40:]))
    match = match_genes(adata.var, vocabulary, min_fraction=1.0)
    read = ExpressionReader(adata, match, layer=None).read(slice(0, 1))
    first, second = vocabulary.gene_token_ids[:2].tolist()
    assert in_order(read) == [[(first, 3.0), (second, 2.0)]]
    assert adata.X.nnz == 3


def test_missing_layer_lists_the_layers(adata: anndata.AnnData, vocabulary: Vocabulary) -> None:
    match = match_genes(adata.var, vocabulary, min_fraction=1.0)
    with pytest.raises(InputError, match="no layer 'counts'; the layers are: none"):
        ExpressionReader(adata, match, layer="counts")


@pytest.mark.parametrize("form", [sp.csr_matrix, np.asarray])
def test_stored_zeros_and_genes_without_a_token_are_left_out(vocabulary: Vocabulary, form: Any) -> None:
    counts = sp.csr_matrix(np.array([[2, 0, 5], [0, 0, 7], [1, 3, 0]], dtype=np.int64))
    counts.data[0] = 0
    adata = anndata.AnnData(form(counts) if form is sp.csr_matrix else counts.toarray())
    adata.var_names = ["GENE3", "GENE1", "nothing"]
    reader = ExpressionReader(adata, match_genes(adata.var, vocabulary, min_fraction=0.0), layer=None)
    one, three = (vocabulary.tokens.index(name) for name in ("GENE1", "GENE3"))
    assert in_order(reader.read(slice(0, 3))) == [[], [], sorted([(three, 1.0), (one, 3.0)])]
    assert (reader.n_counts, reader.n_read) == (16.0, 4.0)


def test_values_are_checked_before_columns_of_one_gene_are_added(vocabulary: Vocabulary) -> None:
    # 1.5 + 1.5 would look like a count.
    var = pd.DataFrame({"gene_ids": ["ENSG00000000007", "ENSG00000000007.2"]}, index=["GENE7", "old name"])
    adata = anndata.AnnData(np.array([[1.5, 1.5]], dtype=np.float32), var=var)
    reader = ExpressionReader(adata, match_genes(var, vocabulary, min_fraction=0.0), layer=None)
    with pytest.raises(InputError, match="log-normalised"):
        reader.read(slice(0, 1))
