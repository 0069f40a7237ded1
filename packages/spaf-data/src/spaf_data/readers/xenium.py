"""10x Xenium: a bundle folder of Xenium Onboard Analysis (XOA), versions 1 to 3.

Columns used of ``transcripts.parquet`` (or ``.csv.gz``, ``.csv``): ``cell_id``, ``feature_name``, ``x_location``,
``y_location`` (um), and when present ``z_location`` (um), ``qv`` (Phred-scaled), ``overlaps_nucleus`` and
``is_gene``. Beside it, when present: ``cells.parquet`` (or ``.csv.gz``, ``.csv``) for centroids (um) and areas (um2),
``experiment.xenium`` for tissue, species and panel, and ``gene_panel.json`` for Ensembl ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spaf_data.errors import InputError
from spaf_data.readers._sort import IN_MEMORY_BYTES, Chunk, sort_by_cell
from spaf_data.readers._table import (
    ROWS_PER_BATCH,
    Progress,
    column_names,
    require_columns,
    stream_columns,
)
from spaf_data.transcripts import Transcripts

TRANSCRIPT_FILES = ("transcripts.parquet", "transcripts.csv.gz", "transcripts.csv")
CELL_FILES = ("cells.parquet", "cells.csv.gz", "cells.csv")
EXPERIMENT_FILE = "experiment.xenium"
PANEL_FILE = "gene_panel.json"

# What follows the prefix is spelled out as far as the instrument does, because mouse genes begin with "Neg" (Negr1).
CONTROL_NAME = re.compile(
    r"NegControl|NegPrb|antisense_|BLANK|Blank|UnassignedCodeword|DeprecatedCodeword|Intergenic_?Region"
)
NO_CELL = frozenset({"-1", "UNASSIGNED", ""})

_REQUIRED = ["cell_id", "feature_name", "x_location", "y_location"]
_CSV_TYPES: dict[str, pa.DataType] = {
    "cell_id": pa.dictionary(pa.int32(), pa.string()),
    "feature_name": pa.dictionary(pa.int32(), pa.string()),
    "x_location": pa.float32(),
    "y_location": pa.float32(),
    "z_location": pa.float32(),
    "qv": pa.float32(),
    "overlaps_nucleus": pa.int8(),
    "is_gene": pa.bool_(),
}
_FIRST_PASS = ("cell_id", "feature_name", "qv", "is_gene")


def transcript_file(path: Path) -> Path | None:
    """Return the file of transcripts of a bundle folder, or the file itself; None if it is neither."""
    if path.is_dir():
        return next((path / name for name in TRANSCRIPT_FILES if (path / name).is_file()), None)
    return path if path.is_file() and path.name.endswith((".parquet", ".csv", ".csv.gz")) else None


def read(
    path: Path,
    *,
    min_qv: float,
    batch_rows: int = ROWS_PER_BATCH,
    in_memory_bytes: int = IN_MEMORY_BYTES,
    progress: Progress | None = None,
) -> Transcripts:
    """Read a Xenium bundle; see `spaf_data.read_transcripts`."""
    file = transcript_file(path)
    assert file is not None, path
    columns = column_names(file)
    require_columns(file, _REQUIRED, columns)
    chunks = _Chunks(file, columns, batch_rows, progress)
    table = sort_by_cell(
        chunks, path=file, is_control=chunks.is_control, min_qv=min_qv, in_memory_bytes=in_memory_bytes
    )
    bundle = file.parent if path.is_dir() or file.name in TRANSCRIPT_FILES else None
    centroids, areas = _cell_table(bundle, table.cells) if bundle else (None, None)
    return Transcripts(
        x=table.x,
        y=table.y,
        z=table.z,
        gene=table.gene,
        qv=table.qv,
        in_nucleus=table.in_nucleus,
        offsets=table.offsets,
        genes=table.genes,
        cells=table.cells,
        account=table.account,
        gene_ids=_gene_ids(bundle, table.genes) if bundle else None,
        centroids=centroids,
        areas=areas,
        nucleus_known="overlaps_nucleus" in columns,
        metadata=_metadata(bundle),
        parameters={
            "platform": "xenium",
            "file": file.name,
            "min_qv": min_qv if "qv" in columns else "not applied: the file has no column qv",
        },
    )


class _Chunks:
    """The rows of a transcript table as `Chunk`; called once per pass."""

    def __init__(self, file: Path, columns: list[str], batch_rows: int, progress: Progress | None) -> None:
        self.file = file
        self.columns = columns
        self.batch_rows = batch_rows
        self.progress = progress
        self.not_genes: set[str] = set()

    def is_control(self, feature: str) -> bool:
        """Whether a feature is a control by its name or by the column ``is_gene``."""
        return feature in self.not_genes or CONTROL_NAME.match(feature) is not None

    def __call__(self, with_positions: bool) -> Iterator[Chunk]:
        wanted = _CSV_TYPES if with_positions else _FIRST_PASS
        types = {name: _CSV_TYPES[name] for name in wanted if name in self.columns}
        for batch in stream_columns(
            self.file, types, batch_rows=self.batch_rows, progress=self._half(second=with_positions)
        ):
            yield self._chunk(batch, with_positions)

    def _half(self, *, second: bool) -> Progress | None:
        report = self.progress
        if report is None:
            return None
        return lambda fraction: report((fraction + second) / 2)

    def _chunk(self, batch: pa.RecordBatch, with_positions: bool) -> Chunk:
        gene, gene_names = _dictionary(batch.column("feature_name"))
        if (gene < 0).any():
            raise InputError(f"{self.file} has a row without a feature_name")
        if "is_gene" in batch.schema.names:
            is_gene = _array(batch.column("is_gene"), bool)
            self.not_genes.update(gene_names[code] for code in np.unique(gene[~is_gene]))
        cell, cell_names = _dictionary(batch.column("cell_id"))
        positions = None
        if with_positions:
            x, y = (_array(batch.column(name), np.float32) for name in ("x_location", "y_location"))
            has_z = "z_location" in batch.schema.names
            z = _array(batch.column("z_location"), np.float32) if has_z else np.zeros_like(x)
            positions = (x, y, z)
        has_nucleus = "overlaps_nucleus" in batch.schema.names
        return Chunk(
            gene=gene,
            gene_names=gene_names,
            cell=cell,
            cell_names=[None if name in NO_CELL else name for name in cell_names],
            qv=_array(batch.column("qv"), np.float32) if "qv" in batch.schema.names else None,
            positions=positions,
            in_nucleus=_array(batch.column("overlaps_nucleus"), bool) if has_nucleus else None,
        )


def _dictionary(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Return codes (-1 where null) and names of a column of text, bytes or integers."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    codes = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False)
    names = column.dictionary.to_pylist()
    return codes, [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _array(column: pa.Array, kind: type) -> np.ndarray:
    if kind is bool:
        column = pc.fill_null(column.cast(pa.bool_()), False)
    return column.to_numpy(zero_copy_only=False).astype(kind, copy=False)


def _cell_table(bundle: Path, cells: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return centroids, shape (n_cells, 2), and areas, shape (n_cells,), of the bundle's table of cells, if any."""
    file = next((bundle / name for name in CELL_FILES if (bundle / name).is_file()), None)
    if file is None:
        return None, None
    columns = column_names(file)
    require_columns(file, ["cell_id", "x_centroid", "y_centroid"], columns)
    numbers = [name for name in ("x_centroid", "y_centroid", "cell_area") if name in columns]
    types = {"cell_id": _CSV_TYPES["cell_id"], **dict.fromkeys(numbers, pa.float64())}
    place: dict[str, int] = {}
    blocks: list[np.ndarray] = []
    for batch in stream_columns(file, types):
        codes, names = _dictionary(batch.column("cell_id"))
        for code in codes:
            place[names[code]] = len(place)
        blocks.append(np.column_stack([_array(batch.column(name), np.float64) for name in numbers]))
    rows = _find_cells(file, cells, place)
    values = np.concatenate(blocks)[rows]
    if not np.isfinite(values[:, :2]).all():
        bad = cells[~np.isfinite(values[:, :2]).all(axis=1)][0]
        raise InputError(f"{file} has a centroid that is not finite (NaN or infinite) for cell {str(bad)!r}")
    return values[:, :2], values[:, 2] if "cell_area" in columns else None


