from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaf_data import InputError
from spaf_data.colocalization import proximity_graph


def all_distances(coordinates: np.ndarray, radius: float) -> np.ndarray:
    near = ((coordinates[:, None] - coordinates[None]) ** 2).sum(axis=-1) <= radius * radius
    np.fill_diagonal(near, False)
    return near


@pytest.mark.parametrize("n_dimensions", [2, 3])
@pytest.mark.parametrize("n", [0, 1, 2, 60, 300])
def test_agrees_with_all_distances(n: int, n_dimensions: int) -> None:
    rng = np.random.default_rng(n)
    coordinates = rng.uniform(-20, 20, (n, n_dimensions))
    coordinates[: n // 4] = coordinates[n // 4 : 2 * (n // 4)]  # several transcripts at the same point
    assert np.array_equal(proximity_graph(coordinates).toarray(), all_distances(coordinates, 5.0))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-12, 12), st.integers(-12, 12), st.integers(-2, 2)), max_size=40),
    st.sampled_from([1.0, 2.0, 5.0]),
)
def test_distances_on_the_radius_and_strip_edges(points: list[tuple[int, int, int]], radius: float) -> None:
    # Whole numbers, so that many pairs lie at exactly the radius and on the edges of strips.
    coordinates = np.array(points, np.float64).reshape(-1, 3)
    assert np.array_equal(proximity_graph(coordinates, radius=radius).toarray(), all_distances(coordinates, radius))


def test_far_apart_strips() -> None:
    coordinates = np.array([[0.0, 0.0], [1e7, 0.0], [1e7 + 3.0, 1.0]])
    assert np.array_equal(proximity_graph(coordinates).toarray(), all_distances(coordinates, 5.0))


def test_order_of_nodes_does_not_depend_on_order_of_rows(kernels: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 12, 200).astype(np.float32) for _ in range(3)] + [
        rng.integers(0, 3, 200).astype(np.int32)
    ]
    rows = []
    for _ in range(3):
        shuffled = rng.permutation(200)
        order, _ = kernels.arrange(*(column[shuffled] for column in columns), 5.0)
        rows.append(np.stack([column[shuffled][order] for column in columns]))
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2])


def test_order_of_nodes_is_by_strip_then_y(kernels: SimpleNamespace) -> None:
    rng = np.random.default_rng(1)
    x, y, z = (rng.integers(-9, 9, 300).astype(np.float32) / 2 for _ in range(3))
    y[::7] = np.float32(-0.0)
    gene = rng.integers(0, 4, 300).astype(np.int32)
    order, _ = kernels.arrange(x, y, z, gene, 2.0)
    strip = np.floor((x.astype(np.float64) - x.min()) / (2.0 * (1 + 1e-6)))
    columns = np.column_stack([strip, y, x, z, gene])
    assert np.array_equal(columns[order], columns[np.lexsort((gene, z, x, y, strip))])


def test_matrix_stored_and_searched_rows_are_one_graph(kernels: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    x, y, z = (rng.uniform(0, 15, 150).astype(np.float32) for _ in range(3))
    order, graph = kernels.arrange(x, y, z, np.zeros(150, np.int32), 5.0)
    expected = all_distances(np.column_stack([x, y, z])[order].astype(np.float64), 5.0)
    assert np.array_equal(kernels.adjacency_matrix(graph), expected)
    stored, degree = kernels.store_rows(graph, 1 << 20)
    searched, degree_again = kernels.store_rows(graph, 0)
    assert np.array_equal(degree, expected.sum(axis=1))
    assert np.array_equal(degree_again, degree)
    assert len(stored.indptr) == 151
    assert len(searched.indptr) == 0
    for row, found, again in zip(
        expected, kernels.all_neighbours(stored), kernels.all_neighbours(searched), strict=True
    ):
        assert np.array_equal(found, np.flatnonzero(row))
        assert np.array_equal(again, found)


@pytest.mark.parametrize(
    ("coordinates", "radius", "message"),
    [
        (np.zeros((3, 4)), 5.0, "2 or 3 columns"),
        (np.array([[0.0, np.nan]]), 5.0, "NaN"),
        (np.zeros((3, 2)), 0.0, "radius is 0.0"),
        (np.zeros((3, 2)), np.inf, "radius is inf"),
    ],
)
def test_bad_input(coordinates: np.ndarray, radius: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        proximity_graph(coordinates, radius=radius)
