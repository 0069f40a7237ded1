"""What can be chosen when runs are read and built. Needs no library, so that the command line knows it at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from spaf_data import defaults, keys
from spaf_data.distances import Distances
from spaf_data.errors import InputError

# Module and class of the reader of each platform (`spaf_data.readers`), in the order in which a run is tried. To add a
# reader: a module with its class, and its line here, where the command line knows the names without the libraries.
READERS = {
    "xenium": ("xenium", "Xenium"),
    "visium": ("visium", "Visium"),
    "merscope": ("merscope", "Merscope"),
    "cosmx": ("cosmx", "CosMx"),
    "spatialdata": ("spatial_data", "SpatialDataStore"),
    "anndata": ("h5ad", "AnnDataTable"),
    "spatialcc": ("spatialcc", "SpatialCC"),
    "table": ("table", "Table"),
}
PLATFORMS = tuple(READERS)

# How it is found which genes lie together inside cells.
ColocalizationMethod = Literal["communities", "enrichment"]

# What columns of a table of transcripts can hold.
REQUIRED_COLUMNS = ("gene", "x", "y", "cell")
_MOST_BYTES_OF_NAME = 240  # file systems allow 255, and endings come after it
OPTIONAL_COLUMNS = ("z", "qv", "nucleus")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options of readers; each platform uses those that concern it, and what is None is found out."""

    pixel_size: float | None = None  # um a pixel, where positions are pixels (CosMx, SpatialData, AnnData, SpatialCC)
    plane_spacing: float | None = None  # um between z planes, where z counts planes (MERSCOPE, CosMx)
    flip_polygons: bool = False  # the y axis of the polygons points against that of the transcripts (MERSCOPE)
    bin_size: int = 8  # side of the bins in um (Visium HD)
    points_key: str | None = None  # element of transcripts (SpatialData)
    table_key: str | None = None  # table of counts (SpatialData)
    layer: str | None = None  # layer that holds counts, when X does not; "raw" for .raw (AnnData, SpatialData)
    slide_key: str | None = None  # column with the slide of each cell; None: found by its name (AnnData, SpatialData)
    one_slide: bool = False  # all cells are of one slide, whatever columns and places say (AnnData, SpatialData)
    only_slide: tuple[str, str] | None = None  # column and value of the only slide to read (AnnData, SpatialData)
    check_places: bool = True  # ask where places look wrong: cells of several slides in one, a giant cell
    no_cell: tuple[str, ...] = ()  # what stands for "in no cell" beside the usual words (runs of transcripts)
    boundaries: str | None = None  # file of cell outlines in the folder, where it has several (MERSCOPE)
    segmented: bool = False  # segmented cells and not bins (Visium HD)
    drop_unlisted: bool = False  # drop and count cells that the run's table of cells lacks, such as filtered ones
    columns: Mapping[str, str] | None = None  # names of gene, x, y, cell and, as far as there, z, qv, nucleus (table)

    def __post_init__(self) -> None:
        for name in ("pixel_size", "plane_spacing"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} must be above 0 um, not {value:g}")
        if self.one_slide and self.slide_key is not None:
            raise InputError("give either one_slide (--one-slide) or slide_key (--slide-key), not both")
        if self.columns is not None:
            known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
            for name in self.columns:
                if name not in known:
                    raise InputError(f"columns names {name!r}; the choices are {', '.join(known)}")
            for name in REQUIRED_COLUMNS:
                if name not in self.columns:
                    raise InputError(f"columns must name {name}; it names {', '.join(self.columns) or 'nothing'}")