def _find_cells(file: Path, cells: np.ndarray, place: dict[str, int]) -> np.ndarray:
    """Return the rows of the table of cells that hold `cells`, whichever way either of the two writes their ids."""
    ids = [str(cell) for cell in cells]
    if not any(cell in place for cell in ids):
        # Bundles that were converted by hand mix the integer ids of XOA 1 with the text ids of XOA 2.
        ids = [_other_spelling(cell) for cell in ids]
    rows = np.array([place.get(cell, -1) for cell in ids], np.int64)
    if (rows < 0).any():
        missing = cells[rows < 0].tolist()
        raise InputError(f"{file} has no row for {len(missing)} of the {len(cells)} cells, the first is {missing[0]!r}")
    return rows


def _other_spelling(cell: str) -> str:
    if cell.isdecimal():
        return encode_cell_id(int(cell))
    try:
        return str(decode_cell_id(cell)[0])
    except InputError:
        return cell


def encode_cell_id(number: int, suffix: int = 1) -> str:
    """Write a cell number as XOA 2 does: eight hexadecimal digits in the letters a to p, a dash and a suffix.

    Parameters
    ----------
    number
        Cell number below 2^32.
    suffix
        Number of the data set, 1 unless data sets were merged.

    Examples
    --------
    >>> encode_cell_id(1437536272)
    'ffkpbaba-1'
    """
    if not 0 <= number < 1 << 32:
        raise InputError(f"a Xenium cell number lies between 0 and 2^32 - 1, not {number}")
    return f"{number:08x}".translate(str.maketrans("0123456789abcdef", "abcdefghijklmnop")) + f"-{suffix}"


