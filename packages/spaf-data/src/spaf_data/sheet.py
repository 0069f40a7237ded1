"""A sheet of slides: a CSV file with a row for each slide of a build."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from spaf_data import keys
from spaf_data.errors import InputError
from spaf_data.options import PLATFORMS, SlideSource

REQUIRED = ("input", "slide")
COLUMNS = (*REQUIRED, *keys.CONTEXT, "split", "platform")


def read_sheet(path: str | Path, *, defaults: Mapping[str, str | None] | None = None) -> list[SlideSource]:
    r"""Read a sheet of slides.

    Parameters
    ----------
    path
        A CSV file (UTF-8, commas) with a header. Columns ``input``, the bundle, relative to the folder of the sheet;
        ``slide``, its name; and, as far as wanted, ``tissue``, ``condition``, ``species``, ``assay``, ``split``
        (``train`` or ``validation`` for the whole slide; empty: regions of it) and ``platform``.
    defaults
        Tissue, condition, species and assay of slides for which the sheet has none.

    Returns
    -------
    The slides in the order of the rows.

    Raises
    ------
    InputError
        If the file is no such sheet, two slides have one name or an input does not exist. Rows are numbered as a
        spreadsheet does: the header is row 1.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "run-1").mkdir()
    >>> _ = (folder / "slides.csv").write_text("input,slide,tissue\nrun-1,s1,Breast\n")
    >>> [(source.slide, source.tissue) for source in read_sheet(folder / "slides.csv")]
    [('s1', 'Breast')]
    """
    path = Path(path)
    sources: list[SlideSource] = []
    row_of: dict[str, int] = {}
    for number, row in _rows(path):
        source = _source(path, number, row, defaults or {})
        if source.slide in row_of:
            raise InputError(
                f"{path}, row {number}, column 'slide': {source.slide!r} is the slide of row {row_of[source.slide]} "
                "already"
            )
        row_of[source.slide] = number
        sources.append(source)
    if not sources:
        raise InputError(f"{path} has no row under its header, so there is no slide to build")
    return sources


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each row that is not empty, and its values by column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            _check_columns(path, columns)
            for values in reader:
                if not any(value.strip() for value in values):
                    continue
                if len(values) != len(columns):
                    raise InputError(
                        f"{path}, row {reader.line_num} has {len(values)} values for {len(columns)} columns"
                    )
                yield reader.line_num, {name: value.strip() for name, value in zip(columns, values, strict=True)}
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as CSV in UTF-8: {error}") from error


def _check_columns(path: Path, columns: list[str]) -> None:
    for name in REQUIRED:
        if name not in columns:
            raise InputError(f"{path} has no column {name!r}; it has: {', '.join(columns) or 'nothing'}")
    for name in columns:
        if name not in COLUMNS:
            raise InputError(f"{path} has a column {name!r}, which means nothing; choose from {', '.join(COLUMNS)}")
        if columns.count(name) > 1:
            raise InputError(f"{path} has two columns {name!r}")


def _source(path: Path, number: int, row: Mapping[str, str], defaults: Mapping[str, str | None]) -> SlideSource:
    def wrong(column: str, what: str) -> InputError:
        return InputError(f"{path}, row {number}, column {column!r}: {what}")

    for name in REQUIRED:
        if not row[name]:
            raise wrong(name, "is empty")
    bundle = path.parent / Path(row["input"]).expanduser()
    if not bundle.exists():
        raise wrong("input", f"{bundle} does not exist")
    platform = row.get("platform") or "auto"
    if platform not in ("auto", *PLATFORMS):
        raise wrong("platform", f"{platform!r} is none of auto, {', '.join(PLATFORMS)}")
    split = row.get("split") or None
    if split not in (None, keys.TRAIN, keys.VALIDATION):
        raise wrong("split", f"{split!r} is none of {keys.TRAIN}, {keys.VALIDATION} or empty (regions of the slide)")
    context = {key: row.get(key) or defaults.get(key) for key in keys.CONTEXT}
    try:
        return SlideSource(
            path=bundle,
            slide=row["slide"],
            platform=platform,
            split=split,
            tissue=context[keys.TISSUE],
            condition=context[keys.CONDITION],
            species=context[keys.SPECIES],
            assay=context[keys.ASSAY],
        )
    except InputError as error:
        raise wrong("slide", str(error)) from error
