import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaf_model import InputError, rank_genes


def slow_rank(cells: list[list[tuple[int, int]]], scale: np.ndarray, max_genes: int | None) -> list[list[int]]:
    ranked = []
    for cell in cells:
        kept = [(token, count) for token, count in cell if count > 0 and token >= 0]
        kept.sort(key=lambda entry: (-(np.float32(entry[1]) / scale[entry[0]]), entry[0]))
        ranked.append([token for token, _ in kept][:max_genes])
    return ranked


def as_csr(cells: list[list[tuple[int, int]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    entries = [entry for cell in cells for entry in cell]
    indptr = np.concatenate([[0], np.cumsum([len(cell) for cell in cells])]).astype(np.int64)
    return indptr, np.array([t for t, _ in entries], dtype=np.int64), np.array([c for _, c in entries], dtype=np.int32)


N_TOKENS = 20
cell_strategy = st.lists(
    st.tuples(st.integers(-1, N_TOKENS - 1), st.integers(0, 5)), max_size=15, unique_by=lambda entry: entry[0]
)


@settings(max_examples=150, deadline=None)
@given(
    cells=st.lists(cell_strategy, max_size=8),
    scale=st.lists(st.sampled_from([0.25, 0.5, 1.0, 1.5, 3.0]), min_size=N_TOKENS, max_size=N_TOKENS),
    max_genes=st.sampled_from([None, 1, 4]),
)
def test_agrees_with_sorting_cell_by_cell(
    cells: list[list[tuple[int, int]]], scale: list[float], max_genes: int | None
) -> None:
    scale_array = np.array(scale, dtype=np.float32)
    ranked = rank_genes(*as_csr(cells), scale_array, max_genes=max_genes)
    expected = slow_rank(cells, scale_array, max_genes)
    assert ranked.n_cells == len(cells)
    assert ranked.n_genes.tolist() == [len(cell) for cell in expected]
    assert ranked.tokens.tolist() == [token for cell in expected for token in cell]


def test_more_cells_than_one_sort_holds() -> None:
    # 2^20 tokens leave 12 bits of the key for the cell, so 10,000 cells need three sorts.
    n_cells, n_tokens = 10_000, 1 << 20
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, n_tokens, size=(n_cells, 3))
    counts = rng.integers(1, 4, size=(n_cells, 3))
    ranked = rank_genes(np.arange(n_cells + 1) * 3, tokens.ravel(), counts.ravel(), np.ones(n_tokens, dtype=np.float32))
    order = np.lexsort((tokens, -counts), axis=1)
    np.testing.assert_array_equal(ranked.tokens.reshape(n_cells, 3), np.take_along_axis(tokens, order, axis=1))


def test_ties_go_by_token_whatever_the_order_of_genes() -> None:
    scale = np.ones(10, dtype=np.float32)
    one = rank_genes(np.array([0, 4]), np.array([9, 2, 5, 7]), np.array([1, 1, 2, 1]), scale)
    other = rank_genes(np.array([0, 4]), np.array([7, 5, 9, 2]), np.array([1, 2, 1, 1]), scale)
    assert one.tokens.tolist() == other.tokens.tolist() == [5, 2, 7, 9]


def test_rank_genes_checks_counts_and_max_genes() -> None:
    with pytest.raises(InputError, match="negative"):
        rank_genes(np.array([0, 1]), np.array([0]), np.array([-1]), np.ones(1, dtype=np.float32))
    with pytest.raises(InputError, match="max_genes"):
        rank_genes(np.array([0, 1]), np.array([0]), np.array([1]), np.ones(1, dtype=np.float32), max_genes=0)
