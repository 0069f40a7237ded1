"""The segmented cells of Visium HD (Space Ranger 4): ``segmented_outputs/``.

``filtered_feature_cell_matrix.h5`` names a cell ``cellid_<number>-1``; ``cell_segmentations.geojson`` has a feature for
each cell with the property ``cell_id``, the number, and its outline in pixels of the full-resolution image.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely  # type: ignore[import-untyped]

from spaf_data.errors import InputError
from spaf_data.readers._cell_table import rows_of_cells
from spaf_data.readers._counts import CellCounts
from spaf_data.readers._listed import of_all
from spaf_data.readers._tenx_matrix import find_matrix, read_matrix

if TYPE_CHECKING:
    from spaf_data.options import ReadOptions

SEGMENTED = "segmented_outputs"
_MATRIX = "filtered_feature_cell_matrix"
_OUTLINES = "cell_segmentations.geojson"
_BARCODE = re.compile(r"cellid_0*(\d+)-\d+")


def is_segmented(folder: Path) -> bool:
    """Whether this is the folder of segmented cells."""
    return folder.is_dir() and find_matrix(folder, _MATRIX) is not None


def read_segmented(folder: Path, options: ReadOptions) -> CellCounts:
    """Read the counts of segmented cells with centroids and areas of their outlines.

    Raises
    ------
    InputError
        If a file is missing or damaged, a cell has no outline, or the size of pixels is unknown.
    """
    file = find_matrix(folder, _MATRIX)
    outlines = folder / _OUTLINES
    assert file is not None, folder
    if not outlines.is_file():
        raise InputError(f"{folder} has no {_OUTLINES} to tell where the cells of {file.name} are")
    scale = folder / "spatial" / "scalefactors_json.json"
    pixel = options.pixel_size or microns_per_pixel(scale)
    if pixel is None:
        raise InputError(f"{scale} has no microns_per_pixel; give pixel_size (--pixel-size) in um")
    matrix = read_matrix(file)
    row, shapes = _outlines(outlines)
    numbers = [match[1] if (match := _BARCODE.fullmatch(name)) else name for name in map(str, matrix.barcodes)]
    keep = np.array([number in row for number in numbers], bool) if options.drop_unlisted else None
    wanted = numbers if keep is None else [number for number, kept in zip(numbers, keep, strict=True) if kept]
    shapes = shapes[rows_of_cells(outlines, wanted, row)]
    middle = shapely.centroid(shapes)
    centroids = of_all(keep, np.column_stack([shapely.get_x(middle), shapely.get_y(middle)]) * pixel)
    assert centroids is not None
    return CellCounts(
        where=str(file),
        counts=matrix.counts,
        cells=matrix.barcodes,
        listed=keep,
        genes=matrix.names,
        gene_ids=matrix.ids,
        control=matrix.control,
        centroids=centroids,
        areas=of_all(keep, shapely.area(shapes) * pixel**2),
        metadata={"assay": "Visium HD"},
        parameters={"platform": "visium", "file": file.name, "bins": "segmented cells", "pixel_size": pixel},
    )


def _outlines(file: Path) -> tuple[dict[str, int], np.ndarray]:
    """Return the place of each cell, and the outlines."""
    try:
        features = json.loads(file.read_text(encoding="utf-8"))["features"]
        names = [str(feature["properties"]["cell_id"]) for feature in features]
        shapes = np.array([shapely.geometry.shape(feature["geometry"]) for feature in features], dtype=object)
    except (ValueError, KeyError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
        raise InputError(f"{file} is no GeoJSON of cells with cell_id and geometry: {error}") from error
    row: dict[str, int] = {}
    for name in names:
        if row.setdefault(name, len(row)) != len(row) - 1:
            raise InputError(f"{file} has two outlines for cell {name!r}")
    return row, shapes


def microns_per_pixel(file: Path) -> float | None:
    """Return what a ``scalefactors_json.json`` says of the size of pixels; None where it is silent or not there."""
    if not file.is_file():
        return None
    try:
        scale: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON: {error}") from error
    value = scale.get("microns_per_pixel") if isinstance(scale, dict) else None
    return float(value) if isinstance(value, int | float) and 0 < value < float("inf") else None
