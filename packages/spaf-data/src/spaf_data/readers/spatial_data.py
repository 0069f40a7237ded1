"""SpatialData: an object, or the zarr store of one. Needs the extra ``spaf-data[spatialdata]``.

Transcripts are a points element with its own coordinates, which are um for imaging platforms. The transformation to
the coordinate system "global" is left alone: that usually is a system of pixels.

The element says which column holds genes (``feature_key``) and often which holds cells (``instance_key``); else the
column of cells is ``cell_id``. Shapes that the table annotates, or that are called like the column of cells or
``cell_boundaries``, give areas, and the cells where there is no column of cells.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely  # type: ignore[import-untyped]

from spaf_data import keys
from spaf_data.errors import InputError
from spaf_data.readers import h5ad
from spaf_data.readers._cell_names import is_no_cell
from spaf_data.readers._chunks import Layout, Rows, TableChunks
from spaf_data.readers._counts import CellCounts
from spaf_data.readers._platform import ReadsCounts, ReadsTranscripts
from spaf_data.readers._plausible import check_cells
from spaf_data.readers._sort import sort_by_cell
from spaf_data.readers.polygons import CellPolygons, PolygonAssigner
from spaf_data.slides import slide_column
from spaf_data.transcripts import Transcripts

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spaf_data.options import ReadOptions
    from spaf_data.readers._table import Progress

_CELL_COLUMNS = ("cell_id", "cell_ID", "cell", "cell_boundaries")
_NUCLEUS_COLUMNS = ("overlaps_nucleus", "in_nucleus", "nucleus_boundaries")
_GENE_COLUMNS = ("feature_name", "gene", "target")


def is_spatial_data(source: object) -> TypeGuard[SpatialData]:
    """Whether this is a SpatialData object, found out without the library."""
    return any(f"{kind.__module__}.{kind.__name__}".startswith("spatialdata.") for kind in type(source).__mro__)


def is_store(path: Path) -> bool:
    """Whether a folder is a zarr store that is no AnnData."""
    if not path.is_dir() or h5ad.is_anndata(path):
        return False
    return path.suffix == ".zarr" or any((path / name).is_file() for name in (".zgroup", "zarr.json"))


class SpatialDataStore(ReadsTranscripts["Path | SpatialData"], ReadsCounts["Path | SpatialData"]):
    """SpatialData: stores and objects."""

    name = "spatialdata"
    options = (
        "points_key", "table_key", "layer", "pixel_size", "slide_key", "one_slide", "only_slide",
        "no_cell", "check_places",
    )  # fmt: skip
    transcripts_wanted = "a SpatialData zarr store with points"
    counts_wanted = "a SpatialData zarr store with a table"
    knows_unit = False

    def takes(self, run: object) -> bool:
        """Whether a run is a path or a SpatialData object."""
        return isinstance(run, Path) or is_spatial_data(run)

    def has_transcripts(self, source: Path | SpatialData) -> bool:
        """Whether there is a points element."""
        if isinstance(source, Path):
            return is_store(source) and _has_elements(source / "points")
        return bool(source.points)

    def has_counts(self, source: Path | SpatialData) -> bool:
        """Whether there is a table."""
        if isinstance(source, Path):
            return is_store(source) and (_has_elements(source / "tables") or _has_elements(source / "table"))
        return bool(source.tables)

    def slide_name(self, path: Path) -> str:
        """Return the name of the store."""
        return h5ad.name_of_store(path)

    def read_transcripts(
        self, source: Path | SpatialData, options: ReadOptions, *, min_qv: float, progress: Progress | None = None
    ) -> Transcripts:
        """Read the transcripts of a SpatialData object; see `spaf_data.read_transcripts`."""
        sdata, where = _open(source)
        key = _one("points", options.points_key, "points_key", list(sdata.points), where)
        points = sdata.points[key]
        where = f"points {key!r} of {where}"
        attributes = points.attrs.get("spatialdata_attrs", {})
        columns = [str(name) for name in points.columns]
        gene = _column(columns, attributes.get("feature_key"), _GENE_COLUMNS)
        if gene is None:
            raise InputError(f"{where} have no column of genes (feature_key); they have: {', '.join(columns)}")
        cell = _column(columns, attributes.get("instance_key"), _CELL_COLUMNS)
        nucleus = _column(columns, None, _NUCLEUS_COLUMNS)
        polygons = _polygons(sdata, options.table_key, cell)
        assigner = None
        if cell is None:
            if polygons is None:
                raise InputError(
                    f"{where} have no column of cells and there are no shapes of cells; they have: {columns}"
                )
            assigner = PolygonAssigner(polygons)
        scale = options.pixel_size or 1.0
        names_nucleus = nucleus is not None and not _is_number(points.dtypes[nucleus])
        chunks = TableChunks(
            rows=PointsRows(points, where),
            layout=Layout(
                gene=gene,
                x="x",
                y="y",
                z="z" if "z" in columns else None,
                cell=cell,
                qv="qv" if "qv" in columns else None,
                nucleus=nucleus,
                nuclear_text=_nuclear_names(points, nucleus) if nucleus is not None and names_nucleus else None,
                is_gene="is_gene" if "is_gene" in columns else None,
                no_cell=frozenset(options.no_cell),
                scale=(scale, scale, scale),
            ),
            assign=assigner,
            assigned_cells=[] if assigner is None else assigner.polygons.cells,
            progress=progress,
        )
        table = sort_by_cell(chunks, path=where, is_control=chunks.is_control, min_qv=min_qv)
        if options.check_places:
            check_cells(table, where)
        return Transcripts(
            **vars(table),
            areas=None if polygons is None else polygons.areas(table.cells) * scale**2,
            nucleus_known=nucleus is not None,
            parameters={
                "platform": self.name,
                "file": Path(source).name if isinstance(source, Path) else "object",
                "points_key": key,
                "cells": "by polygon" if cell is None else cell,
                "min_qv": min_qv if "qv" in columns else "not applied: the points have no column qv",
                "pixel_size": options.pixel_size or "not applied: coordinates are um",
            },
        )

    def read_counts(self, source: Path | SpatialData, options: ReadOptions) -> CellCounts:
        """Read the table of counts of a SpatialData object; see `spaf_data.read_counts`."""
        table, where, key, sdata = _table(source, options)
        attributes = table.uns.get("spatialdata_attrs", {})
        centroids = None if keys.SPATIAL in table.obsm else _centroids_of_shapes(sdata, table, attributes, where)
        slide_key = None if options.one_slide else slide_key_of(table, where)
        instance = attributes.get("instance_key")
        names = table.obs[instance].astype(str).to_numpy(dtype=str) if instance in table.obs else None
        found = h5ad.counts_of(table, where, options, centroids=centroids, slide_key=slide_key, names=names)
        if keys.SLIDE in found.of_cell and len(set(found.cells)) < len(found.cells):
            # Ids of instances are those of a region: two slides may share them, and names of rows are all different.
            found = h5ad.counts_of(table, where, options, centroids=centroids, slide_key=slide_key)
        parameters = {**found.parameters, "platform": self.name, "table_key": key}
        parameters["file"] = source.name if isinstance(source, Path) else "object"
        return CellCounts(**{**vars(found), "parameters": parameters})

    def read_obs(self, source: Path | SpatialData, options: ReadOptions) -> tuple[pd.DataFrame, str | None]:
        """Return the table of cells, and the column of the slides where the table knows it."""
        table, where, _, _ = _table(source, options)
        return table.obs, None if options.one_slide else slide_key_of(table, where)


def _has_elements(folder: Path) -> bool:
    return folder.is_dir() and any(item.is_dir() for item in folder.iterdir())


def _open(source: Path | SpatialData) -> tuple[SpatialData, str]:
    """Return the object and its name in messages."""
    if not isinstance(source, Path):
        return source, "the SpatialData object"
    try:
        import spatialdata
    except ImportError as error:
        raise InputError(f"{source} needs the library spatialdata: pip install 'spaf-data[spatialdata]'") from error
    try:
        with warnings.catch_warnings():
            # Both say that the store could be written anew in the newest layout.
            warnings.filterwarnings("ignore", message="SpatialData is not stored in the most current format")
            warnings.filterwarnings("ignore", message="Object at .* is not recognized as a component of a Zarr")
            return spatialdata.read_zarr(source, selection=("points", "shapes", "tables")), str(source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{source} cannot be read by spatialdata {spatialdata.__version__} ({_first_line(error)}): if it was "
            "written by another version, open it with that one and write it anew"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _one(kind: str, wanted: str | None, option: str, there: list[str], where: str) -> str:
    """Return the key of an element: the one named, or the only one."""
    names = ", ".join(there) or "none"
    if wanted is not None:
        if wanted not in there:
            raise InputError(f"{where} has no {kind} {wanted!r}; it has: {names}")
        return wanted
    if len(there) != 1:
        raise InputError(f"{where} has {len(there)} {kind}, so name one with {option}; it has: {names}")
    return there[0]


class PointsRows(Rows):
    """A points element: a dask data frame, one partition in memory at a time."""

    def __init__(self, points: Any, where: str) -> None:
        self.where = where
        self.columns = [str(name) for name in points.columns]
        self._points = points

    def stream(self, types: dict[str, pa.DataType], progress: Progress | None) -> Iterator[pa.RecordBatch]:
        """Yield the named columns, a batch for each partition."""
        n = self._points.npartitions
        for number in range(n):
            frame: pd.DataFrame = self._points[list(types)].partitions[number].compute()
            yield from pa.Table.from_pandas(frame, preserve_index=False).combine_chunks().to_batches()
            if progress is not None:
                progress((number + 1) / n)


def _column(columns: list[str], named: str | None, usual: tuple[str, ...]) -> str | None:
    return next((name for name in (named, *usual) if name in columns), None)


def _is_number(kind: Any) -> bool:
    return bool(pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind))


def _nuclear_names(points: Any, column: str) -> frozenset[str]:
    """Return the values of a column of nuclei that name one."""
    names: set[str] = set()
    for number in range(points.npartitions):
        names.update(map(str, points[column].partitions[number].compute().dropna().unique()))
    return frozenset(name for name in names if not is_no_cell(name, also=["0"]))


def _polygons(sdata: SpatialData, table_key: str | None, cell: str | None) -> CellPolygons | None:
    """Return the outlines of the cells, as far as there are some."""
    regions: list[str] = []
    for name, table in sdata.tables.items():
        if table_key in (None, name):
            found = table.uns.get("spatialdata_attrs", {}).get("region", [])
            regions += [found] if isinstance(found, str) else list(found)
    outlined = [key for key in dict.fromkeys(regions) if key in sdata.shapes]
    if len(outlined) > 1:
        # Of which of them the points are is not said, and cells of two slides may share their ids.
        if cell is None:
            raise InputError(
                f"the points have no column of cells, and the table annotates shapes of several slides "
                f"({', '.join(outlined)}): which of them these points lie in is not known, so make an object of each"
            )
        regions = []
    for key in (*regions, cell, "cell_boundaries"):
        if key is not None and key in sdata.shapes:
            shapes = sdata.shapes[key]
            outlines = shapes.geometry.to_numpy()
            if np.isin(shapely.get_type_id(outlines), [3, 6]).all():  # polygons and multipolygons; circles are points
                named = shapes[cell] if cell is not None and cell in shapes else shapes.index
                return CellPolygons.from_shapes(map(str, named), outlines)
    return None


def shapes_named(source: Path | SpatialData, key: str) -> CellPolygons | None:
    """Return the outlines of the shapes of this name, by their index; None where there are none."""
    sdata, _ = _open(source)
    if key not in sdata.shapes:
        return None
    shapes = sdata.shapes[key]
    outlines = shapes.geometry.to_numpy()
    if not np.isin(shapely.get_type_id(outlines), [3, 6]).all():
        return None
    return CellPolygons.from_shapes(map(str, shapes.index), outlines)


def _table(source: Path | SpatialData, options: ReadOptions) -> tuple[AnnData, str, str, SpatialData]:
    """Return the table of counts, its name in messages, its key and the object."""
    sdata, where = _open(source)
    if not sdata.tables and isinstance(source, Path) and (source / "table" / "table").is_dir():
        raise InputError(
            f"{where} has its table in the folder 'table', a layout that this version of spatialdata does not read: "
            "open it with the version that wrote it and write it anew"
        )
    key = _one("tables", options.table_key, "table_key", list(sdata.tables), where)
    return sdata.tables[key], f"table {key!r} of {where}", key, sdata


def slide_key_of(table: AnnData, where: str) -> str | None:
    """Return the column of the slides of a table; that of its regions where they are several.

    Regions are elements of their own, each with its own frame. A column of slides goes before where each of its values
    lies in one region: it says more.
    """
    column = slide_column(table.obs, where=where)
    region = table.uns.get("spatialdata_attrs", {}).get("region_key")
    if region not in table.obs or table.obs[region].nunique() < 2:
        return column
    if column is not None and (table.obs.groupby(column, observed=True)[region].nunique() == 1).all():
        return column
    return str(region)


def _centroids_of_shapes(sdata: SpatialData, table: AnnData, attributes: dict[str, Any], where: str) -> np.ndarray:
    """Return the centroids of the shapes that a table annotates, in the order of its rows."""
    region = attributes.get("region")
    regions = [region] if isinstance(region, str) else ([] if region is None else [str(name) for name in region])
    instance, column = attributes.get("instance_key"), attributes.get("region_key")
    if (
        not regions
        or instance not in table.obs
        or any(name not in sdata.shapes for name in regions)
        or (len(regions) > 1 and column not in table.obs)
    ):
        raise InputError(
            f"{where} has neither obsm {keys.SPATIAL!r} nor shapes of its own with the places of its cells"
        )
    names = pd.Index([str(name) for name in table.obs[instance]])
    centroids = np.full((len(names), 2), np.nan)
    for name in regions:
        rows = np.arange(len(names)) if len(regions) == 1 else np.flatnonzero(table.obs[column].astype(str) == name)
        shapes = sdata.shapes[name]
        place = pd.Index([str(shape) for shape in shapes.index]).get_indexer(names[rows])
        if (place < 0).any():
            raise InputError(f"{where} has a cell {names[rows][int(np.argmin(place))]!r} without a shape")
        middle = shapely.centroid(shapes.geometry.to_numpy()[place])
        centroids[rows] = np.column_stack([shapely.get_x(middle), shapely.get_y(middle)])
    return centroids
