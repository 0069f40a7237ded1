"""The command line ``spaf-data``.

What does the work is imported by the command that needs it: the libraries take seconds, and ``--help`` none.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from spaf_data import defaults, keys
from spaf_data._build_summary import print_build
from spaf_data._console import console, progress
from spaf_data.errors import InputError
from spaf_data.options import PLATFORMS, BuildOptions, ReadOptions

app = typer.Typer(
    help="Spatial-omics runs in, slide tables and training corpora out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Dataset(StrEnum):
    """Public data sets that are fetched by name."""

    xenium_breast_window = "xenium_breast_window"


class _ColocalizationMethod(StrEnum):
    """`ColocalizationMethod`, as typer takes choices."""

    communities = "communities"
    enrichment = "enrichment"


def main() -> None:
    """Run the command line; what a user can cause becomes one line on stderr and exit code 2."""
    try:
        app()
    except InputError as error:
        _fail(error, str(error))
    except OSError as error:
        if error.errno is None:  # not of the file system
            raise
        _fail(error, f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))


def _fail(error: Exception, sentence: str) -> None:
    _say("; ".join(part.removesuffix(".") for part in (sentence, *getattr(error, "__notes__", ()))))
    raise SystemExit(2)


def _say(sentence: str) -> None:
    sys.stderr.write(f"spaf-data: {' '.join(sentence.split())}.\n")


def _about(text: str) -> Any:
    return typer.Option(help=text, metavar="TEXT", rich_help_panel="What the slides are")


def _how(text: str, unit: str = "N") -> Any:
    return typer.Option(help=text, metavar=unit, rich_help_panel=_MAKING)


_MAKING = "How they are made"
_READING = "How runs are read"


def _read(text: str, unit: str) -> Any:
    return typer.Option(help=text, metavar=unit, rich_help_panel=_READING)


_JSON = typer.Option("--json", help="Print the answer as JSON.")
_DEFAULTS = BuildOptions()
_READ_DEFAULTS = ReadOptions()


@app.command()
def build(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder to make.")],
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER", help="Runs, or folders of runs.", show_default=False)
    ] = None,
    inputs: Annotated[
        list[Path] | None, typer.Option("--input", "-i", hidden=True, help="FOLDER as it was spelt before.")
    ] = None,
    dataset: Annotated[
        Dataset | None, typer.Option(metavar="NAME", help=f"Instead of FOLDER: {', '.join(Dataset)}.")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Instead of FOLDER: a row for each slide with the columns input and slide, and as far as wanted "
            f"{', '.join(keys.CONTEXT)}, split (train or validation) and platform.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", metavar="N", help="Slides built at a time.")] = defaults.JOBS,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Build slides on the workers of this dask.distributed scheduler."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier build.")] = False,
    platform: Annotated[str, _read(f"One of auto, {', '.join(PLATFORMS)}.", "NAME")] = "auto",
    pixel_size: Annotated[float | None, _read("Of a pixel, where positions are pixels.", "UM")] = None,
    plane_spacing: Annotated[float | None, _read("Between z planes, where z counts them.", "UM")] = None,
    flip_polygons: Annotated[
        bool, typer.Option("--flip-polygons", help="Negate y of cell outlines.", rich_help_panel=_READING)
    ] = False,
    bin_size: Annotated[int, _read("Side of Visium HD bins.", "UM")] = _READ_DEFAULTS.bin_size,
    points_key: Annotated[str | None, _read("Points of a SpatialData object.", "NAME")] = None,
    table_key: Annotated[str | None, _read("Table of a SpatialData object.", "NAME")] = None,
    layer: Annotated[str | None, _read("Layer with counts (or raw), where X has none.", "NAME")] = None,
    slide_key: Annotated[
        str | None, _read("Column of the slides of an AnnData or SpatialData; default: slide, library_id, ...", "NAME")
    ] = None,
    one_slide: Annotated[
        bool,
        typer.Option("--one-slide", help="All cells are of one slide, whatever columns say.", rich_help_panel=_READING),
    ] = False,
    no_cell: Annotated[
        list[str] | None,
        _read('What stands for "in no cell", beside NA, -1, UNASSIGNED, ...; may be repeated.', "WORD"),
    ] = None,
    boundaries: Annotated[
        str | None, _read("File of cell outlines, where a MERSCOPE folder has several.", "NAME")
    ] = None,
    segmented: Annotated[
        bool,
        typer.Option("--segmented", help="Segmented cells of Visium HD, not bins.", rich_help_panel=_READING),
    ] = False,
    drop_unlisted: Annotated[
        bool,
        typer.Option(
            "--drop-unlisted",
            help="Drop and count cells that the run's table of cells lacks.",
            rich_help_panel=_READING,
        ),
    ] = False,
    columns: Annotated[
        str | None, _read("Of --platform table: gene=...,x=...,y=...,cell=...[,z=...,qv=...,nucleus=...].", "NAMES")
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
    slide: Annotated[str | None, _about("Name, for one bundle; default: its folder's.")] = None,
    tissue: Annotated[str | None, _about("Default: what the bundle says, else unknown.")] = None,
    condition: Annotated[str | None, _about("Such as Healthy or Disease; default: unknown.")] = None,
    species: Annotated[str | None, _about("Default: what the bundle says, else unknown.")] = None,
    assay: Annotated[str | None, _about("Default: what the bundle says, else unknown.")] = None,
    min_qv: Annotated[float, _how("Drop transcripts of lower quality.")] = _DEFAULTS.min_qv,
    min_transcripts: Annotated[int, _how("Drop cells with fewer transcripts.")] = _DEFAULTS.min_transcripts,
    radius: Annotated[float, _how("Cells closer than this are neighbours.", "UM")] = _DEFAULTS.radius,
    hard_min: Annotated[
        float | None, _how("Least distance of hard negatives; follows --radius, as do the next two.", "UM")
    ] = None,
    hard_max: Annotated[float | None, _how("Largest distance of hard negatives.", "UM")] = None,
    easy_min: Annotated[float | None, _how("Easy negatives are further away.", "UM")] = None,
    colocalization_method: Annotated[
        _ColocalizationMethod,
        _how(
            "Which gene pairs of a cell the corpus holds: those of one community of transcripts, as published, or "
            "those that are joined more often than their counts explain."
        ),
    ] = _ColocalizationMethod(_DEFAULTS.colocalization_method),
    colocalization_radius: Annotated[
        float, _how("Transcripts closer than this are proximal.", "UM")
    ] = _DEFAULTS.colocalization_radius,
    colocalization_min_transcripts: Annotated[
        int, _how("A gene is co-localised with others of a community from so many transcripts on.")
    ] = _DEFAULTS.colocalization_min_transcripts,
    colocalization_min_expected: Annotated[
        float | None,
        _how(
            "Test the enrichment of gene pairs of which so many joins are expected; default: so many that twice the "
            "number would be significant."
        ),
    ] = _DEFAULTS.colocalization_min_expected,
    validation_fraction: Annotated[
        float, _how("Share of a slide's cells held out as a region.")
    ] = _DEFAULTS.validation_fraction,
    gap: Annotated[
        float | None, _how("Between the held-out region and the rest; default: twice the radius.", "UM")
    ] = None,
    block_cells: Annotated[int, _how("Cells that a block of the corpus owns, at most.")] = _DEFAULTS.block_cells,
    check_units: Annotated[
        bool,
        typer.Option(
            "--check-units/--no-check-units",
            help="Ask where places of cells are probably no um in one frame.",
            rich_help_panel=_MAKING,
        ),
    ] = _DEFAULTS.check_units,
    own_frames: Annotated[
        bool,
        typer.Option(
            "--own-frames",
            help="Each cell has a frame of its own, as in cultures: none are neighbours.",
            rich_help_panel=_MAKING,
        ),
    ] = False,
    allow_other_genes: Annotated[
        bool,
        typer.Option(
            "--allow-other-genes",
            help="Slides may share (nearly) no genes with the others, as those of other panels do.",
            rich_help_panel=_MAKING,
        ),
    ] = False,
) -> None:
    """Build slide tables and a training corpus from runs of any platform.

    A run is the output folder of Xenium, MERSCOPE, CosMx, Visium or Visium HD, an h5ad file with obsm["spatial"], a
    SpatialData store, or a published SpatialCC data set. Slides without transcripts have no co-localised gene pairs.

    Writes OUT/slides/SLIDE.h5ad, OUT/corpus/manifest.json with its shards, and OUT/build.json.

    For example, on a folder of the instrument, and on a public data set:

      spaf-data build output-XETG00001__0002578__region --tissue Breast --condition Disease --out built

      spaf-data build --dataset xenium_breast_window --out built

      spaf-data build region_0 --platform merscope --species Mouse --out built

      spaf-data build molecules.tsv --platform table --columns gene=feat,x=x,y=y,cell=cell --out built

      spaf-data build --sheet slides.csv --jobs 4 --out built

    An h5ad file or SpatialData table with several slides (--slide-key) makes as many.

    A slide that cannot be built does not lose the others: it is named at the end with its reason, and the exit code
    is 1. It is 2 where nothing could be built.
    """
    from spaf_data.build import build_corpus
    from spaf_data.sources import parse_columns, slide_sources

    reading = ReadOptions(
        pixel_size=pixel_size,
        plane_spacing=plane_spacing,
        flip_polygons=flip_polygons,
        bin_size=bin_size,
        points_key=points_key,
        table_key=table_key,
        layer=layer,
        slide_key=slide_key,
        one_slide=one_slide,
        no_cell=tuple(no_cell or ()),
        boundaries=boundaries,
        segmented=segmented,
        drop_unlisted=drop_unlisted,
        columns=None if columns is None else parse_columns(columns),
    )
    given = dict(zip(keys.CONTEXT, (tissue, condition, species, assay), strict=True))
    options = BuildOptions(
        min_qv=min_qv,
        min_transcripts=min_transcripts,
        radius=radius,
        hard_min=hard_min,
        hard_max=hard_max,
        easy_min=easy_min,
        colocalization_method=colocalization_method.value,
        colocalization_radius=colocalization_radius,
        colocalization_min_transcripts=colocalization_min_transcripts,
        colocalization_min_expected=colocalization_min_expected,
        validation_fraction=validation_fraction,
        gap=gap,
        block_cells=block_cells,
        check_units=check_units,
        own_frames=own_frames,
        allow_other_genes=allow_other_genes,
    )
    sources = slide_sources(
        inputs=[*(runs or ()), *(inputs or ())],
        dataset=None if dataset is None else dataset.value,
        sheet=sheet,
        slide=slide,
        platform=platform,
        reading=reading,
        described=given,
    )
    with progress() as report:
        record = build_corpus(
            sources, out, options, jobs=jobs, scheduler=scheduler, overwrite=overwrite, progress=report
        )
    if as_json:
        _print_json(record)
    else:
        print_build(record, out)
    for failure in record["failed"]:
        _say(f"slide {failure['slide']} failed and is not in the corpus: {failure['reason']}")
    if record["failed"]:
        raise typer.Exit(1)


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="A corpus, or the folder of a build.")],
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Say what a corpus holds.

    Example: spaf-data info built
    """
    from spaf_data.corpus import Corpus

    corpus = Corpus(_corpus_folder(path))
    totals = corpus.manifest.totals()
    if as_json:
        _print_json(
            {
                "genes": len(corpus.genes),
                "distances": asdict(corpus.distances),
                "slides": corpus.slides,
                "totals": totals,
            }
        )
        return
    table = Table(title=f"{len(corpus.genes)} genes")
    for column in (keys.SLIDE, *keys.CONTEXT):
        table.add_column(column)
    for name, context in corpus.slides.items():
        table.add_row(name, *(str(context[key]) for key in keys.CONTEXT))
    sizes = Table()
    sizes.add_column("split")
    for column in ("blocks", "cells", "pairs", "shards", "bytes"):
        sizes.add_column(column, justify="right")
    for split, counts in sorted(totals.items(), key=lambda item: (item[0] == "all", item[0])):
        sizes.add_row(split, *(f"{counts[key]:,}" for key in ("blocks", "cells", "pairs", "shards", "bytes")))
    shown = console()
    shown.print(table)
    shown.print(sizes)
    of = corpus.distances
    shown.print(
        f"neighbours within {of.positive:g} um; negatives: hard {of.hard_min:g} to {of.hard_max:g} um away, easy "
        f"beyond {of.easy_min:g} um",
        soft_wrap=True,
    )


