import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from spaf_analysis import InputError
from spaf_analysis.genes import genes_in_all


def table(names, *, ids=None, counts=None):
    counts = np.arange(2 * len(names)).reshape(2, -1) if counts is None else counts
    var = pd.DataFrame({} if ids is None else {"gene_ids": ids}, index=names)
    return ad.AnnData(sparse.csr_matrix(counts.astype(np.int32)), obs=pd.DataFrame(index=["c0", "c1"]), var=var)


@pytest.fixture
def tables():
    """Three panels: symbols with ids, ids alone, and symbols of which two are one gene."""
    ids = [f"ENSG0000000000{n}" for n in range(4)]
    first = table(["A", "B", "C", "D"], ids=ids)
    second = table([ids[3], ids[1], ids[2]])
    third = table(["B", "B-old", "X", "D"], ids=[ids[1], ids[1], "ENSG00000000009", ids[3]])
    return [first, second, third]


def test_genes_go_by_their_ids_in_the_order_of_the_first_table(tables):
    shared = genes_in_all(tables, ("a", "b", "c"))
    assert shared.names == ["B", "D"]
    assert [columns.tolist() for columns in shared.columns] == [[-1, 0, -1, 1], [1, 0, -1], [0, 0, -1, 1]]


def test_tables_of_the_shared_genes_alone(tables):
    shared = genes_in_all(tables, ("a", "b", "c"))
    parts = [shared.of(one, number) for number, one in enumerate(tables)]
    assert all(part.var_names.tolist() == ["B", "D"] for part in parts)
    for part, expected in zip(parts, ([[1, 3], [5, 7]], [[1, 0], [4, 3]], [[1, 3], [9, 7]]), strict=True):
        assert part.X.toarray().tolist() == expected
        assert part.X.dtype == np.int32
    assert tables[0].n_vars == 4, "the tables stay as they are"


def test_too_few_genes_are_one_sentence(tables):
    with pytest.raises(InputError, match="only 2 genes are in all of a, b, c, and 3 are needed"):
        genes_in_all(tables, ("a", "b", "c"), least=3)
    with pytest.raises(InputError, match="a has genes such as A, B, C and b such as X, Y, Z, and they share less than"):
        genes_in_all([tables[0], table(["X", "Y", "Z"])], ("a", "b"))
