"""The command ``spaf-train gene-embeddings``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

import spaf_data


def _count(text: str, unit: str = "N") -> Any:
    return typer.Option(help=text, metavar=unit, rich_help_panel="How vectors are made")


def _read(text: str, unit: str) -> Any:
    return typer.Option(help=text, metavar=unit, rich_help_panel="How runs are read, as by spaf-data build")


def gene_embeddings_command(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder to make.")],
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER", help="Runs, or folders of runs.", show_default=False)
    ] = None,
    inputs: Annotated[
        list[Path] | None, typer.Option("--input", "-i", hidden=True, help="FOLDER as it was spelt before.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of FOLDER: xenium_breast_window.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Instead of FOLDER: a sheet as for spaf-data build.")
    ] = None,
    build: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Only the training cells of this build, which has slides of these names."),
    ] = None,
    slide: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Name, for one bundle; default: its folder's.")
    ] = None,
    dimensions: Annotated[int, _count("Length of a vector.")] = 32,
    radius: Annotated[
        float, _count("Transcripts closer than this are proximal.", "UM")
    ] = spaf_data.defaults.PROXIMITY_RADIUS,
    null: Annotated[
        str,
        _count(
            "Chance: cells deals the genes of each cell anew among its transcripts, abundance those of all among all.",
            "NAME",
        ),
    ] = "abundance",
    across_cells: Annotated[
        bool,
        typer.Option(
            "--across-cells",
            help="Transcripts of two cells can be proximal too.",
            rich_help_panel="How vectors are made",
        ),
    ] = False,
    pseudo_count: Annotated[float, _count("Added to observed and expected pairs of transcripts.", "X")] = 5.0,
    min_transcripts: Annotated[int, _count("A gene with fewer has no vector.")] = 20,
    min_qv: Annotated[float, _read("Drop transcripts of lower quality.", "N")] = spaf_data.defaults.MIN_QV,
    platform: Annotated[str, _read("auto, or the name of a platform.", "NAME")] = "auto",
    pixel_size: Annotated[float | None, _read("Of a pixel, where positions are pixels.", "UM")] = None,
    plane_spacing: Annotated[float | None, _read("Between z planes, where z counts them.", "UM")] = None,
    flip_polygons: Annotated[
        bool,
        typer.Option(
            "--flip-polygons",
            help="Negate y of cell outlines.",
            rich_help_panel="How runs are read, as by spaf-data build",
        ),
    ] = False,
    points_key: Annotated[str | None, _read("Points of a SpatialData object.", "NAME")] = None,
    columns: Annotated[
        str | None, _read("Of --platform table: gene=...,x=...,y=...,cell=...[,z=...,qv=...,nucleus=...].", "NAMES")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Make vectors of genes from which transcripts lie close together inside cells; needs no GPU.

    Writes OUT/embeddings.safetensors, OUT/genes.csv and OUT/gene_embeddings.json. A model starts from them with
    gene_embeddings.path = "OUT" in its configuration.

    For example:

      spaf-train gene-embeddings XENIUM_FOLDER --out genes

      spaf-train gene-embeddings XENIUM_FOLDER --build build --dimensions 64 --out genes

      spaf-train pretrain small --data build/corpus --out runs/first --set gene_embeddings.path=genes
    """
    from spaf_data import ReadOptions, parse_columns, slide_sources
    from spaf_train._options import from_table
    from spaf_train._record import plain
    from spaf_train.gene_embedding import GeneEmbeddingOptions, train_gene_embeddings

    options = from_table(
        GeneEmbeddingOptions,
        {
            "dimensions": dimensions,
            "radius": radius,
            "null": null,
            "across_cells": across_cells,
            "pseudo_count": pseudo_count,
            "min_transcripts": min_transcripts,
            "min_qv": min_qv,
        },
    )
    reading = ReadOptions(
        pixel_size=pixel_size,
        plane_spacing=plane_spacing,
        flip_polygons=flip_polygons,
        points_key=points_key,
        columns=None if columns is None else parse_columns(columns),
    )
    sources = slide_sources(
        inputs=[*(runs or ()), *(inputs or ())],
        dataset=dataset,
        sheet=sheet,
        slide=slide,
        platform=platform,
        reading=reading,
    )
    with _progress() as report:
        found = train_gene_embeddings(sources, out, options, build=build, progress=report)
    record = found.record
    if as_json:
        typer.echo(json.dumps(plain(record), indent=1))
        return
    typer.echo(
        f"{out}: {record['n_embedded']} of {record['n_genes']} genes have a vector of {found.dimensions} dimensions, "
        f"from {record['n_proximal_pairs']:,} proximal pairs of {record['n_transcripts']:,} transcripts in "
        f"{record['n_cells']:,} cells."
    )


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """Yield a function that shows how far each slide is, on stderr; silent where that is no terminal."""
    console = Console(stderr=True, markup=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def report(slide: str, fraction: float) -> None:
            if slide not in tasks:
                tasks[slide] = progress.add_task(slide, total=1.0)
            progress.update(tasks[slide], completed=fraction)

        yield report
