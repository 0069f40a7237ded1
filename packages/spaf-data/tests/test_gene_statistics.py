import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from spaf_data import InputError
from spaf_data.gene_statistics import GeneStatistics, check_counts

# Small counts, counts on both sides of where the tallies change, and the largest that a block can hold.
COUNTS = st.one_of(st.integers(0, 3), st.integers(60, 70), st.just(2**31 - 1))
SLIDES = st.lists(
    st.integers(0, 12).flatmap(lambda n: hnp.arrays(np.int64, (n, 4), elements=COUNTS)), min_size=0, max_size=3
)


def slow(slides: list[np.ndarray], genes: list[str]) -> pd.DataFrame:
    rows = []
    for column in range(len(genes)):
        seen = [slide[:, column][slide[:, column] > 0] for slide in slides]
        together = np.concatenate([*seen, np.empty(0)])
        rows.append(
            (
                len(together),
                sum(len(values) > 0 for values in seen),
                together.mean() if len(together) else np.nan,
                np.median(together) if len(together) else np.nan,
            )
        )
    names = ["n_cells", "n_slides", "nonzero_mean", "nonzero_median"]
    table = pd.DataFrame(rows, columns=names, index=pd.Index(genes, name="gene", dtype=object))
    return table.astype({"n_cells": "int64", "n_slides": "int64"})


@settings(deadline=None)
@given(SLIDES, st.integers(1, 5))
def test_statistics_agree_with_numpy(slides: list[np.ndarray], chunk: int) -> None:
    genes = ["B", "A", "NA", "C"]
    merged = GeneStatistics.empty()
    for slide in slides:
        parts = [sparse.csr_matrix(slide[i : i + chunk]) for i in range(0, len(slide), chunk)]
        merged = merged.merge(GeneStatistics.of_slide(genes, parts))
    if slides:
        pd.testing.assert_frame_equal(merged.to_frame(), slow(slides, genes), rtol=1e-14)
    else:
        assert merged.to_frame().empty


def test_slides_of_different_genes_are_joined_by_name() -> None:
    one = GeneStatistics.of_slide(["A", "B"], [sparse.csr_matrix([[1, 2], [3, 0]])])
    two = GeneStatistics.of_slide(["C", "B"], [sparse.csr_matrix([[5, 4]])])
    table = one.merge(two).to_frame()
    assert table.index.tolist() == ["A", "B", "C"]
    assert table["n_cells"].tolist() == [2, 2, 1]
    assert table["n_slides"].tolist() == [1, 2, 1]
    assert table["nonzero_median"].tolist() == [2.0, 3.0, 5.0]
    pd.testing.assert_frame_equal(two.merge(one).to_frame().loc[["A", "B", "C"]], table)


def test_floats_and_explicit_zeros_are_counted_right() -> None:
    matrix = sparse.csr_matrix((np.array([0.0, 2.0], np.float32), [0, 1], [0, 2]), shape=(1, 2))
    assert GeneStatistics.of_slide(["A", "B"], [matrix]).to_frame()["n_cells"].tolist() == [0, 1]


@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan, np.inf, 2.0**31])
def test_what_is_no_count_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="counts must be integers"):
        check_counts(np.array([1.0, value]))


def test_a_repeated_gene_is_named() -> None:
    with pytest.raises(InputError, match="two genes are named 'A'"):
        GeneStatistics.of_slide(["A", "A"], [])
