"""10x Xenium: a bundle folder of Xenium Onboard Analysis (XOA), versions 1 to 4.

Columns used of ``transcripts.parquet`` (or ``.csv.gz``, ``.csv``): ``cell_id``, ``feature_name``, ``x_location``,
``y_location`` (um), and when present ``z_location`` (um), ``qv`` (Phred-scaled), ``overlaps_nucleus``, and
``is_gene`` or, without it, ``codeword_category``. Beside it, when present: ``cells.parquet`` (or ``.csv.gz``,
``.csv``) for centroids (um) and areas (um2), else ``cell_boundaries.parquet`` (or ``.csv.gz``, ``.csv``) for areas;
``experiment.xenium`` for tissue, species and panel; and ``gene_panel.json`` for Ensembl ids.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spaf_data.errors import InputError
from spaf_data.readers._cell_table import check_centroids, read_cell_table, rows_of_cells
from spaf_data.readers._chunks import FileRows, Layout, TableChunks
from spaf_data.readers._controls import is_control_name
from spaf_data.readers._counts import CellCounts
from spaf_data.readers._listed import listed, of_all, only_listed
from spaf_data.readers._platform import ReadsCounts, ReadsTranscripts
from spaf_data.readers._plausible import check_cells
from spaf_data.readers._sort import IN_MEMORY_BYTES, sort_by_cell
from spaf_data.readers._table import ROWS_PER_BATCH, Progress, column_names
from spaf_data.readers._tenx_matrix import find_matrix, read_matrix
from spaf_data.readers.polygons import read_vertices
from spaf_data.transcripts import Transcripts

if TYPE_CHECKING:
    from spaf_data.options import ReadOptions

TRANSCRIPT_FILES = ("transcripts.parquet", "transcripts.csv.gz", "transcripts.csv")
CELL_FILES = ("cells.parquet", "cells.csv.gz", "cells.csv")
BOUNDARY_FILES = ("cell_boundaries.parquet", "cell_boundaries.csv.gz", "cell_boundaries.csv")
EXPERIMENT_FILE = "experiment.xenium"
PANEL_FILE = "gene_panel.json"
_MATRIX = "cell_feature_matrix"


def transcript_file(path: Path) -> Path | None:
    """Return the file of transcripts of a bundle folder, or the file itself; None if it is neither."""
    if path.is_dir():
        return next((path / name for name in TRANSCRIPT_FILES if (path / name).is_file()), None)
    return path if path.name in TRANSCRIPT_FILES else None


class Xenium(ReadsTranscripts[Path], ReadsCounts[Path]):
    """Bundles of Xenium Onboard Analysis."""

    name = "xenium"
    options = ("no_cell", "check_places", "drop_unlisted")
    files = TRANSCRIPT_FILES
    transcripts_wanted = ", ".join(TRANSCRIPT_FILES)
    columns = ("cell_id", "feature_name", "x_location", "y_location")
    counts_wanted = "cell_feature_matrix.h5 with cells.parquet"

    def has_transcripts(self, path: Path) -> bool:
        """Whether a folder or file has transcripts of this instrument."""
        return transcript_file(path) is not None

    def has_counts(self, path: Path) -> bool:
        """Whether this is a bundle with the vendor's counts of cells."""
        return path.is_dir() and find_matrix(path, _MATRIX) is not None

    def read_counts(self, path: Path, options: ReadOptions) -> CellCounts:
        """Read the vendor's counts of cells of a bundle; see `spaf_data.read_counts`."""
        file = find_matrix(path, _MATRIX)
        if file is None:
            raise InputError(f"{path} has no {_MATRIX}.h5 and no folder {_MATRIX}")
        matrix = read_matrix(file)
        cell_file = _first(path, CELL_FILES) if options.drop_unlisted else None
        keep = listed(cell_file, matrix.barcodes, cell="cell_id", spelled=spelled) if cell_file else None
        centroids, areas = (
            of_all(keep, values)
            for values in _cell_table(path, matrix.barcodes if keep is None else matrix.barcodes[keep])
        )
        if centroids is None:
            raise InputError(
                f"{path} has none of {', '.join(CELL_FILES)}, which say where the cells of {file.name} are"
            )
        return CellCounts(
            where=str(file),
            counts=matrix.counts,
            cells=matrix.barcodes,
            listed=keep,
            genes=matrix.names,
            gene_ids=matrix.ids,
            control=matrix.control,
            centroids=centroids,
            areas=areas,
            metadata=_metadata(path),
            parameters={"platform": self.name, "file": file.name},
        )

    def read_transcripts(
        self,
        path: Path,
        options: ReadOptions,
        *,
        min_qv: float,
        progress: Progress | None = None,
        batch_rows: int = ROWS_PER_BATCH,
        in_memory_bytes: int = IN_MEMORY_BYTES,
    ) -> Transcripts:
        """Read a Xenium bundle; see `spaf_data.read_transcripts`."""
        file = transcript_file(path) or path
        rows = FileRows(file, batch_rows)

        def optional(name: str) -> str | None:
            return name if name in rows.columns else None

        is_gene = optional("is_gene")
        chunks = TableChunks(
            rows=rows,
            layout=Layout(
                gene="feature_name",
                x="x_location",
                y="y_location",
                z=optional("z_location"),
                cell="cell_id",
                qv=optional("qv"),
                nucleus=optional("overlaps_nucleus"),
                is_gene=is_gene,
                category=None if is_gene else optional("codeword_category"),
                no_cell=frozenset(options.no_cell),
            ),
            progress=progress,
        )
        table = sort_by_cell(
            chunks, path=file, is_control=chunks.is_control, min_qv=min_qv, in_memory_bytes=in_memory_bytes
        )
        if options.check_places:
            check_cells(table, file)
        bundle = file.parent if path.is_dir() or file.name in TRANSCRIPT_FILES else None
        cell_file = _first(bundle, CELL_FILES) if bundle and options.drop_unlisted else None
        if cell_file:
            table = only_listed(table, listed(cell_file, table.cells, cell="cell_id", spelled=spelled))
        centroids, areas = _cell_table(bundle, table.cells) if bundle else (None, None)
        return Transcripts(
            **vars(table),
            gene_ids=_gene_ids(bundle, table.genes) if bundle else None,
            centroids=centroids,
            areas=areas,
            nucleus_known="overlaps_nucleus" in rows.columns,
            metadata=_metadata(bundle),
            parameters={
                "platform": self.name,
                "file": file.name,
                "min_qv": min_qv if "qv" in rows.columns else "not applied: the file has no column qv",
            },
        )


