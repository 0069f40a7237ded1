"""Vizgen MERSCOPE: an output folder of the instrument or of the Vizgen post-processing tool.

Transcripts: ``detected_transcripts.csv`` (or ``.csv.gz``, ``.parquet``) with ``global_x``, ``global_y`` (um),
``gene`` and, when present, ``global_z`` (the number of the z plane; planes are 1.5 um apart unless told otherwise)
and ``cell_id`` (-1: in no cell). Without a column of cells, transcripts are assigned by the cells' outlines, in this
order of preference: ``cell_boundaries.parquet``, ``*micron_space.parquet`` (``EntityID``, ``ZIndex``, ``Geometry``),
``cell_boundaries/z<plane>_polygons.csv`` (or ``.csv.gz``, ``.gz``: ``poly_ID``, ``x``, ``y``) and
``cell_boundaries/feature_data_*.hdf5``.

Counts, for a folder without usable transcripts: ``cell_by_gene.csv`` (``cell`` and one column a feature).

``cell_metadata.csv`` gives centroids (``center_x``, ``center_y`` in um), joined by the id of the cell.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from scipy import sparse

from spaf_data.errors import InputError
from spaf_data.readers._cell_names import cell_name
from spaf_data.readers._cell_table import check_centroids, read_cell_table, rows_of_cells
from spaf_data.readers._chunks import TEXT, FileRows, Layout, TableChunks, dictionary, numbers
from spaf_data.readers._counts import CellCounts
from spaf_data.readers._listed import listed, of_all, only_listed
from spaf_data.readers._platform import ReadsCounts, ReadsTranscripts
from spaf_data.readers._plausible import check_cells
from spaf_data.readers._sort import sort_by_cell
from spaf_data.readers._table import ROWS_PER_BATCH, Progress, column_names, require_columns, stream_columns
from spaf_data.readers.polygons import CellPolygons, PolygonAssigner, read_geometry, read_hdf5, read_vertices
from spaf_data.transcripts import Transcripts

if TYPE_CHECKING:
    from spaf_data.options import ReadOptions

TRANSCRIPT_FILES = tuple(
    stem + ending
    for stem in ("detected_transcripts", "vizgen_transcripts")
    for ending in (".parquet", ".csv.gz", ".csv", ".gz")
)
COUNT_FILE = "cell_by_gene.csv"
CELL_FILE = "cell_metadata.csv"

PLANE_SPACING = 1.5  # um, of the instrument's default of seven planes over 10 um

_PLANE_FILE = re.compile(r"z(\d+)_polygons(\.csv)?(\.gz)?")
_ID_COLUMNS = ("EntityID", "cell_id", "cell", "")


def transcript_file(path: Path) -> Path | None:
    """Return the file of transcripts of a folder, or the file itself; None if it is neither."""
    if path.is_dir():
        return next((path / name for name in TRANSCRIPT_FILES if (path / name).is_file()), None)
    return path if path.name in TRANSCRIPT_FILES else None


logger = logging.getLogger(__name__)

_FEW_CELLS = 0.5  # of those that the table of cells lists, below which it is said


class Merscope(ReadsTranscripts[Path], ReadsCounts[Path]):
    """Output folders of the instrument and of the post-processing tool."""

    name = "merscope"
    options = ("plane_spacing", "flip_polygons", "boundaries", "no_cell", "check_places", "drop_unlisted")
    files = TRANSCRIPT_FILES
    transcripts_wanted = "detected_transcripts.csv with cell_id or cell boundaries"
    columns = ("global_x", "global_y", "gene")
    counts_wanted = f"{COUNT_FILE} with {CELL_FILE}"

    def has_transcripts(self, path: Path) -> bool:
        """Whether there are transcripts that can be put into cells."""
        file = transcript_file(path)
        return file is not None and ("cell_id" in column_names(file) or bool(_kind_of_polygons(file.parent)))

    def has_counts(self, path: Path) -> bool:
        """Whether a folder has a table of counts."""
        return (path / COUNT_FILE).is_file()

    def read_transcripts(
        self, path: Path, options: ReadOptions, *, min_qv: float, progress: Progress | None = None
    ) -> Transcripts:
        """Read the transcripts of a MERSCOPE run; see `spaf_data.read_transcripts`."""
        file = transcript_file(path) or path
        folder = file.parent
        rows = FileRows(file)
        require_columns(file, list(self.columns), rows.columns)
        spacing = options.plane_spacing or PLANE_SPACING
        by_column = "cell_id" in rows.columns
        files = _polygon_files(folder, options.boundaries)
        if not files and not by_column:
            raise InputError(
                f"{file} has no column 'cell_id', and beside it are no cell boundaries to assign transcripts by; "
                "looked for cell_boundaries.parquet, *micron_space.parquet, cell_boundaries/z0_polygons.csv and "
                "cell_boundaries/feature_data_*.hdf5"
            )
        polygons = _read_polygons(files) if files else None
        if polygons is not None and options.flip_polygons:
            polygons = polygons.flipped()
        assigner = None if by_column or polygons is None else PolygonAssigner(polygons)
        chunks = TableChunks(
            rows=rows,
            layout=Layout(
                gene="gene",
                x="global_x",
                y="global_y",
                z="global_z" if "global_z" in rows.columns else None,
                cell="cell_id" if by_column else None,
                no_cell=frozenset(options.no_cell),
                scale=(1.0, 1.0, spacing),
            ),
            assign=assigner,
            assigned_cells=assigner.polygons.cells if assigner else [],
            progress=progress,
        )
        try:
            table = sort_by_cell(chunks, path=file, is_control=chunks.is_control, min_qv=min_qv)
        except InputError as error:
            if assigner is not None and assigner.n_seen and not assigner.n_found:
                raise InputError(
                    f"no transcript of {file} lies in a cell boundary: {_boxes_apart(assigner)}; if the y axis of the "
                    "outlines points the other way, turn it with flip_polygons (--flip-polygons)"
                ) from error
            raise
        if options.check_places:
            check_cells(table, file)
        keep = _listed(folder, table.cells, options)
        if keep is not None:
            table = only_listed(table, keep)
        return Transcripts(
            **vars(table),
            centroids=_cell_metadata(folder, table.cells, "transcripts"),
            areas=None if polygons is None else polygons.areas(table.cells),
            nucleus_known=False,
            metadata={"assay": "MERSCOPE"},
            parameters={
                "platform": self.name,
                "file": file.name,
                "min_qv": "not applied: the run has no quality values",
                "plane_spacing": spacing,
                "cells": "cell_id" if by_column else "by polygon",
                "flip_polygons": options.flip_polygons,
            },
        )

    def read_counts(self, path: Path, options: ReadOptions) -> CellCounts:
        """Read the table of counts of a MERSCOPE run; see `spaf_data.read_counts`."""
        file = path / COUNT_FILE
        names = column_names(file)
        id_column = next((name for name in _ID_COLUMNS if name in names), None)
        if id_column is None:
            raise InputError(f"{file} has no column 'cell'; it begins with: {', '.join(names[:5])}")
        genes = [name for name in names if name != id_column]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{file} has two genes named {twice!r}")
        cells, counts = _stream_counts(file, id_column, genes)
        keep = _listed(path, cells, options)
        centroids = of_all(keep, _cell_metadata(path, cells if keep is None else cells[keep], "counts"))
        if centroids is None:
            raise InputError(f"{path} has no {CELL_FILE} with the centroids of the cells of {COUNT_FILE}")
        files = _polygon_files(path, options.boundaries)
        return CellCounts(
            where=str(file),
            counts=counts,
            cells=cells,
            genes=genes,
            listed=keep,
            centroids=centroids,
            areas=_read_polygons(files).areas(cells) if files else None,
            metadata={"assay": "MERSCOPE"},
            parameters={"platform": self.name, "file": file.name},
        )


def _stream_counts(file: Path, id_column: str, genes: list[str]) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Return ids and counts of the cells; as text and dense at a time are a few rows only."""
    ids: list[str] = []
    blocks = [sparse.csr_matrix((0, len(genes)))]
    types = {id_column: TEXT, **dict.fromkeys(genes, pa.float64())}
    for batch in stream_columns(file, types, batch_rows=ROWS_PER_BATCH // 10):
        codes, names = dictionary(batch.column(id_column), file, id_column)
        if (codes < 0).any():
            raise InputError(f"{file} has a row without a {id_column or 'cell'}")
        names = [cell_name(name, where=file, column=id_column) for name in names]
        ids += [names[code] for code in codes]
        blocks.append(sparse.csr_matrix(np.column_stack([numbers(batch.column(gene)) for gene in genes])))
    return np.array(ids, dtype=str), sparse.csr_matrix(sparse.vstack(blocks))


def _listed(folder: Path, cells: np.ndarray, options: ReadOptions) -> np.ndarray | None:
    """Return which cells the table of cells lists, where the others are to be dropped."""
    file = folder / CELL_FILE
    if not (options.drop_unlisted and file.is_file()):
        return None
    return listed(file, cells, cell=_id_column(file))


def _id_column(file: Path) -> str:
    columns = column_names(file)
    return next((name for name in _ID_COLUMNS if name in columns), _ID_COLUMNS[0])


def _cell_metadata(folder: Path, cells: np.ndarray, what: str) -> np.ndarray | None:
    """Return the centroids of cells in um, shape (n_cells, 2); None where the run has no table of cells.

    It is said where `what` is known of few of the cells that the table lists.
    """
    file = folder / CELL_FILE
    if not file.is_file():
        return None
    row, values = read_cell_table(file, cell=_id_column(file), values=["center_x", "center_y"])
    if len(cells) < _FEW_CELLS * len(row):
        beside = what == "transcripts" and (folder / COUNT_FILE).is_file()
        has_counts = f"; without its file of transcripts the counts of {COUNT_FILE} are read" * beside
        logger.warning(
            "%s has %s in only %d of the %d cells that %s lists (%.1f %%), so what is read is an "
            "excerpt or of another segmentation%s",
            folder, what, len(cells), len(row), CELL_FILE, 100 * len(cells) / len(row), has_counts,
        )  # fmt: skip
    centroids: np.ndarray = values[rows_of_cells(file, cells, row)]
    check_centroids(file, cells, centroids)
    return centroids


def _polygon_files(folder: Path, named: str | None) -> list[Path]:
    """Return the files of cell boundaries of a folder: the one named, or those of the kind that is preferred.

    Raises
    ------
    InputError
        If there is no such file, or several segmentations and none is named.
    """
    if named is not None:
        if not (folder / named).is_file():
            there = ", ".join(sorted(file.name for file in folder.glob("*.parquet"))) or "no parquet file"
            raise InputError(f"{folder} has no file {named!r} (boundaries); it has: {there}")
        return [folder / named]
    files = _kind_of_polygons(folder)
    if len(files) > 1 and files[0].suffix == ".parquet":
        raise InputError(
            f"{folder} has {len(files)} files of cell outlines, so name one with boundaries (--boundaries): "
            f"{', '.join(file.name for file in files)}"
        )
    return files


def _kind_of_polygons(folder: Path) -> list[Path]:
    """Return the files of cell boundaries of a folder, of the one kind that is preferred."""
    inside = folder / "cell_boundaries"
    for found in (
        [folder / "cell_boundaries.parquet"],
        sorted(folder.glob("*micron_space.parquet")),
        sorted(file for file in inside.glob("z*_polygons*") if _PLANE_FILE.fullmatch(file.name)),
        sorted(inside.glob("feature_data_*.hdf5")),
    ):
        files = [file for file in found if file.is_file()]
        if files:
            return files
    return []


def _read_polygons(files: list[Path]) -> CellPolygons:
    if files[0].suffix == ".hdf5":
        return read_hdf5(files)
    if files[0].suffix == ".parquet":
        return read_geometry(files[0], cell="EntityID", plane="ZIndex", geometry="Geometry")
    parts = []
    for file in files:
        plane = _PLANE_FILE.fullmatch(file.name)
        assert plane is not None, file
        parts.append(read_vertices(file, cell="poly_ID", x="x", y="y", plane=int(plane[1])))
    return CellPolygons.join(parts)


def _boxes_apart(assigner: PolygonAssigner) -> str:
    """Say where outlines and transcripts lie, for a run in which none of them meet."""
    low_x, low_y, high_x, high_y = assigner.polygons.bounds()
    return (
        f"the outlines span x {low_x:.0f} to {high_x:.0f} and y {low_y:.0f} to {high_y:.0f}, the transcripts "
        f"x {assigner.low[0]:.0f} to {assigner.high[0]:.0f} and y {assigner.low[1]:.0f} to {assigner.high[1]:.0f}"
    )
