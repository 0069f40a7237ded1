"""A data set of the benchmark: its cells, which columns say what, and how it is divided into parts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Hashable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

import spaf_data
from spaf_analysis.errors import InputError
from spaf_analysis.genes import checked_counts
from spaf_analysis.keys import SLIDE, SPATIAL
from spaf_analysis.metrics import spatial_tiles
from spaf_analysis.patterns.tool import cells_of_run
from spaf_analysis.tables import check_cell_names, labels_of, places_of, read_table, slide_names

if TYPE_CHECKING:
    import anndata as ad

    from spaf_data import Transcripts

T = TypeVar("T")
Parts = Literal["strips", "thirds", "tiles", "slides", "donors"]
PUBLIC = {"xenium_breast_window": (spaf_data.xenium_breast_window, spaf_data.BREAST_WINDOW_METADATA)}
N_FOLDS = 3
_STRIPS = 9
_MAX_FOLDS = 8  # of whole slides or donors; of more several share a fold


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What the table ``[data.NAME]`` says."""

    path: str | None = None  # h5ad, relative to the folder of the TOML file
    dataset: str | None = None  # or a public data set by its name
    layer: str | None = None  # with the counts; None: X
    slide: str | None = None  # column of obs; None: usual names
    donor: str | None = None  # column of obs
    batch: str | None = None  # column of obs with what is to be mixed; None: donor, or slide
    label: str | None = None  # column of obs with cell types or what else a cell is
    region: str | None = None  # column of obs with what surrounds a cell: layers, domains
    reference: str | None = None  # h5ad of labelled cells, whose labels are carried to this one
    transcripts: str | None = None  # the run that the cells are of, relative to the TOML file
    without: tuple[str, ...] = ()  # values of label, region and batch that say nothing, such as "undetermined"
    parts: Parts = "thirds"  # what is held out together, of what is predicted
    spot: float = 75.0  # um, side of the squares that cells are added up in for deconvolution

    def __post_init__(self) -> None:
        if (self.path is None) == (self.dataset is None):
            raise InputError("a data set has either a path or the name of a public dataset.")
        if self.dataset is not None and self.transcripts is not None:
            raise InputError("a public dataset has transcripts of its own; leave transcripts out.")
        if self.dataset is not None and self.dataset not in PUBLIC:
            raise InputError(f"there is no public data set {self.dataset!r}; there are: {', '.join(PUBLIC)}.")
        if self.parts == "donors" and self.donor is None:
            raise InputError("parts are donors, and no column of donors is named (donor).")
        if not self.spot > 0:
            raise InputError(f"spot must be above 0 um, not {self.spot:g}.")


