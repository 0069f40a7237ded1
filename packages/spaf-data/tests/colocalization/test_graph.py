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
        order, _, _ = kernels.build_graph(*(column[shuffled] for column in columns), 5.0, 1 << 20)
        rows.append(np.stack([column[shuffled][order] for column in columns]))
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2])


def test_searched_rows_equal_stored_rows(kernels: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    x, y, z = (rng.uniform(0, 15, 150).astype(np.float32) for _ in range(3))
    gene = np.zeros(150, np.int32)
    order, stored, degree = kernels.build_graph(x, y, z, gene, 5.0, 1 << 20)
    order_again, searched, degree_again = kernels.build_graph(x, y, z, gene, 5.0, 0)
    assert np.array_equal(order, order_again)
    assert np.array_equal(degree, degree_again)
    assert len(stored.indptr) == 151
    assert len(searched.indptr) == 0
    for row, found in zip(kernels.all_neighbours(stored), kernels.all_neighbours(searched), strict=True):
        assert np.array_equal(row, found)


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
