"""NanoString (Bruker) CosMx SMI: the flat files of one slide.

Transcripts: ``*_tx_file.csv`` (or ``.csv.gz``, ``.parquet``) with ``fov``, ``cell_ID`` (0: in no cell),
``x_global_px``, ``y_global_px``, ``target`` and, when present, ``z`` (the number of the slice) and ``CellComp``
(``Nuclear`` is in the nucleus). Cell ids are unique in a field of view only, so a cell is named ``<fov>_<cell_ID>``.

Pixels become um by, in this order: ``pixel_size`` when given; ``*_fov_positions_file.csv`` where it has both pixels
and mm; else 0.18 um where positions inside a field of view go clearly beyond 4,256 pixels, the side of the commercial
instrument's field (the prototype of the 2022 NSCLC data has 5,472 x 3,648 pixels of 0.18 um), and 0.12028 um where
they do not. Slices are 0.8 um apart unless ``plane_spacing`` says otherwise.

``*_metadata_file.csv``, when present, gives centroids (``CenterX_global_px``, ``CenterY_global_px``) and areas
(``Area``, pixels).

Files of one slide begin alike: ``<slide>_tx_file.csv``, ``<slide>_metadata_file.csv``. A folder of several slides is
read slide by slide.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from spaf_data.errors import InputError
from spaf_data.readers._cell_table import check_centroids, read_cell_table, rows_of_cells
from spaf_data.readers._chunks import FileRows, Layout, TableChunks, numbers
from spaf_data.readers._listed import listed, only_listed
from spaf_data.readers._platform import ReadsTranscripts, without_endings
from spaf_data.readers._plausible import check_cells
from spaf_data.readers._sort import sort_by_cell
from spaf_data.readers._table import Progress, column_names, require_columns, stream_columns
from spaf_data.transcripts import Transcripts

if TYPE_CHECKING:
    from spaf_data.options import ReadOptions

PIXEL_SIZE = 0.120280945  # um, of the commercial instrument
PROTOTYPE_PIXEL_SIZE = 0.18  # um
FIELD_PIXELS = 4256  # side of the commercial instrument's field of view
PLANE_SPACING = 0.8  # um

_NO_CELL = frozenset({"0"})  # cells of a field of view are numbered from 1


def transcript_files(path: Path) -> list[Path]:
    """Return the file of transcripts of each slide of a folder, or the file itself; none if it is neither."""
    if not path.is_dir():
        return [path] if path.name.endswith(_endings("tx_file")) else []
    by_slide: dict[str, Path] = {}
    for ending in _endings("tx_file"):  # the first ending is preferred
        for file in sorted(path.glob(f"*{ending}")):
            by_slide.setdefault(file.name.removesuffix(ending), file)
    return [by_slide[slide] for slide in sorted(by_slide)]


def slide_of(file: Path) -> str:
    """Return what the names of a slide's files begin with, without the line behind it."""
    ending = next(ending for ending in _endings("tx_file") if file.name.endswith(ending))
    return file.name.removesuffix(ending).rstrip("_-. ")


def _endings(stem: str) -> tuple[str, ...]:
    return tuple(f"{stem}{ending}" for ending in (".parquet", ".csv.gz", ".csv"))