def _cell_table(bundle: Path, cells: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return centroids, shape (n_cells, 2), and areas, shape (n_cells,), as far as the bundle knows them."""
    file = _first(bundle, CELL_FILES)
    if file is None:
        outlines = _first(bundle, BOUNDARY_FILES)
        if outlines is None:
            return None, None
        polygons = read_vertices(outlines, cell="cell_id", x="vertex_x", y="vertex_y", part="label_id")
        return None, polygons.areas(spelled(cells, dict.fromkeys(polygons.cells, 0)))
    area = ["cell_area"] if "cell_area" in column_names(file) else []
    row, values = read_cell_table(file, cell="cell_id", values=["x_centroid", "y_centroid", *area])
    values = values[rows_of_cells(file, spelled(cells, row), row)]
    check_centroids(file, cells, values[:, :2])
    return values[:, :2], values[:, 2] if area else None


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def spelled(cells: np.ndarray, known: dict[str, int]) -> np.ndarray:
    """Return the ids of cells as another table writes them."""
    ids = [str(cell) for cell in cells]
    if not any(cell in known for cell in ids):
        # Bundles that were converted by hand mix the integer ids of XOA 1 with the text ids of XOA 2.
        ids = [_other_spelling(cell) for cell in ids]
    return np.array(ids, dtype=str)


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
        value = next((experiment[name] for name in names if experiment.get(name) not in (None, "", "N/A")), None)
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
            # Controls may stand twice, under two ids; they are no genes.
            is_gene = target["type"].get("descriptor", "gene") == "gene" and not is_control_name(str(data.get("name")))
            if is_gene and "id" in data and "name" in data:
                known = ids.setdefault(data["name"], data["id"])
                if known != data["id"]:
                    raise InputError(f"{file} has two ids for the gene {data['name']!r}: {known} and {data['id']}")
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not a Xenium gene panel: it has no list payload.targets of features") from error
    return [ids.get(gene, "") for gene in genes]
