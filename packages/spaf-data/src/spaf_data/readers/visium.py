"""10x Visium and Visium HD: the ``outs`` folder of Space Ranger.

Visium: ``filtered_feature_bc_matrix.h5`` (or the folder of that name) and ``spatial/`` with ``tissue_positions.csv``
(before Space Ranger 2 ``tissue_positions_list.csv``, without a header) and ``scalefactors_json.json``. Positions are
pixels of the full-resolution image. The size of a pixel follows from the lattice of the spots, which is the same on
every slide: in a row of the array they are 100 um apart (two columns), and rows lie 86.6 um apart. The diameter in
``scalefactors_json.json`` is no measure: it is that of a circle that the software draws, 15 to 22 % off 55 um.

Visium HD: ``binned_outputs/square_<side>um/`` with the same matrix and ``spatial/tissue_positions.parquet``;
``scalefactors_json.json`` has ``microns_per_pixel``. Since Space Ranger 4 ``segmented_outputs/`` holds segmented cells:
``filtered_feature_cell_matrix.h5`` and their outlines in ``cell_segmentations.geojson``, in pixels.

Only spots and bins under tissue are read; what is in the matrix but not under tissue counts as unassigned.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spaf_data.errors import InputError
from spaf_data.readers._counts import CellCounts
from spaf_data.readers._lattice import COLUMN, ROW, lattice_pixel_size
from spaf_data.readers._platform import ReadsCounts
from spaf_data.readers._segmented import SEGMENTED, is_segmented, microns_per_pixel, read_segmented
from spaf_data.readers._table import explained
from spaf_data.readers._tenx_matrix import find_matrix, read_matrix

if TYPE_CHECKING:
    from spaf_data.options import ReadOptions

POSITION_FILES = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
_BINS = re.compile(r"square_(\d+)um")
_SPECIES = {"GRCh38": "Human", "hg19": "Human", "mm10": "Mouse", "GRCm39": "Mouse"}


class Visium(ReadsCounts[Path]):
    """Folders of Space Ranger, of Visium and Visium HD."""

    name = "visium"
    options = ("pixel_size", "bin_size", "segmented", "drop_unlisted")
    counts_wanted = "filtered_feature_bc_matrix.h5 with spatial/, binned_outputs/ or segmented_outputs/"

    def has_counts(self, path: Path) -> bool:
        """Whether this is an ``outs`` folder, or the folder of one size of bins."""
        if any((path / name).is_dir() for name in ("binned_outputs", SEGMENTED)) or is_segmented(path):
            return True
        return (path / "spatial").is_dir() and find_matrix(path) is not None

    def read_counts(self, path: Path, options: ReadOptions) -> CellCounts:
        """Read the counts of spots or bins; see `spaf_data.read_counts`."""
        cells = path / SEGMENTED if (path / SEGMENTED).is_dir() else path
        binned = path / "binned_outputs"
        if is_segmented(cells) and (options.segmented or not binned.is_dir()):
            return read_segmented(cells, options)
        if options.segmented:
            raise InputError(f"{path} has no {SEGMENTED}; bins are read without segmented (--segmented)")
        folder = _bins(binned, options.bin_size) if binned.is_dir() else path
        file = find_matrix(folder)
        if file is None:
            raise InputError(f"{folder} has no filtered_feature_bc_matrix.h5 and no folder filtered_feature_bc_matrix")
        positions_file = next(
            (folder / "spatial" / n for n in POSITION_FILES if (folder / "spatial" / n).is_file()), None
        )
        if positions_file is None:
            raise InputError(f"{folder / 'spatial'} has none of {', '.join(POSITION_FILES)}")
        positions = _positions(positions_file)
        is_hd = _BINS.fullmatch(folder.name) is not None or positions_file.suffix == ".parquet"
        pixel, pixel_from = _pixel_size(folder, positions, options.pixel_size, is_hd=is_hd)

        matrix = read_matrix(file)
        row = pd.Index(positions["barcode"]).get_indexer(matrix.barcodes)
        if (row < 0).any():
            missing = matrix.barcodes[row < 0]
            raise InputError(
                f"{positions_file} has no row for {len(missing)} of the {len(row)} barcodes of {file.name}, the first "
                f"is {str(missing[0])!r}"
            )
        tissue = positions["in_tissue"].to_numpy()[row] == 1
        outside = matrix.counts[~tissue]
        places = positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
        species = _SPECIES.get((matrix.genome or "").removeprefix("refdata-gex-").split("-")[0])
        return CellCounts(
            where=str(file),
            counts=matrix.counts[tissue],
            cells=matrix.barcodes[tissue],
            genes=matrix.names,
            gene_ids=matrix.ids,
            control=matrix.control,
            outside=int(outside.sum()),
            outside_controls=int(outside[:, matrix.control].sum()),
            centroids=places[row[tissue]] * pixel,
            metadata={"assay": "Visium HD" if is_hd else "Visium", **({"species": species} if species else {})},
            parameters={
                "platform": self.name,
                "file": file.name,
                "bins": folder.name if is_hd else "spots",
                "pixel_size": pixel,
                "pixel_size_from": pixel_from,
            },
        )


def _bins(folder: Path, bin_size: int) -> Path:
    """Return the folder of the bins of a size."""
    sizes = {int(match[1]): item for item in sorted(folder.iterdir()) if (match := _BINS.fullmatch(item.name))}
    if bin_size not in sizes:
        there = ", ".join(f"{size} um" for size in sorted(sizes)) or "none"
        raise InputError(f"{folder} has no bins of {bin_size} um (bin_size); it has: {there}")
    return sizes[bin_size]


def _positions(file: Path) -> pd.DataFrame:
    """Read the places of barcodes, with a header or, as before Space Ranger 2, without."""
    try:
        with explained(file):
            if file.suffix == ".parquet":
                table = pd.read_parquet(file)
            else:
                with file.open(encoding="utf-8") as stream:
                    has_header = stream.readline().startswith("barcode")
                table = pd.read_csv(file, header=0 if has_header else None, names=None if has_header else _COLUMNS)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    for name in _COLUMNS:
        if name not in table:
            raise InputError(f"{file} has no column {name!r}; it has: {', '.join(map(str, table.columns))}")
    repeated = table["barcode"].duplicated()
    if repeated.any():
        raise InputError(f"{file} has two rows for barcode {table['barcode'][repeated].iloc[0]!r}")
    return table


def _pixel_size(folder: Path, positions: pd.DataFrame, given: float | None, *, is_hd: bool) -> tuple[float, str]:
    """Return um a pixel of the full-resolution image, and where it is known from."""
    if given is not None:
        return given, "pixel_size"
    side = _BINS.fullmatch(folder.name)
    if is_hd:
        said = microns_per_pixel(folder / "spatial" / "scalefactors_json.json")
        if said is not None:
            return said, "scalefactors_json.json"
    if is_hd and side is None:
        raise InputError(
            f"{folder / 'spatial' / 'scalefactors_json.json'} has no microns_per_pixel; give pixel_size in um"
        )
    column, row = (COLUMN, ROW) if side is None else (float(side[1]), float(side[1]))
    return lattice_pixel_size(positions, column=column, row=row, where=folder / "spatial"), "the lattice"
