"""From what a command line is given to the slides that are meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spaf_data import datasets
from spaf_data.errors import InputError
from spaf_data.options import ReadOptions, SlideSource
from spaf_data.readers import find_bundles, slide_name, slides_inside
from spaf_data.sheet import read_sheet

DATASETS = ("xenium_breast_window",)


def slide_sources(
    *,
    inputs: Sequence[Path] = (),
    dataset: str | None = None,
    sheet: Path | None = None,
    slide: str | None = None,
    platform: str = "auto",
    reading: ReadOptions | None = None,
    described: Mapping[str, str | None] | None = None,
) -> list[SlideSource]:
    """Return the slides that are meant by runs, by the name of a public data set or by a sheet.

    Parameters
    ----------
    inputs
        Runs, or folders of runs.
    dataset
        Name of a public data set, which is fetched the first time.
    sheet
        CSV file with a row for each slide (`read_sheet`).
    slide
        Name of the only slide; else that of its folder or file.
    platform, reading
        How runs are read; what a sheet says of a slide goes before.
    described
        Tissue, condition, species and assay, where a sheet says nothing.

    Raises
    ------
    InputError
        If not just one of `inputs`, `dataset` and `sheet` is given, a run is not found, or `slide` names several.
    """
    if sum((bool(inputs), dataset is not None, sheet is not None)) != 1:
        raise InputError("give either runs (folders or files), --dataset or --sheet, and not both")
    reading = reading or ReadOptions()
    given = dict(described or {})
    if sheet is not None:
        if slide is not None:
            raise InputError("--slide names one slide; in a sheet the column 'slide' does")
        return [
            replace(source, reading=reading, platform=platform if source.platform == "auto" else source.platform)
            for source in read_sheet(sheet, defaults=given)
        ]
    if dataset is not None:
        if dataset not in DATASETS:
            raise InputError(f"there is no data set {dataset!r}; the choices are {', '.join(DATASETS)}")
        bundles = [datasets.xenium_breast_window()]
        slide = slide or dataset
        given |= {key: given.get(key) or value for key, value in datasets.BREAST_WINDOW_METADATA.items()}
    else:
        bundles = [bundle for path in inputs for bundle in find_bundles(path, platform=platform)]
    if slide is not None and len(bundles) > 1:
        raise InputError(f"--slide names one slide, and there are {len(bundles)} bundles")
    return [
        SlideSource(
            path=bundle,
            slide=slide or slide_name(bundle, platform=platform),
            named=slide is not None,
            platform=platform,
            reading=reading,
            **given,
        )
        for bundle in bundles
    ]


def each_slide(source: SlideSource) -> list[SlideSource]:
    """Return the slides of a run: itself, or a source for each slide that its table of cells names."""
    try:
        inside = slides_inside(source.path, source.reading, platform=source.platform)
    except (InputError, OSError, KeyError, ValueError, TypeError):
        return [source]  # reading it raises the same, where it does not lose the other slides of a build
    if inside is None:
        return [source]
    column, names = inside
    slides = []
    for name in names:
        reading = replace(source.reading, only_slide=(column, name))
        try:
            slides.append(replace(source, slide=f"{source.slide}-{name}" if source.named else name, reading=reading))
        except InputError as error:
            raise InputError(f"{source.path}, obs column {column!r}: {error}") from error
    return slides


def parse_columns(text: str) -> dict[str, str]:
    """Return the columns of a table of transcripts from ``gene=...,x=...,y=...,cell=...``.

    Raises
    ------
    InputError
        If it is not written so.
    """
    parts = [part.partition("=") for part in text.split(",")]
    for name, equals, column in parts:
        if not (equals and column):
            raise InputError(f"--columns has {name!r} without a column; write gene=...,x=...,y=...,cell=...")
    return {name.strip(): column.strip() for name, _, column in parts}
