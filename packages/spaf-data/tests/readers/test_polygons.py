import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from spaf_data import InputError
from spaf_data.readers.polygons import CellPolygons, PolygonAssigner, read_geometry, read_vertices


def blobs(seed, n=40):
    """Overlapping outlines in three planes: stars, and some of two parts, with a hole, or crossing themselves."""
    rng = np.random.default_rng(seed)
    shapes = []
    for i in range(n):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
        radius = rng.uniform(3, 12, 12)
        middle = rng.uniform(0, 100, 2)
        ring = middle + np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None]
        shape = shapely.Polygon(ring)
        match i % 4:
            case 1:
                shape = shapely.MultiPolygon(
                    [shapely.box(*middle, *(middle + 4)), shapely.box(*(middle + 6), *(middle + 9))]
                )
            case 2:
                shape = shapely.Point(middle).buffer(8).difference(shapely.Point(middle).buffer(3))
            case 3:
                shape = shapely.Polygon(middle + np.array([[0, 0], [8, 8], [8, 0], [0, 8]]))  # a bow tie
        shapes.append(shape)
    planes = rng.integers(0, 3, n)
    ids = [f"cell {name}" for name in rng.permutation(n)]
    return CellPolygons.from_shapes(ids, np.array(shapes, dtype=object), planes)


def slow_twin(polygons, x, y, z):
    """Ask shapely about each place and each outline of the plane."""
    found = np.full(len(x), -1)
    planes = np.unique(polygons.plane)
    for i in range(len(x)):
        plane = planes[np.abs(planes - z[i]).argmin()]
        there = [
            polygons.cell[k]
            for k in np.flatnonzero(polygons.plane == plane)
            if shapely.contains_xy(polygons.shapes[k], x[i], y[i])
        ]
        found[i] = min(there, default=-1)
    return found


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_assignment_agrees_with_shapely(seed):
    polygons = blobs(seed)
    rng = np.random.default_rng(seed + 1)
    x, y = rng.uniform(-20, 120, (2, 200))
    z = rng.choice([0.0, 1.0, 2.0, 5.0, -3.0, 1.4], 200)
    assigner = PolygonAssigner(polygons)
    found = assigner(x, y, z)
    np.testing.assert_array_equal(found, slow_twin(polygons, x, y, z))
    assert assigner.n_seen == 200
    assert assigner.n_found == (found >= 0).sum()


def test_places_that_are_not_finite_are_in_no_cell():
    assigner = PolygonAssigner(CellPolygons.from_shapes(["a"], np.array([shapely.box(0, 0, 1, 1)], dtype=object)))
    x = np.array([0.5, np.nan, np.inf, 0.5])
    y = np.array([0.5, 0.5, 0.5, -np.inf])
    assert assigner(x, y, np.zeros(4)).tolist() == [0, -1, -1, -1]


def test_few_outlines_far_apart_need_no_large_grid():
    shapes = [shapely.box(at, at, at + 1, at + 1) for at in (0.0, 1e7)]
    assigner = PolygonAssigner(CellPolygons.from_shapes(["a", "b"], np.array(shapes, dtype=object)))
    assert assigner(np.array([0.5, 1e7 + 0.5, 50.0]), np.array([0.5, 1e7 + 0.5, 50.0]), np.zeros(3)).tolist() == [
        0,
        1,
        -1,
    ]


def test_no_outlines_at_all():
    empty = CellPolygons.join([])
    assert PolygonAssigner(empty)(np.zeros(2), np.zeros(2), np.zeros(2)).tolist() == [-1, -1]


def test_area_is_the_mean_over_planes_and_the_sum_in_each():
    shapes = np.array([shapely.box(0, 0, 2, 1), shapely.box(0, 0, 4, 1), shapely.box(9, 9, 11, 10)], dtype=object)
    polygons = CellPolygons.from_shapes(["a", "a", "a"], shapes, np.array([0, 1, 1]))
    np.testing.assert_array_equal(polygons.areas(np.array(["a", "b"])), [(2 + (4 + 2)) / 2, np.nan])


def test_vertices_of_cells_in_turns(tmp_path):
    """Rows of two cells may alternate; the order inside a cell is that of drawing."""
    rows = [("a", 0, 0), ("b", 5, 5), ("a", 2, 0), ("b", 8, 5), ("a", 2, 2), ("b", 8, 9), ("a", 0, 2), ("c", 1, 1)]
    pd.DataFrame(rows, columns=["id", "x", "y"]).to_csv(tmp_path / "outlines.csv", index=False)
    polygons = read_vertices(tmp_path / "outlines.csv", cell="id", x="x", y="y")
    assert polygons.cells == ["a", "b"], "one vertex is no outline"
    assert polygons.areas(np.array(["a", "b"])).tolist() == [4.0, 6.0]


def test_missing_column_and_missing_id(tmp_path):
    table = pd.DataFrame({"id": ["a", None], "x": [0.0, 1.0], "y": [0.0, 1.0]})
    table.to_parquet(tmp_path / "outlines.parquet")
    with pytest.raises(InputError, match="outlines.parquet has no column 'vertex_x'; it has: id, x, y"):
        read_vertices(tmp_path / "outlines.parquet", cell="id", x="vertex_x", y="y")
    with pytest.raises(InputError, match="outlines.parquet has a vertex without a id"):
        read_vertices(tmp_path / "outlines.parquet", cell="id", x="x", y="y")


def test_geometry_that_is_none(tmp_path):
    pd.DataFrame({"EntityID": [1], "ZIndex": [0], "Geometry": [b"no geometry"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="a.parquet has a geometry that cannot be read"):
        read_geometry(tmp_path / "a.parquet", cell="EntityID", plane="ZIndex", geometry="Geometry")
