"""Find out the platform of a run and read its transcripts or its counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from spaf_data import keys
from spaf_data.errors import InputError
from spaf_data.gene_identity import GeneNames
from spaf_data.options import PLATFORMS, ReadOptions
from spaf_data.readers import cosmx, h5ad, merscope, spatial_data, table, visium, xenium
from spaf_data.readers._counts import count_table
from spaf_data.readers._table import column_names, is_table
from spaf_data.slides import slide_column, slides_of_cells
from spaf_data.transcripts import Transcripts

if TYPE_CHECKING:
    from spatialdata import SpatialData

# In the order in which a folder is tried.
TRANSCRIPT_READERS: dict[str, ModuleType] = {
    "xenium": xenium,
    "merscope": merscope,
    "cosmx": cosmx,
    "spatialdata": spatial_data,
    "table": table,
}
COUNT_READERS: dict[str, ModuleType] = {
    "xenium": xenium,
    "visium": visium,
    "merscope": merscope,
    "spatialdata": spatial_data,
    "anndata": h5ad,
}
assert {*TRANSCRIPT_READERS, *COUNT_READERS} == {*PLATFORMS}, "a platform has no reader, or a reader no name"

# Names of files that say nothing of the run they are of.
FILES_OF_A_FOLDER = frozenset({*xenium.TRANSCRIPT_FILES, *merscope.TRANSCRIPT_FILES})


def read_transcripts(
    source: str | Path | SpatialData,
    *,
    platform: str = "auto",
    min_qv: float = 20.0,
    options: ReadOptions | None = None,
    progress: Callable[[float], None] | None = None,
) -> Transcripts:
    """Read the transcripts of one imaging run, sorted by cell.

    Controls, transcripts below `min_qv` and transcripts in no cell are dropped and counted, in this order. The run
    is streamed: memory holds one chunk of rows, some bytes a cell, and the kept transcripts (21 bytes each) up to
    128 MiB; above, they lie in memory-mapped temporary files. The result does not depend on the order of the rows.

    Parameters
    ----------
    source
        The instrument's output folder, its file of transcripts, a SpatialData zarr store or a SpatialData object.
    platform
        ``"xenium"``, ``"merscope"``, ``"cosmx"``, ``"spatialdata"`` or ``"table"``, any table whose columns `options`
        name; ``"auto"`` recognises a folder by its files and a file by its name or columns.
    min_qv
        Transcripts with a Phred-scaled quality below are dropped. Where the run has no quality values nothing is
        dropped, and ``parameters`` says so.
    options
        `ReadOptions` for what a platform leaves open, such as the size of pixels.
    progress
        Called with the fraction of the work done, from 0 to 1.

    Raises
    ------
    InputError
        If the source is no run with transcripts of a known platform, a column is missing, the file is damaged, a
        position is not finite, or no transcript is left.

    See Also
    --------
    read_counts : for runs without transcripts.

    Examples
    --------
    >>> transcripts = read_transcripts("output-XETG00001__0002578__region")  # doctest: +SKIP
    >>> transcripts.account.as_dict()  # doctest: +SKIP
    {'read': 186146, 'controls': 0, 'low_quality': 0, 'unassigned': 2773, 'kept': 183373}
    """
    run = _existing(source)
    reader = _reader(run, platform, TRANSCRIPT_READERS, "transcripts")
    found: Transcripts = reader.read_transcripts(run, options or ReadOptions(), min_qv=min_qv, progress=progress)
    return found


def read_counts(
    source: str | Path | SpatialData | AnnData,
    *,
    platform: str = "auto",
    min_transcripts: int = 30,
    slide: str | None = None,
    tissue: str | None = None,
    condition: str | None = None,
    species: str | None = None,
    assay: str | None = None,
    options: ReadOptions | None = None,
) -> AnnData:
    """Read a run that has counts of cells, spots or bins, and no transcripts, as the AnnData of a slide.

    Parameters
    ----------
    source
        The ``outs`` folder of Visium or Visium HD, a Xenium bundle with ``cell_feature_matrix.h5`` and
        ``cells.parquet``, a MERSCOPE folder with ``cell_by_gene.csv`` and ``cell_metadata.csv``, an h5ad file, a zarr
        store of AnnData or SpatialData, or an object of these.
    platform
        ``"visium"`` (also HD), ``"xenium"``, ``"merscope"``, ``"spatialdata"`` or ``"anndata"``; ``"auto"`` recognises
        the source.
    min_transcripts
        Cells, spots or bins with fewer counts are dropped and counted.
    slide, tissue, condition, species, assay
        What the slide is; where None, what the run says of itself, else ``"unknown"``.
    options
        `ReadOptions` for what a platform leaves open, such as the side of bins, the size of pixels or the column of
        the slides.

    Returns
    -------
    AnnData
        As that of `bin_transcripts`; ``nucleus_fraction`` is NaN. Where the source holds several slides (``slide_key``
        of the options, or a column with a usual name: `slide_column`), ``obs["slide"]`` keeps their names, each has the
        context that its cells have, and ``uns["spaf"]["parameters"]["slide_key"]`` says the column.
        ``uns["spaf"]["account"]`` counts transcripts or UMIs: ``read``, ``controls``, ``unassigned`` (in spots that are
        not under tissue) and ``kept``; where there are some, ``unlisted`` (in cells that were dropped because the table
        of cells lacks them).

    Raises
    ------
    InputError
        If the source is no such run, a file is damaged or lacks something, names repeat, counts or centroids
        cannot be used, `slide` names several slides, or no column says the slides of cells that cannot all be of one.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> cells = anndata.AnnData(
    ...     np.array([[30, 2], [1, 0]]), obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=["KRT5", "VIM"]),
    ...     obsm={"spatial": np.array([[0.0, 0.0], [9.0, 3.0]])},
    ... )
    >>> slide = read_counts(cells, tissue="Skin")
    >>> slide.obs_names.tolist(), slide.uns["spaf"]["account"]["in_small_cells"]
    (['a'], 1)
    """
    run = _existing(source)
    reader = _reader(run, platform, COUNT_READERS, "counts")
    described = {
        keys.SLIDE: slide,
        keys.TISSUE: tissue,
        keys.CONDITION: condition,
        keys.SPECIES: species,
        keys.ASSAY: assay,
    }
    found = reader.read_counts(run, options or ReadOptions())
    return count_table(found, min_transcripts=min_transcripts, described=described)


def has_transcripts(source: str | Path | SpatialData, *, platform: str = "auto") -> bool:
    """Whether `read_transcripts` reads a run; else it is one for `read_counts`.

    Raises
    ------
    InputError
        If it is neither.
    """
    run = _existing(source)
    _check_platform(platform, PLATFORMS)
    if _recognise(run, platform, TRANSCRIPT_READERS, "transcripts") is not None:
        return True
    if _recognise(run, platform, COUNT_READERS, "counts") is not None:
        return False
    raise InputError(_no_run(run, platform))


def slides_inside(source: Path, options: ReadOptions, *, platform: str = "auto") -> tuple[str, list[str]] | None:
    """Return the column of the slides of a run of counts and their names, sorted; None where the run is one slide.

    Raises
    ------
    InputError
        If there is no such run, or its slides cannot be told.
    """
    if options.one_slide or options.only_slide is not None or has_transcripts(source, platform=platform):
        return None
    reader = _reader(source, platform, COUNT_READERS, "counts")
    if reader is spatial_data:
        obs, usual = spatial_data.read_obs(source, options)
    elif reader is h5ad:
        obs, usual = h5ad.read_obs(source), None
    else:
        return None
    column = slide_column(obs, options.slide_key or usual, where=str(source))
    names = None if column is None else slides_of_cells(obs, column, where=str(source))
    if column is None or names is None or len(np.unique(names)) < 2:
        return None
    return column, np.unique(names).tolist()


def genes_known_before(source: Path, options: ReadOptions, *, platform: str = "auto") -> GeneNames | None:
    """Return the genes of a run that says them without being read, as an h5ad file does; None for any other."""
    if platform not in ("auto", "anndata") or not source.is_file() or not h5ad.has_counts(source):
        return None
    return h5ad.read_genes(source, options)


def find_bundles(path: str | Path, *, platform: str = "auto") -> list[Path]:
    """Return the runs that a path means: itself, or the runs in a folder of runs, by name.

    Raises
    ------
    InputError
        If there is none; the message says what was looked for.
    """
    run = _existing(path)
    assert isinstance(run, Path), "not an object"
    _check_platform(platform, PLATFORMS)
    if _is_run(run, platform):
        return cosmx.runs(run) if _recognise(run, platform, TRANSCRIPT_READERS, "transcripts") is cosmx else [run]
    inside = []
    if run.is_dir():
        inside = [item for item in sorted(run.iterdir()) if _may_be_run(item) and _is_run(item, platform)]
    if not inside:
        raise InputError(_no_run(run, platform))
    return inside


def _may_be_run(item: Path) -> bool:
    return not item.name.startswith(".") and (item.is_dir() or item.suffix == ".h5ad")


def _is_run(path: Path, platform: str) -> bool:
    return any(
        _recognise(path, platform, readers, kind) is not None
        for readers, kind in ((TRANSCRIPT_READERS, "transcripts"), (COUNT_READERS, "counts"))
    )


def _existing(source: str | Path | SpatialData | AnnData) -> Path | SpatialData | AnnData:
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path} does not exist")
    return path


def _check_platform(platform: str, choices: Iterable[str]) -> None:
    if platform not in ("auto", *choices):
        raise InputError(f"unknown platform {platform!r}; choose from auto, {', '.join(choices)}")


def _reader(run: Path | SpatialData | AnnData, platform: str, readers: dict[str, ModuleType], kind: str) -> ModuleType:
    """Return the reader of a run."""
    _check_platform(platform, readers)
    found = _recognise(run, platform, readers, kind)
    if found is None:
        raise InputError(_no_run(run, platform, readers, kind))
    return found


def _recognise(
    run: Path | SpatialData | AnnData, platform: str, readers: dict[str, ModuleType], kind: str
) -> ModuleType | None:
    # Any text may be a table, so that one must be named.
    names = [name for name in readers if platform == name or (platform == "auto" and name != "table")]
    if spatial_data.is_spatial_data(run):
        names = [name for name in names if name == "spatialdata"]
    elif isinstance(run, AnnData):
        return readers.get("anndata") if "anndata" in names else None
    for name in names:
        if getattr(readers[name], f"has_{kind}")(run):
            return readers[name]
    if kind == "transcripts" and isinstance(run, Path) and run.is_file() and is_table(run):
        return _reader_of_columns(run, names, readers)
    return None


def _reader_of_columns(file: Path, names: list[str], readers: dict[str, ModuleType]) -> ModuleType | None:
    """Return the reader whose columns a table of any name has; a platform that was named outright is believed."""
    tables = [name for name in names if hasattr(readers[name], "COLUMNS")]
    if len(tables) == 1:
        return readers[tables[0]]
    present = set(column_names(file))
    return next((readers[name] for name in tables if present.issuperset(readers[name].COLUMNS)), None)


def _no_run(run: object, platform: str, readers: dict[str, ModuleType] | None = None, kind: str | None = None) -> str:
    """Say what was looked for in vain."""
    wanted: list[str] = []
    for registry, name_of_kind in ((TRANSCRIPT_READERS, "transcripts"), (COUNT_READERS, "counts")):
        if readers in (None, registry):
            wanted += [
                f"{getattr(module, f'{name_of_kind.upper()}_WANTED')} ({name})"
                for name, module in registry.items()
                if platform in ("auto", name)
            ]
    what = run if isinstance(run, Path) else f"the {type(run).__name__} object"
    return f"{what} is not a run with {kind or 'transcripts or counts'}; looked for {'; '.join(wanted)}"
