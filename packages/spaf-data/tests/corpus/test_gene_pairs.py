import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaf_data.corpus.gene_pairs import pack_gene_pairs, unpack_gene_pairs


def cells(rng: np.random.Generator, n_cells: int, n_genes: int) -> tuple[np.ndarray, ...]:
    """Genes of cells, some without any, and some of the pairs of these genes."""
    genes, pairs = [], []
    for _ in range(n_cells):
        own = np.flatnonzero(rng.random(n_genes) < rng.random())
        a, b = np.triu_indices(len(own), 1)
        chosen = rng.random(len(a)) < rng.random() ** 2
        genes.append(own)
        pairs.append(np.stack([own[a[chosen]], own[b[chosen]]], axis=1))
    indptr, pair_indptr = (np.concatenate([[0], np.cumsum([len(rows) for rows in part])]) for part in (genes, pairs))
    return (
        indptr.astype(np.int64),
        np.concatenate(genes).astype(np.int32),
        pair_indptr.astype(np.int64),
        np.concatenate(pairs).astype(np.int32),
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(2, 20))
def test_pairs_come_back_exactly(seed: int, n_cells: int, n_genes: int) -> None:
    indptr, genes, pair_indptr, pairs = cells(np.random.default_rng(seed), n_cells, n_genes)
    bits = pack_gene_pairs(indptr, genes, pair_indptr, pairs)
    if bits is None:
        assert len(genes) == 0
        return
    found_indptr, found = unpack_gene_pairs(indptr, genes, *bits)
    np.testing.assert_array_equal(found_indptr, pair_indptr)
    np.testing.assert_array_equal(found, pairs)
    assert (found_indptr.dtype, found.dtype) == (pair_indptr.dtype, pairs.dtype)


@pytest.mark.parametrize(
    "pairs",
    [
        [[1, 5], [1, 4]],  # in another order
        [[1, 4], [1, 4]],  # twice
        [[4, 1], [4, 5]],  # the later gene first
        [[1, 3], [1, 4]],  # 3 is a gene of another cell
        [[4, 4], [4, 5]],  # a gene with itself
    ],
)
def test_other_pairs_are_not_packed(pairs: list[list[int]]) -> None:
    indptr, genes = np.array([0, 3, 5], np.int64), np.array([1, 4, 5, 3, 4], np.int32)
    pair_indptr = np.array([0, 2, 2], np.int64)
    assert pack_gene_pairs(indptr, genes, pair_indptr, np.array([[1, 4], [1, 5]], np.int32)) is not None
    assert pack_gene_pairs(indptr, genes, pair_indptr, np.array(pairs, np.int32)) is None


def test_bits_that_do_not_fit() -> None:
    indptr, genes, pair_indptr, pairs = cells(np.random.default_rng(1), 20, 20)
    members, triangles = pack_gene_pairs(indptr, genes, pair_indptr, pairs)
    with pytest.raises(ValueError, match="counts need"):
        unpack_gene_pairs(indptr, genes, members[:-1], triangles)
    with pytest.raises(ValueError, match="possible gene pairs need"):
        unpack_gene_pairs(indptr, genes, members, triangles[:-1])
