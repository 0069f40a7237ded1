"""Find out the platform of a run and read its transcripts or its counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spaf_data import defaults, keys
from spaf_data.errors import InputError
from spaf_data.options import READERS, ReadOptions
from spaf_data.readers._counts import count_table
from spaf_data.readers._platform import Platform, ReadsCounts, ReadsTranscripts
from spaf_data.readers._table import column_names, is_table
from spaf_data.slides import slide_column, slides_of_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spaf_data.gene_identity import GeneNames
    from spaf_data.transcripts import Transcripts

# In the order in which a run is tried.
PLATFORMS: dict[str, Platform[Any]] = {
    name: getattr(import_module(f"spaf_data.readers.{module}"), kind)() for name, (module, kind) in READERS.items()
}
assert all(platform.name == name for name, platform in PLATFORMS.items()), "a reader has another name than its class"


def read_transcripts(
    source: str | Path | SpatialData,
    *,
    platform: str = "auto",
    min_qv: float = defaults.MIN_QV,
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
    _check_platform(platform, [known.name for known in PLATFORMS.values() if isinstance(known, ReadsTranscripts)])
    reader = _of_transcripts(run, platform)
    if reader is None:
        raise InputError(_no_run(run, platform, "transcripts"))
    return reader.read_transcripts(run, options or ReadOptions(), min_qv=min_qv, progress=progress)


def read_counts(
    source: str | Path | SpatialData | AnnData,
    *,
    platform: str = "auto",
    min_transcripts: int = defaults.MIN_TRANSCRIPTS,
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
        store of AnnData or SpatialData, or an object of these; the shards of a SpatialCC data set.
    platform
        ``"visium"`` (also HD), ``"xenium"``, ``"merscope"``, ``"spatialdata"``, ``"anndata"`` or ``"spatialcc"``;
        ``"auto"`` recognises the source.
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
    _check_platform(platform, [known.name for known in PLATFORMS.values() if isinstance(known, ReadsCounts)])
    reader = _of_counts(run, platform)
    if reader is None:
        raise InputError(_no_run(run, platform, "counts"))
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
    _check_platform(platform, list(PLATFORMS))
    if _of_transcripts(run, platform) is not None:
        return True
    if _of_counts(run, platform) is not None:
        return False
    raise InputError(_no_run(run, platform, "transcripts", "counts"))


def slides_inside(source: Path, options: ReadOptions, *, platform: str = "auto") -> tuple[str, list[str]] | None:
    """Return the column of the slides of a run of counts and their names, sorted; None where the run is one slide.

    Raises
    ------
    InputError
        If there is no such run, or its slides cannot be told.
    """
    if options.one_slide or options.only_slide is not None or has_transcripts(source, platform=platform):
        return None
    reader = _of_counts(source, platform)
    found = None if reader is None else reader.read_obs(source, options)
    if found is None:
        return None
    obs, usual = found
    column = slide_column(obs, options.slide_key or usual, where=str(source))
    names = None if column is None else slides_of_cells(obs, column, where=str(source))
    if column is None or names is None or len(np.unique(names)) < 2:
        return None
    return column, np.unique(names).tolist()


def genes_known_before(source: Path, options: ReadOptions, *, platform: str = "auto") -> GeneNames | None:
    """Return the genes of a run that says them without being read, as an h5ad file does; None for any other."""
    reader = None if _of_transcripts(source, platform) is not None else _of_counts(source, platform)
    return None if reader is None else reader.known_genes(source, options)


def find_bundles(path: str | Path, *, platform: str = "auto") -> list[Path]:
    """Return the runs that a path means: itself, or the runs in a folder of runs, by name.

    Raises
    ------
    InputError
        If there is none; the message says what was looked for.
    """
    run: Path = _existing(path)
    _check_platform(platform, list(PLATFORMS))
    reader = _of_transcripts(run, platform) or _of_counts(run, platform)
    if reader is not None:
        return reader.runs(run)
    inside = []
    if run.is_dir():
        inside = [item for item in sorted(run.iterdir()) if _may_be_run(item) and _is_run(item, platform)]
    if not inside:
        raise InputError(_no_run(run, platform, "transcripts", "counts"))
    return inside


def slide_name(path: Path, *, platform: str = "auto") -> str:
    """Return what a slide is called after its run, where nobody names it.

    Raises
    ------
    InputError
        If there is no such run.
    """
    reader = _of_transcripts(path, platform) or _of_counts(path, platform)
    if reader is None:
        raise InputError(_no_run(path, platform, "transcripts", "counts"))
    return reader.slide_name(path.resolve())


def knows_unit(platform: str) -> bool:
    """Whether the runs of a platform say themselves what their places are; False for a name that is none."""
    return platform in PLATFORMS and PLATFORMS[platform].knows_unit


def _may_be_run(item: Path) -> bool:
    return not item.name.startswith(".") and (item.is_dir() or item.suffix == ".h5ad")


def _is_run(path: Path, platform: str) -> bool:
    return _of_transcripts(path, platform) is not None or _of_counts(path, platform) is not None


def _existing(source: str | Path | SpatialData | AnnData) -> Path | SpatialData | AnnData:
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path} does not exist")
    return path


def _check_platform(platform: str, choices: Sequence[str]) -> None:
    if platform not in ("auto", *choices):
        raise InputError(f"unknown platform {platform!r}; choose from auto, {', '.join(choices)}")


def _asked(run: object, platform: str) -> list[Platform[Any]]:
    """Return the platforms that may have written a run, in the order in which it is tried."""
    return [
        known
        for known in PLATFORMS.values()
        if known.takes(run) and (platform == known.name or (platform == "auto" and not known.only_by_name))
    ]


def _of_transcripts(run: Path | SpatialData | AnnData, platform: str) -> ReadsTranscripts[Any] | None:
    """Return the platform of a run of transcripts; None if it is of none."""
    asked = [known for known in _asked(run, platform) if isinstance(known, ReadsTranscripts)]
    for known in asked:
        if known.has_transcripts(run):
            return known
    if not (isinstance(run, Path) and run.is_file() and is_table(run)):
        return None
    # A table of any name is known by its columns; a platform that was named outright is believed.
    with_columns = [known for known in asked if known.columns]
    if len(with_columns) == 1:
        return with_columns[0]
    present = set(column_names(run))
    return next((known for known in with_columns if present.issuperset(known.columns)), None)


def _of_counts(run: Path | SpatialData | AnnData, platform: str) -> ReadsCounts[Any] | None:
    """Return the platform of a run of counts; None if it is of none."""
    asked = [known for known in _asked(run, platform) if isinstance(known, ReadsCounts)]
    return next((known for known in asked if known.has_counts(run)), None)


def _no_run(run: object, platform: str, *kinds: str) -> str:
    """Say what was looked for in vain."""
    known = [known for known in PLATFORMS.values() if platform in ("auto", known.name)]
    wanted: list[str] = []
    if "transcripts" in kinds:
        wanted += [f"{one.transcripts_wanted} ({one.name})" for one in known if isinstance(one, ReadsTranscripts)]
    if "counts" in kinds:
        wanted += [f"{one.counts_wanted} ({one.name})" for one in known if isinstance(one, ReadsCounts)]
    what = run if isinstance(run, Path) else f"the {type(run).__name__} object"
    return f"{what} is not a run with {' or '.join(kinds)}; looked for {'; '.join(wanted)}"
