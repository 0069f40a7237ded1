"""Values of counts: bins against quantiles, ties, cuts, rates over the measured genes."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaf_model import CellCounts, Vocabulary
from spaf_model.scgpt_spatial import GeneValues, ScGPTSpatialConfig, gene_values
from spaf_model.scgpt_spatial.values import bin_bounds


def cells_of(rows: list[list[float]]) -> CellCounts:
    """Cells whose genes have the tokens 0, 1, 2, .."""
    n_genes = [len(row) for row in rows]
    n_tokens = max([*n_genes, 1])
    return CellCounts(
        indptr=np.concatenate([[0], np.cumsum(n_genes)]).astype(np.int64),
        tokens=np.concatenate([np.arange(n) for n in n_genes]).astype(np.int64),
        counts=np.array([count for row in rows for count in row], dtype=np.float32),
        context=np.full((len(rows), 4), -1),
        measured=np.ones(n_tokens, dtype=bool),
        slides=np.zeros(len(rows), dtype=np.int64),
    )


def values_of(rows: list[list[float]], **options: object) -> list[list[float]]:
    """Values in the order of the tokens."""
    cells = cells_of(rows)
    found = gene_values(cells, np.ones(cells.measured.size, np.float32), ScGPTSpatialConfig(**options))  # type: ignore[arg-type]
    return [
        found.values[start:stop][np.argsort(found.tokens[start:stop])].tolist()
        for start, stop in zip(found.indptr[:-1], found.indptr[1:], strict=True)
    ]


def exact_bounds(row: list[int], value: int, n_bins: int) -> tuple[int, int]:
    """Quantiles in fractions, and the bins that they leave open to a value: the published rule without its draw."""
    ordered = sorted(row)
    edges = []
    for step in range(n_bins - 1):
        place = Fraction(step * (len(row) - 1), n_bins - 2)
        low = place.numerator // place.denominator
        high = min(low + 1, len(row) - 1)
        edges.append(ordered[low] + (place - low) * (ordered[high] - ordered[low]))
    upper = sum(edge <= value for edge in edges)
    below = sum(edge < value for edge in edges)
    return min(below + 1, upper), upper


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=70), st.sampled_from([3, 11, 51]))
def test_bins_are_those_that_quantiles_leave_open(row: list[int], n_bins: int) -> None:
    middle = values_of([row], n_bins=n_bins)[0]
    drawn = values_of([row], n_bins=n_bins, ties="random")[0]
    for value, chosen, any_one in zip(row, middle, drawn, strict=True):
        lower, upper = exact_bounds(row, value, n_bins)
        assert chosen == (lower + upper) // 2
        assert lower <= any_one <= upper


def test_bins_without_ties_are_those_of_numpy_quantiles() -> None:
    rng = np.random.default_rng(0)
    row = rng.permutation(np.arange(1, 98)).astype(float)  # quantiles in steps of 96 / 49 meet no value but the ends
    edges = np.quantile(row, np.linspace(0, 1, 50))
    assert values_of([row.tolist()])[0] == np.digitize(row, edges).tolist()


def test_the_bins_of_a_cell_with_ties() -> None:
    # The middles of 1 to 20, 31 to 40, and 50.
    assert values_of([[1, 1, 1, 2, 2, 5]])[0] == [10, 10, 10, 35, 35, 50]
    assert values_of([[7]])[0] == [50]
    assert values_of([[3, 3, 3]])[0] == [25, 25, 25]
    assert values_of([[1, 2], [], [4]]) == [[1, 50], [], [50]]


def test_bins_do_not_change_when_a_cell_is_scaled() -> None:
    row = [1.0, 4.0, 2.0, 2.0, 9.0, 3.0]
    assert values_of([row]) == values_of([[5 * count for count in row]])


def test_bounds_at_other_numbers_of_bins() -> None:
    one = np.array([0])
    assert bin_bounds(one, one, np.array([1]), 51) == (50, 50)
    lower, upper = bin_bounds(np.array([0, 1]), np.array([0, 1]), np.array([2, 2]), 3)
    assert (lower.tolist(), upper.tolist()) == ([1, 2], [1, 2])


def test_counts_are_divided_by_the_means_of_genes() -> None:
    cells = cells_of([[4, 4, 4]])
    found = gene_values(cells, np.array([2.0, 0.5, 1.0], np.float32), ScGPTSpatialConfig())
    assert found.tokens.tolist() == [1, 2, 0]  # the highest quotient first
    assert found.values.tolist() == [50, 25, 1]
    assert found.counts.tolist() == [4, 4, 4]


def test_draws_are_those_of_a_seed_and_of_the_cell_alone() -> None:
    rows = [[1, 1, 1, 1, 2, 2], [3, 3, 3], [1, 1, 1, 1, 2, 2]]
    first = values_of(rows, ties="random", token_seed=1)
    assert first == values_of(rows, ties="random", token_seed=1)
    assert first[0] == first[2]
    assert first[1:] == values_of(rows[1:], ties="random", token_seed=1)
    assert first != values_of(rows, ties="random", token_seed=2)
    many = np.array([values_of([[1] * 40], ties="random", token_seed=seed)[0] for seed in range(60)])
    assert (many.min(), many.max()) == (1, 50)
    assert abs(many.mean() - 25.5) < 1.0


@pytest.mark.parametrize("cut", ["expression", "random"])
def test_long_cells_are_cut_and_keep_the_values_of_the_whole(cut: str) -> None:
    rows = [[5.0, 1.0, 4.0, 2.0, 3.0], [1.0, 2.0]]
    cells = cells_of(rows)
    ones = np.ones(5, np.float32)
    whole = gene_values(cells, ones, ScGPTSpatialConfig())
    found = gene_values(cells, ones, ScGPTSpatialConfig(max_length=4, cut=cut))  # type: ignore[arg-type]
    assert np.diff(found.indptr).tolist() == [3, 2]
    of = dict(zip(whole.tokens[:5], whole.values[:5], strict=True))
    assert [of[token] for token in found.tokens[:3]] == found.values[:3].tolist()
    if cut == "expression":
        assert found.tokens.tolist() == [0, 2, 4, 1, 0]


def test_random_cuts_take_other_genes_by_another_seed() -> None:
    cells = cells_of([[float(count) for count in range(1, 31)]])
    ones = np.ones(30, np.float32)

    def kept(seed: int) -> frozenset[int]:
        config = ScGPTSpatialConfig(max_length=11, cut="random", token_seed=seed)
        return frozenset(gene_values(cells, ones, config).tokens.tolist())

    assert kept(1) == kept(1)
    assert len({kept(seed) for seed in range(8)}) == 8


def test_genes_of_equal_value_are_cut_by_token() -> None:
    cells = cells_of([[2.0, 2.0, 2.0, 2.0]])
    found = gene_values(cells, np.ones(4, np.float32), ScGPTSpatialConfig(max_length=3))
    assert found.tokens.tolist() == [0, 1]


def test_rates_are_over_the_measured_genes() -> None:
    cells = cells_of([[6.0, 2.0], [3.0]])
    scale = np.array([3.0, 1.0], np.float32)
    found = gene_values(cells, scale, ScGPTSpatialConfig(value_style="rates"))
    # Of 8 counts 6 and 2 are expected where the means are 3 and 1: both are met as often as expected.
    np.testing.assert_allclose(found.values[:2], np.log(2.0), rtol=1e-6)
    np.testing.assert_allclose(found.values[2], np.log(1 + 4 / 3), rtol=1e-6)
    # A gene that is not measured leaves the rate of the other as it would be alone.
    without = dataclasses.replace(cells_of([[6.0]]), measured=np.array([True, False]))
    found = gene_values(without, scale, ScGPTSpatialConfig(value_style="rates"))
    np.testing.assert_allclose(found.values, np.log(2.0), rtol=1e-6)


def test_the_order_of_genes_and_cells_does_not_matter(cells: CellCounts, vocabulary: Vocabulary) -> None:
    def by_cell(found: GeneValues) -> list[list[tuple[int, float]]]:
        return [
            list(zip(found.tokens[a:b].tolist(), found.values[a:b].tolist(), strict=True))
            for a, b in zip(found.indptr[:-1], found.indptr[1:], strict=True)
        ]

    config = ScGPTSpatialConfig(max_length=12, ties="random", cut="random")
    expected = by_cell(gene_values(cells, vocabulary.scale, config))
    order = np.random.default_rng(1).permutation(cells.n_cells)
    pieces = [np.arange(a, b)[::-1] for a, b in zip(cells.indptr[:-1], cells.indptr[1:], strict=True)]
    entries = np.concatenate([pieces[cell] for cell in order])
    other = dataclasses.replace(
        cells,
        indptr=np.concatenate([[0], np.cumsum(cells.n_genes[order])]),
        tokens=cells.tokens[entries],
        counts=cells.counts[entries],
    )
    assert by_cell(gene_values(other, vocabulary.scale, config)) == [expected[cell] for cell in order]