class CosMx(ReadsTranscripts[Path]):
    """Flat files of slides."""

    name = "cosmx"
    options = ("pixel_size", "plane_spacing", "no_cell", "check_places", "drop_unlisted")
    transcripts_wanted = "*_tx_file.csv"
    columns = ("fov", "cell_ID", "x_global_px", "y_global_px", "target")

    def has_transcripts(self, path: Path) -> bool:
        """Whether a folder or file has transcripts of this instrument."""
        return bool(transcript_files(path))

    def runs(self, path: Path) -> list[Path]:
        """Return the slides of a folder: the folder itself where it has one, else their files of transcripts."""
        files = transcript_files(path)
        return [path] if len(files) == 1 else files

    def slide_name(self, path: Path) -> str:
        """Return the folder of a run, or what the names of the files of one of its slides begin with."""
        if path.is_dir():
            return path.name
        return without_endings(path).removesuffix("tx_file").rstrip("_-") or path.parent.name

    def read_transcripts(
        self, path: Path, options: ReadOptions, *, min_qv: float, progress: Progress | None = None
    ) -> Transcripts:
        """Read the transcripts of a CosMx slide; see `spaf_data.read_transcripts`."""
        files = transcript_files(path) or [path]
        if len(files) > 1:
            raise InputError(f"{path} holds {len(files)} slides; read one of: {', '.join(file.name for file in files)}")
        file = files[0]
        rows = FileRows(file)
        require_columns(file, list(self.columns), rows.columns)
        pixel, known_by = _pixel_size(file, rows.columns, options.pixel_size)
        spacing = options.plane_spacing or PLANE_SPACING
        chunks = TableChunks(
            rows=rows,
            layout=Layout(
                gene="target",
                x="x_global_px",
                y="y_global_px",
                z="z" if "z" in rows.columns else None,
                cell="cell_ID",
                field_of_view="fov",
                nucleus="CellComp" if "CellComp" in rows.columns else None,
                nuclear_text=frozenset({"Nuclear"}),
                no_cell=_NO_CELL | {*options.no_cell},
                scale=(pixel, pixel, spacing),
            ),
            progress=progress,
        )
        table = sort_by_cell(chunks, path=file, is_control=chunks.is_control, min_qv=min_qv)
        if options.check_places:
            check_cells(table, file)
        cell_file = _beside(file, "metadata_file") if options.drop_unlisted else None
        if cell_file:
            table = only_listed(table, listed(cell_file, table.cells, cell="cell_ID", field_of_view="fov"))
        centroids, areas = _cell_table(file, table.cells, pixel)
        return Transcripts(
            **vars(table),
            centroids=centroids,
            areas=areas,
            nucleus_known="CellComp" in rows.columns,
            metadata={"assay": "CosMx"},
            parameters={
                "platform": self.name,
                "file": file.name,
                "min_qv": "not applied: the run has no quality values",
                "pixel_size": pixel,
                "pixel_size_from": known_by,
                "plane_spacing": spacing,
            },
        )


def _beside(file: Path, stem: str) -> Path | None:
    """Return the file of another kind of the same slide: one that begins alike, or the only one of a lone slide."""
    there = [found for ending in _endings(stem) for found in sorted(file.parent.glob(f"*{ending}"))]
    start = next((file.name.removesuffix(end) for end in _endings("tx_file") if file.name.endswith(end)), None)
    for found in there:
        if start is not None and found.name in {f"{start}{ending}" for ending in _endings(stem)}:
            return found
    alone = len(transcript_files(file.parent)) <= 1 and len({_start(found, stem) for found in there}) == 1
    return there[0] if alone else None


def _start(file: Path, stem: str) -> str:
    return next(file.name.removesuffix(ending) for ending in _endings(stem) if file.name.endswith(ending))


def _pixel_size(file: Path, columns: list[str], given: float | None) -> tuple[float, str]:
    """Return um a pixel, and where it is known from."""
    if given is not None:
        return given, "pixel_size"
    positions = _beside(file, "fov_positions_file")
    if positions is not None:
        size = _pixel_of_positions(positions)
        if size is not None:
            return size, positions.name
    local = [name for name in ("x_local_px", "y_local_px") if name in columns]
    # A long run says this in its first rows.
    for batch in stream_columns(file, dict.fromkeys(local, pa.float64())) if local else ():
        if max(np.nanmax(numbers(batch.column(name)), initial=0.0) for name in local) > 1.02 * FIELD_PIXELS:
            return PROTOTYPE_PIXEL_SIZE, f"a field of view of more than {FIELD_PIXELS} pixels"
        break
    return PIXEL_SIZE, "commercial instrument"


def _pixel_of_positions(file: Path) -> float | None:
    """Return um a pixel from positions of the fields of view in pixels and mm; None where they are not in both."""
    names = {name.lower(): name for name in column_names(file)}
    for axis in ("x", "y"):
        if {f"{axis}_global_px", f"{axis}_global_mm"} <= names.keys():
            pixels, mm = (names[f"{axis}_global_{unit}"] for unit in ("px", "mm"))
            values = np.concatenate(
                [
                    np.column_stack([numbers(batch.column(pixels)), numbers(batch.column(mm))])
                    for batch in stream_columns(file, {pixels: pa.float64(), mm: pa.float64()})
                ]
            )
            extent = np.ptp(values, axis=0)
            if (extent > 0).all():
                return float(1000 * extent[1] / extent[0])
    return None


def _cell_table(file: Path, cells: np.ndarray, pixel: float) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return centroids in um and areas in um2 from the table of cells, if there is one."""
    table = _beside(file, "metadata_file")
    if table is None:
        return None, None
    columns = column_names(table)
    values = ["CenterX_global_px", "CenterY_global_px", *(["Area"] if "Area" in columns else [])]
    row, numbers_of_cells = read_cell_table(table, cell="cell_ID", field_of_view="fov", values=values)
    found = numbers_of_cells[rows_of_cells(table, cells, row)]
    centroids = found[:, :2] * pixel
    check_centroids(table, cells, centroids)
    return centroids, found[:, 2] * pixel**2 if "Area" in columns else None
