"""Outlines of cells: which cell a place lies in, and how large cells are.

Geometry is shapely's: it reads well-known binary, repairs outlines that cross themselves and measures areas, and it
depends on nothing but NumPy. Only the look-up of places is our own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import shapely  # type: ignore[import-untyped]

from spaf_data.errors import InputError
from spaf_data.readers import _inside
from spaf_data.readers._cell_names import cell_name
from spaf_data.readers._chunks import TEXT, dictionary, numbers
from spaf_data.readers._table import column_names, require_columns, stream_columns


@dataclass(frozen=True, eq=False, kw_only=True)
class CellPolygons:
    """Outlines of cells, each in one z plane; a cell may have several, also in one plane."""

    cells: list[str]  # names, sorted
    cell: np.ndarray  # place in `cells` of each polygon
    plane: np.ndarray  # z plane of each polygon, int64; all 0 where outlines hold for every z
    shapes: np.ndarray  # of shapely geometries

    @classmethod
    def from_shapes(cls, ids: Iterable[str], shapes: np.ndarray, planes: np.ndarray | None = None) -> CellPolygons:
        """Take the outlines that have an area, repaired where they cross themselves."""
        names = np.array(list(ids), dtype=str)
        shapes = np.asarray(shapes, dtype=object)
        crossing = ~shapely.is_valid(shapes) & ~shapely.is_missing(shapes)
        if crossing.any():
            shapes = shapes.copy()
            shapes[crossing] = shapely.make_valid(shapes[crossing])
        real = np.nan_to_num(shapely.area(shapes)) > 0
        cells, cell = np.unique(names[real], return_inverse=True)
        planes = np.zeros(len(names), np.int64) if planes is None else planes
        return cls(cells=cells.tolist(), cell=cell, plane=planes[real].astype(np.int64), shapes=shapes[real])

    @classmethod
    def from_vertices(
        cls, ids: np.ndarray, names: list[str], x: np.ndarray, y: np.ndarray, plane: int = 0
    ) -> CellPolygons:
        """Join vertices, codes of their polygons in `ids` and in drawing order, to outlines."""
        order = np.argsort(ids, kind="stable")
        ids, points = ids[order], np.column_stack([x, y])[order]
        # Two vertices enclose nothing.
        enough = np.bincount(ids, minlength=len(names)) >= 3
        points, ids = points[enough[ids]], ids[enough[ids]]
        drawn, ring = np.unique(ids, return_inverse=True)
        shapes = shapely.polygons(shapely.linearrings(points, indices=ring)) if len(points) else np.empty(0, object)
        return cls.from_shapes((names[code] for code in drawn), shapes, np.full(len(drawn), plane))

    @classmethod
    def join(cls, parts: list[CellPolygons]) -> CellPolygons:
        """Put the outlines of several planes or files together."""
        return cls.from_shapes(
            [part.cells[code] for part in parts for code in part.cell],
            np.concatenate([part.shapes for part in parts]) if parts else np.empty(0, object),
            np.concatenate([part.plane for part in parts]) if parts else np.empty(0, np.int64),
        )

    def flipped(self) -> CellPolygons:
        """Return the outlines with y negated."""
        return replace(self, shapes=shapely.transform(self.shapes, lambda points: points * np.array([1.0, -1.0])))

    def bounds(self) -> tuple[float, float, float, float]:
        """Return the smallest x and y and the largest x and y."""
        low_x, low_y, high_x, high_y = shapely.total_bounds(self.shapes)
        return float(low_x), float(low_y), float(high_x), float(high_y)

    def areas(self, cells: np.ndarray) -> np.ndarray:
        """Return the area of each cell, the mean over the planes that it is in; NaN for a cell without outline."""
        n_planes = int(self.plane.max(initial=0)) + 1
        place = self.cell * n_planes + self.plane
        in_plane = np.bincount(place, weights=shapely.area(self.shapes), minlength=n_planes * len(self.cells))
        drawn = np.bincount(place, minlength=n_planes * len(self.cells)) > 0
        area = in_plane.reshape(-1, n_planes).sum(axis=1) / drawn.reshape(-1, n_planes).sum(axis=1)
        of_cell = dict(zip(self.cells, area.tolist(), strict=True))
        return np.array([of_cell.get(str(cell), np.nan) for cell in cells])


class PolygonAssigner:
    """Finds the cell that each place lies in.

    A transcript is looked up in the outlines of its own plane, or of the nearest plane that has outlines. Where
    outlines overlap, the cell that comes first in the order of names has it. Runs have 10^8 transcripts and more: a
    grid of squares leaves few outlines to try, and a compiled kernel looks up more than ten times as many places a
    second as shapely's tree, with the same answers.
    """

    def __init__(self, polygons: CellPolygons) -> None:
        self.polygons = polygons
        self.n_seen = self.n_found = 0
        self.low, self.high = np.full(2, np.inf), np.full(2, -np.inf)  # box of all places so far
        self._planes = np.unique(polygons.plane)
        self._grids = [_Grid(polygons, plane) for plane in self._planes]

    def __call__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return for each place, its z in planes, the place of its cell in ``polygons.cells``; -1 in no cell."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        found = np.full(len(x), -1, np.int32)
        finite = np.isfinite(x) & np.isfinite(y)
        if len(self._grids):
            nearest = np.abs(np.nan_to_num(z)[:, None] - self._planes[None, :]).argmin(axis=1)
        for number, grid in enumerate(self._grids):
            grid.find(x, y, np.flatnonzero((nearest == number) & finite), found)
        if finite.any():
            places = np.stack([x[finite], y[finite]])
            self.low = np.minimum(self.low, places.min(axis=1))
            self.high = np.maximum(self.high, places.max(axis=1))
        self.n_seen += len(x)
        self.n_found += int((found >= 0).sum())
        return found


class _Grid:
    """The outlines of one plane, sorted by cell, and for each square of a grid those that may reach into it."""

    def __init__(self, polygons: CellPolygons, plane: int) -> None:
        there = np.flatnonzero(polygons.plane == plane)
        there = there[np.argsort(polygons.cell[there], kind="stable")]
        shapes = polygons.shapes[there]
        self._cell = polygons.cell[there].astype(np.int32)
        self._boxes = shapely.bounds(shapes)
        self._segments, self._segment_offsets = sides(shapes)
        self._low = self._boxes[:, :2].min(axis=0)
        extent = self._boxes[:, 2:].max(axis=0) - self._low
        # A square is about half as wide as a cell, so few outlines meet it, but there are never many more squares
        # than outlines, as there would be for a few cells far apart.
        cell_side = float(np.median(self._boxes[:, 2:] - self._boxes[:, :2]))
        self._side = max(cell_side / 2, float(np.sqrt(extent.prod() / (16.0 * len(there)))))
        self._n_columns, self._n_rows = (int(size) for size in np.floor(extent / self._side).astype(np.int64) + 1)
        grid = (self._boxes, self._low, self._side, self._n_columns)
        counts = np.zeros(self._n_columns * self._n_rows, np.int64)
        _inside.count_squares(*grid, counts)
        self._offsets = np.concatenate([[0], np.cumsum(counts)])
        self._outlines = np.empty(self._offsets[-1], np.int32)
        _inside.fill_squares(*grid, self._offsets[:-1].copy(), self._outlines)

    def find(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray, found: np.ndarray) -> None:
        """Write the cells of the places of some rows."""
        _inside.find(
            x, y, rows, self._low, self._side, self._n_columns, self._n_rows, self._offsets, self._outlines,
            self._boxes, self._segment_offsets, self._segments, self._cell, found,
        )  # fmt: skip


def sides(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sides of all rings, rows of x, y, x, y, and where those of each shape begin, shape (n_shapes + 1,)."""
    parts, of_part = shapely.get_parts(shapes, return_index=True)
    polygonal = shapely.get_type_id(parts) == 3  # a repaired outline may have left lines behind
    rings, of_ring = shapely.get_rings(parts[polygonal], return_index=True)
    points, of_point = shapely.get_coordinates(rings, return_index=True)
    same_ring = of_point[1:] == of_point[:-1]
    sides = np.concatenate([points[:-1][same_ring], points[1:][same_ring]], axis=1)
    shape = of_part[polygonal][of_ring][of_point[:-1][same_ring]]
    return np.ascontiguousarray(sides), np.searchsorted(shape, np.arange(len(shapes) + 1))


