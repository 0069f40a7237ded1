"""Outlines of cells and nuclei, in the order of the cells of transcripts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spaf_data.readers.polygons import CellPolygons, read_vertices, sides
from spaf_data.readers.spatial_data import is_spatial_data, is_store, shapes_named
from spaf_data.readers.xenium import BOUNDARY_FILES, spelled

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from spaf_data.options import ReadOptions
    from spaf_data.transcripts import Transcripts

_NUCLEI = tuple(name.replace("cell_", "nucleus_") for name in BOUNDARY_FILES)
_SHAPES = {"cells": "cell_boundaries", "nuclei": "nucleus_boundaries"}


@dataclass(frozen=True)
class Rings:
    """The sides of the outlines of cells.

    Attributes
    ----------
    segments
        Rows of x, y, x, y in um.
    offsets
        Cell ``i`` has the rows ``offsets[i]:offsets[i + 1]``, none where it has no outline.
    """

    segments: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of_polygons(cls, polygons: CellPolygons, cells: np.ndarray, scale: float = 1.0) -> Rings | None:
        """Take the outlines of the cells with these names, of the widest plane of each; None if no cell has one."""
        of_shape, first = sides(polygons.shapes)
        extent = first[1:] - first[:-1]
        shapes_of: dict[str, list[int]] = {}
        for shape, cell in enumerate(polygons.cell):
            shapes_of.setdefault(polygons.cells[cell], []).append(shape)
        chosen = [_of_one_plane(polygons, shapes_of.get(str(cell), [])) for cell in cells]
        if not any(chosen):
            return None
        rows = [np.arange(first[s], first[s + 1]) for of_cell in chosen for s in of_cell]
        n_sides = [sum(int(extent[s]) for s in of_cell) for of_cell in chosen]
        offsets = np.concatenate([[0], np.cumsum(n_sides)]).astype(np.int64)
        return cls(np.ascontiguousarray(of_shape[np.concatenate(rows)] * scale), offsets)

    @property
    def n_cells(self) -> int:
        """Number of cells with an outline."""
        return int((np.diff(self.offsets) > 0).sum())


@dataclass(frozen=True)
class Outlines:
    """Outlines of cells and of nuclei, each None where the run has none."""

    cells: Rings | None = None
    nuclei: Rings | None = None


def read_outlines(
    source: str | Path | SpatialData, transcripts: Transcripts, *, options: ReadOptions | None = None
) -> Outlines:
    """Read the outlines of the cells of a run, and of their nuclei, as far as it has them.

    Parameters
    ----------
    source
        What `transcripts` were read from. A Xenium bundle has them in ``cell_boundaries`` and ``nucleus_boundaries``
        (``.parquet``, ``.csv.gz`` or ``.csv``), SpatialData in shapes of these names; of other runs they are not read.
    transcripts
        Of this run.
    options
        As for `read_transcripts`; ``pixel_size`` holds for the shapes of a SpatialData too.

    Raises
    ------
    InputError
        If a file is damaged or lacks a column.
    """
    scale = (options.pixel_size if options else None) or 1.0
    run = Path(source) if isinstance(source, str | Path) else source
    if is_spatial_data(run) or (isinstance(run, Path) and is_store(run)):
        found = {kind: shapes_named(run, name) for kind, name in _SHAPES.items()}
    elif isinstance(run, Path) and transcripts.parameters.get("platform") == "xenium":
        folder = run if run.is_dir() else run.parent
        found = {kind: _vertices(folder, names) for kind, names in (("cells", BOUNDARY_FILES), ("nuclei", _NUCLEI))}
        scale = 1.0
    else:
        return Outlines()
    rings = {}
    for kind, polygons in found.items():
        cells = transcripts.cells
        if polygons is not None:
            cells = spelled(cells, dict.fromkeys(polygons.cells, 0))
        rings[kind] = None if polygons is None else Rings.of_polygons(polygons, cells, scale)
    return Outlines(**rings)


def _vertices(folder: Path, names: tuple[str, ...]) -> CellPolygons | None:
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        return None
    return read_vertices(file, cell="cell_id", x="vertex_x", y="vertex_y", part="label_id")


def _of_one_plane(polygons: CellPolygons, shapes: list[int]) -> list[int]:
    """Return the shapes of the plane in which a cell is widest: distances are taken in x and y alone."""
    if len({int(polygons.plane[s]) for s in shapes}) < 2:
        return shapes
    area: dict[int, float] = {}
    for s in shapes:
        area[int(polygons.plane[s])] = area.get(int(polygons.plane[s]), 0.0) + float(polygons.shapes[s].area)
    widest = max(area, key=lambda plane: (area[plane], -plane))
    return [s for s in shapes if polygons.plane[s] == widest]