@dataclass(frozen=True, kw_only=True)
class SlideSource:
    """A run and what it is; what is None is taken from the run, else ``"unknown"``."""

    path: Path
    slide: str
    tissue: str | None = None
    condition: str | None = None
    species: str | None = None
    assay: str | None = None
    platform: str = "auto"
    reading: ReadOptions = field(default_factory=ReadOptions)
    split: str | None = None  # "train" or "validation" for the whole slide; None: regions of it
    named: bool = True  # False: `slide` is but the name of the file, and slides in the file go by their own

    def __post_init__(self) -> None:
        if self.split not in (None, keys.TRAIN, keys.VALIDATION):
            raise InputError(
                f"slide {self.slide}: split is {self.split!r}; the choices are {keys.TRAIN}, {keys.VALIDATION} and None"
            )
        if not _is_file_name(self.slide):
            raise InputError(
                f"a slide's name becomes a file name, so {_short(self.slide)} cannot be one; give another (--slide)"
            )


def _is_file_name(name: str) -> bool:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # bytes of a command line that are no text
        return False
    return 0 < size <= _MOST_BYTES_OF_NAME and not (name.startswith(".") or set(name) & set("/\\\0"))


def _short(name: str) -> str:
    return repr(name) if len(name) <= 40 else f"{name[:40]!r}... of {len(name)} letters"


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How slides and corpus are made; lengths in um."""

    min_qv: float = defaults.MIN_QV  # transcripts of lower quality are dropped
    min_transcripts: int = defaults.MIN_TRANSCRIPTS  # cells with fewer are dropped
    radius: float = defaults.RADIUS  # cells closer than this are neighbours and positive pairs
    hard_min: float | None = None  # of hard negatives; None follows the radius, as do the next two (`Distances`)
    hard_max: float | None = None
    easy_min: float | None = None  # easy negatives are further away
    colocalization_method: ColocalizationMethod = "communities"  # of what a model is told of single cells
    colocalization_radius: float = defaults.COLOCALIZATION_RADIUS  # transcripts closer than this are proximal
    colocalization_min_transcripts: int = (
        defaults.COLOCALIZATION_MIN_TRANSCRIPTS
    )  # of a gene in a community of transcripts
    colocalization_min_expected: float | None = None  # joins of two genes for a test of their enrichment; None: found
    validation_fraction: float = defaults.VALIDATION_FRACTION  # of each slide's cells
    gap: float | None = None  # between the regions of training and validation; None: twice the radius
    block_cells: int = defaults.BLOCK_CELLS  # cells a block of the corpus owns at most
    check_units: bool = True  # refuse places that are probably no um
    own_frames: bool = False  # each cell has a frame of its own, so that none are neighbours (cultures)
    allow_other_genes: bool = False  # slides may share (nearly) no genes with the rest of the corpus

    def __post_init__(self) -> None:
        for name in ("min_qv", "radius", "colocalization_radius", "colocalization_min_expected", "gap"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"{name} must be a finite number, not {value:g}")
        for name in ("radius", "colocalization_radius"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0 um, not {getattr(self, name):g}")
        if self.colocalization_method not in get_args(ColocalizationMethod):
            raise InputError(
                f"colocalization_method is {self.colocalization_method!r}; the choices are "
                f"{', '.join(get_args(ColocalizationMethod))}"
            )
        fewest = self.colocalization_min_expected
        if fewest is not None and not fewest > 0:
            raise InputError(f"colocalization_min_expected must be above 0, not {fewest:g}")
        _ = self.distances  # contradictory ones are refused here
        for name in ("min_transcripts", "colocalization_min_transcripts", "block_cells"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"validation_fraction must lie between 0 and 1, not {self.validation_fraction:g}")
        if self.gap is not None and not self.gap > self.radius:
            raise InputError(
                f"gap ({self.gap:g} um) must be wider than radius ({self.radius:g} um), or cells of training and "
                "validation would be neighbours"
            )

    @property
    def split_gap(self) -> float:
        """The gap between the regions of training and validation, um."""
        return 2.0 * self.radius if self.gap is None else self.gap

    @property
    def distances(self) -> Distances:
        """At what distances cells are neighbours, hard negatives and easy negatives."""
        return Distances(positive=self.radius, hard_min=self.hard_min, hard_max=self.hard_max, easy_min=self.easy_min)