@app.command()
def verify(path: Annotated[Path, typer.Argument(help="A corpus, or the folder of a build.")]) -> None:
    """Check every byte of a corpus against its manifest; exit code 2 names the shard that differs.

    Example: spaf-data verify built
    """
    from spaf_data.corpus import Corpus

    folder = _corpus_folder(path)
    corpus = Corpus(folder)
    corpus.verify()
    console().print(f"{folder}: {len(corpus.block_refs())} blocks, every byte as recorded", soft_wrap=True)


@app.command()
def simulate(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder to make.")],
    n_cells: Annotated[int, typer.Option("--n-cells", "--cells", help="Cells of the slide.")] = 2000,
    n_genes: Annotated[int, typer.Option("--n-genes", "--genes", help="Genes of the panel.")] = 300,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    depth: Annotated[float, typer.Option(help="Median transcripts of a cell.")] = defaults.SIMULATED_DEPTH,
    pattern_genes: Annotated[
        int, typer.Option(help="Genes of each pattern inside cells: nuclear, perinuclear, peripheral, ..", min=0)
    ] = 0,
) -> None:
    """Write a Xenium-shaped bundle with planted truth (truth.json).

    Example: spaf-data simulate --n-cells 10000 --n-genes 500 --seed 1 --out simulated
    """
    from spaf_data.simulate import simulate_bundle

    with progress() as report:
        simulate_bundle(
            out,
            n_cells=n_cells,
            n_genes=n_genes,
            seed=seed,
            depth=depth,
            n_pattern_genes=pattern_genes,
            progress=lambda fraction: report("simulation", "writing cells", fraction),
        )


def _corpus_folder(path: Path) -> Path:
    return path / "corpus" if (path / "corpus").is_dir() else path


def _print_json(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content, indent=2) + "\n")