class Data:
    """A data set that was read and checked.

    Attributes
    ----------
    name
        In the TOML file.
    options
        What the file says of it.
    table
        Cells x genes with counts in `X`, the slide in ``obs["slide"]``; nothing writes to it.
    """

    def __init__(self, name: str, options: DataOptions, folder: Path) -> None:
        self.name, self.options, self.folder = name, options, folder
        self._made: dict[Hashable, Any] = {}

    @cached_property
    def table(self) -> ad.AnnData:
        """Read the cells when they are first asked for."""
        if self.options.dataset is not None:
            fetch, context = PUBLIC[self.options.dataset]
            table = spaf_data.bin_transcripts(
                spaf_data.read_transcripts(fetch()), tissue=context["tissue"], condition=context["condition"],
                species=context["species"], assay=context["assay"],
            )  # fmt: skip
        else:
            table = read_table(self.folder / str(self.options.path))
        return self._ready(table, self.options.layer)

    @cached_property
    def reference(self) -> ad.AnnData | None:
        """The labelled cells whose labels are carried to these; None where the data set names none."""
        if self.options.reference is None:
            return None
        return self._ready(read_table(self.folder / self.options.reference), None)

    @property
    def run(self) -> Path | None:
        """Where the run lies that the cells are of; None where the data set names none."""
        if self.options.dataset is not None:
            return PUBLIC[self.options.dataset][0]()
        return None if self.options.transcripts is None else self.folder / self.options.transcripts

    @cached_property
    def transcripts(self) -> tuple[Transcripts, NDArray[np.int64]]:
        """Read the transcripts of the cells of the table; and return the row of the table that each of their cells is.

        Raises
        ------
        InputError
            If the data set names no run, it cannot be read, or none of its cells is in the table.
        """
        if self.run is None:
            raise InputError(f"data set {self.name!r} names no run with its transcripts (transcripts).")
        read = spaf_data.read_transcripts(self.run)
        rows, cells = cells_of_run(self.table, read)
        return read.of_cells(cells), rows

    @cached_property
    def fingerprint(self) -> str:
        """Say what the results depend on: the bytes of the files, or the name of the public data set.

        Of a run with transcripts, which can be many files and large, names, sizes and times of its files.
        """
        digest = hashlib.sha256()
        if self.options.transcripts is not None:
            run = self.folder / self.options.transcripts
            for place in sorted(run.rglob("*")) if run.is_dir() else [run]:
                if place.is_file():
                    state = place.stat()
                    digest.update(f"{place.relative_to(run)} {state.st_size} {state.st_mtime_ns}\n".encode())
        for name in (self.options.path, self.options.reference):
            if name is not None:
                with (self.folder / name).open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest() if self.options.dataset is None else self.options.dataset

    def check(self) -> None:
        """Read the cells and look whether the columns are there.

        Raises
        ------
        InputError
            If a file cannot be read, a column is missing or says nothing, cells share a name, or there are no counts.
        """
        try:
            check_cell_names(self.table)
            if self.options.transcripts is not None and not (self.folder / self.options.transcripts).exists():
                raise InputError(f"there is no run {self.folder / self.options.transcripts} (transcripts).")
            for option in ("slide", "donor", "batch", "label", "region"):
                column = getattr(self.options, option)
                if column is not None:
                    labels_of(self.table, column, option, least=1 if option in ("slide", "donor") else 2)
            for column in (self.options.label, self.options.region):
                if column is not None:
                    self.codes(column)
            if self.reference is not None and self.options.label is not None:
                labels_of(self.reference, self.options.label, "label")
        except (InputError, spaf_data.InputError) as error:
            said = str(error)
            raise InputError(said if str(self.options.path) in said else f"data set {self.name!r}: {said}") from error

    def release(self) -> None:
        """Give the memory of the cells back; they are read again where they are asked for."""
        self.__dict__.pop("table", None)
        self.__dict__.pop("reference", None)
        self.__dict__.pop("transcripts", None)
        self._made.clear()

    @property
    def batch(self) -> str | None:
        """The column with what is to be mixed; None where there is only one of everything."""
        for column in (self.options.batch, self.options.donor, SLIDE):
            if column is not None and column in self.table.obs and self.table.obs[column].nunique() > 1:
                return column
        return None

    @property
    def has_places(self) -> bool:
        """Whether cells have places."""
        return SPATIAL in self.table.obsm

    def names(self) -> set[str]:
        """Return the fields of the options that this data set has, for `Task.needs`."""
        found = {name for name in ("label", "region", "donor") if getattr(self.options, name) is not None}
        if self.options.dataset is not None or self.options.transcripts is not None:
            found.add("transcripts")
        return found | ({"batch"} if self.batch else set()) | ({"places"} if self.has_places else set())

    def codes(self, column: str) -> tuple[NDArray[np.int64], list[str]]:
        """Return the code of each cell in a column, -1 for those that say nothing, and the names of the codes.

        Raises
        ------
        InputError
            If fewer than 2 values are left.
        """
        code, names = labels_of(self.table, column, column)
        kept = [name for name in names if name not in self.options.without]
        if len(kept) < 2:
            raise InputError(f"obs column {column!r} has fewer than 2 values beside those of without.")
        rank = np.array([kept.index(name) if name in kept else -1 for name in names] + [-1])
        return rank[code], kept

    def folds(self, rows: NDArray[np.int64], *, seed: int = 0) -> NDArray[np.int64]:
        """Divide cells into parts, each predicted from the others, (n_rows,)."""
        parts = self.options.parts
        if parts in ("slides", "donors"):
            of = slide_names(self.table) if parts == "slides" else self.table.obs[self.options.donor].astype(str)
            code = np.unique(np.asarray(of)[rows], return_inverse=True)[1].ravel()
            return np.asarray(code % _MAX_FOLDS, dtype=np.int64)
        if not self.has_places:
            return np.random.default_rng(seed).permutation(rows.size) % N_FOLDS
        places, slide = places_of(self.table)[rows], slide_names(self.table)[rows]
        if parts == "tiles":
            tiles = spatial_tiles(places, slide)
            return np.asarray(np.random.default_rng(seed).permutation(tiles.n)[tiles.code] % N_FOLDS)
        return strips(places, slide, N_FOLDS if parts == "thirds" else _STRIPS) % N_FOLDS

    def units(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], str]:
        """Return what is drawn for intervals, of each cell, and its name: tiles, or cells where they have no place."""
        if not self.has_places:
            return np.arange(rows.size), "cells"
        return spatial_tiles(places_of(self.table)[rows], slide_names(self.table)[rows]).code, "tiles"

    def taken(self, rows: NDArray[np.int64]) -> ad.AnnData:
        """Return some of the cells as a table of their own."""
        return self.table[rows].copy()

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` gives, made the first time and kept for as long as the cells are."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found

    def _ready(self, table: ad.AnnData, layer: str | None) -> ad.AnnData:
        table.X = sparse.csr_matrix(
            checked_counts(table, layer, f"data set {self.name!r}", option="layer"), dtype=np.float32
        )
        slide = self.options.slide
        if slide is not None and slide in table.obs:
            table.obs[SLIDE] = table.obs[slide].astype(str).to_numpy()
        return table


def strips(places: NDArray[np.float64], slide: NDArray[np.str_], n: int) -> NDArray[np.int64]:
    """Cut each slide into strips of equally many cells across its longer extent; return the strip of each cell."""
    found = np.zeros(len(places), dtype=np.int64)
    for name in np.unique(slide):
        here = np.flatnonzero(slide == name)
        along = places[here, int(np.ptp(places[here], axis=0).argmax())]
        found[here[np.argsort(along, kind="stable")]] = np.arange(here.size) * n // here.size
    return found