def read_vertices(file: Path, *, cell: str, x: str, y: str, part: str | None = None, plane: int = 0) -> CellPolygons:
    """Read outlines from a parquet or csv table with one row a vertex, in drawing order.

    Parameters
    ----------
    file
        The table.
    cell, x, y
        Columns of the cell's id and of the vertex.
    part
        Column that tells the outlines of one cell apart, used when it is there.
    plane
        z plane of the outlines.

    Raises
    ------
    InputError
        If the file is damaged, lacks a column, or has a vertex that is not finite.
    """
    columns = column_names(file)
    require_columns(file, [cell, x, y], columns)
    types = {cell: TEXT, x: pa.float64(), y: pa.float64()}
    if part in columns:
        types[part] = TEXT
    of_key: dict[tuple[str, str], int] = {}
    ids, places = [], []
    for batch in stream_columns(file, types):
        codes, names = dictionary(batch.column(cell), file, cell)
        names = [cell_name(name, where=file, column=cell) for name in names]
        parts, part_names = dictionary(batch.column(part)) if part in columns else (np.zeros_like(codes), [""])
        if (codes < 0).any() or (parts < 0).any():
            raise InputError(f"{file} has a vertex without a {cell}")
        pair, row_pair = np.unique(codes.astype(np.int64) * len(part_names) + parts, return_inverse=True)
        number = [
            of_key.setdefault((names[code // len(part_names)], part_names[code % len(part_names)]), len(of_key))
            for code in pair
        ]
        ids.append(np.array(number, np.int64)[row_pair])
        places.append(np.column_stack([numbers(batch.column(x)), numbers(batch.column(y))]).astype(np.float64))
    points = np.concatenate(places) if places else np.empty((0, 2))
    if not np.isfinite(points).all():
        raise InputError(f"{file} has a vertex that is not finite (NaN or infinite)")
    codes = np.concatenate(ids) if ids else np.empty(0, np.int64)
    return CellPolygons.from_vertices(codes, [key[0] for key in of_key], points[:, 0], points[:, 1], plane)


def read_geometry(file: Path, *, cell: str, plane: str, geometry: str) -> CellPolygons:
    """Read outlines from a parquet table with one well-known-binary geometry for each cell and z plane.

    Raises
    ------
    InputError
        If the file is damaged or lacks a column.
    """
    columns = column_names(file)
    require_columns(file, [cell, plane, geometry], columns)
    parts = []
    for batch in stream_columns(file, {cell: TEXT, plane: pa.int64(), geometry: pa.binary()}):
        codes, names = dictionary(batch.column(cell), file, cell)
        names = [cell_name(name, where=file, column=cell) for name in names]
        wkb = batch.column(geometry)
        try:
            shapes = shapely.from_wkb(
                (wkb.dictionary_decode() if pa.types.is_dictionary(wkb.type) else wkb).to_numpy(zero_copy_only=False)
            )
        except (shapely.errors.GEOSException, TypeError) as error:
            raise InputError(f"{file} has a geometry that cannot be read: {error}") from error
        planes = numbers(batch.column(plane)).astype(np.int64)
        parts.append(CellPolygons.from_shapes((names[code] for code in codes), shapes, planes))
    return CellPolygons.join(parts)


def read_hdf5(files: list[Path]) -> CellPolygons:
    """Read outlines from ``feature_data_<fov>.hdf5`` files: ``featuredata/<cell>/zIndex_<plane>/p_<n>/coordinates``.

    Raises
    ------
    InputError
        If a file is damaged or of another shape.
    """
    ids: list[str] = []
    planes: list[int] = []
    rings: list[np.ndarray] = []
    for file in files:
        try:
            with h5py.File(file, "r") as store:
                for name, cell in store["featuredata"].items():
                    for plane_name, plane in cell.items():
                        if not plane_name.startswith("zIndex_"):
                            continue
                        for part_name, part in plane.items():
                            if part_name.startswith("p_"):
                                ids.append(name)
                                planes.append(int(plane_name.removeprefix("zIndex_")))
                                rings.append(np.asarray(part["coordinates"], np.float64).reshape(-1, 2))
        except (OSError, KeyError, ValueError, AttributeError) as error:
            raise InputError(f"{file} cannot be read as a file of cell boundaries: {error}") from error
    shapes = np.array([shapely.Polygon(ring) if len(ring) >= 3 else None for ring in rings], dtype=object)
    return CellPolygons.from_shapes(ids, shapes, np.array(planes, np.int64))
