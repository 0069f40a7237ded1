"""Any table of transcripts whose columns are named by who reads it: parquet, csv or tab-separated text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spaf_data.errors import InputError
from spaf_data.readers._chunks import FileRows, Layout, TableChunks
from spaf_data.readers._platform import ReadsTranscripts
from spaf_data.readers._plausible import check_cells
from spaf_data.readers._sort import sort_by_cell
from spaf_data.readers._table import Progress, is_table
from spaf_data.transcripts import Transcripts

if TYPE_CHECKING:
    from spaf_data.options import ReadOptions


class Table(ReadsTranscripts[Path]):
    """A table of transcripts whose columns `ReadOptions` names."""

    name = "table"
    options = ("columns", "pixel_size", "plane_spacing", "no_cell", "check_places")
    only_by_name = True
    knows_unit = False
    transcripts_wanted = "a table whose columns are named"

    def has_transcripts(self, path: Path) -> bool:
        """Whether this is a table; nothing else can be told before its columns are named."""
        return path.is_file() and is_table(path)

    def slide_name(self, path: Path) -> str:
        """Return the name of the file: files of one folder may have two endings."""
        return path.name.split(".")[0]

    def read_transcripts(
        self, path: Path, options: ReadOptions, *, min_qv: float, progress: Progress | None = None
    ) -> Transcripts:
        """Read a table of transcripts; see `spaf_data.read_transcripts`."""
        columns = options.columns
        if columns is None:
            raise InputError(
                f"{path} can be read when its columns are named: columns (--columns) such as "
                "gene=...,x=...,y=...,cell=..."
            )
        pixel, spacing = options.pixel_size or 1.0, options.plane_spacing or 1.0
        chunks = TableChunks(
            rows=FileRows(path),
            layout=Layout(
                gene=columns["gene"],
                x=columns["x"],
                y=columns["y"],
                z=columns.get("z"),
                cell=columns["cell"],
                qv=columns.get("qv"),
                nucleus=columns.get("nucleus"),
                no_cell=frozenset(options.no_cell),
                scale=(pixel, pixel, spacing),
            ),
            progress=progress,
        )
        table = sort_by_cell(chunks, path=path, is_control=chunks.is_control, min_qv=min_qv)
        if options.check_places:
            check_cells(table, path)
        return Transcripts(
            **vars(table),
            nucleus_known="nucleus" in columns,
            parameters={
                "platform": self.name,
                "file": path.name,
                "columns": dict(columns),
                "min_qv": min_qv if "qv" in columns else "not applied: no column of qualities is named",
                "pixel_size": pixel,
                "plane_spacing": spacing,
            },
        )