def decode_cell_id(cell: str) -> tuple[int, int]:
    """Return the number and the suffix of a cell id of XOA 2.

    Examples
    --------
    >>> decode_cell_id("ffkpbaba-1")
    (1437536272, 1)
    """
    match = re.fullmatch(r"([a-p]{8})-(\d+)", cell)
    if match is None:
        raise InputError(f"{cell!r} is not a Xenium cell id: eight letters a to p, a dash, a number")
    letters = match[1].translate(str.maketrans("abcdefghijklmnop", "0123456789abcdef"))
    return int(letters, 16), int(match[2])


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def _metadata(bundle: Path | None) -> dict[str, str]:
    found = {"assay": "Xenium"}
    if bundle is None or not (bundle / EXPERIMENT_FILE).is_file():
        return found
    experiment = _json(bundle / EXPERIMENT_FILE)
    for key, names in {
        "tissue": ("panel_tissue_type",),
        "species": ("panel_organism",),
        "panel": ("panel_name",),
        "slide": ("region_name", "run_name"),
    }.items():
        value = next((experiment[name] for name in names if experiment.get(name)), None)
        if value is not None:
            found[key] = str(value)
    return found


def _gene_ids(bundle: Path, genes: list[str]) -> list[str] | None:
    """Return the Ensembl id of each gene from the panel file; None without one."""
    file = bundle / PANEL_FILE
    if not file.is_file():
        return None
    ids: dict[str, str] = {}
    try:
        for target in _json(file)["payload"]["targets"]:
            data = target["type"].get("data", {})
            if "id" in data and "name" in data:
                ids[data["name"]] = data["id"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not a Xenium gene panel: it has no list payload.targets of features") from error
    return [ids.get(gene, "") for gene in genes]
