"""The command ``spaf-analysis patterns``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import spaf_data
from spaf_analysis.commands import JSON, OUT, check_result, print_json, write_result
from spaf_analysis.errors import InputError
from spaf_analysis.keys import PATTERNS


def patterns_command(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="A run with transcripts, such as the folder of a Xenium.")
    ],
    out: OUT = None,
    cells: Annotated[
        Path | None, typer.Option(help="h5ad with the cells to use, by the run's names; default: all cells of the run.")
    ] = None,
    pattern: Annotated[
        list[str] | None, typer.Option(help="Such as nuclear; may be given again. Default: all that the run allows.")
    ] = None,
    radius: Annotated[
        float, typer.Option(help="Um across which transcripts share a punctum.")
    ] = spaf_data.defaults.PUNCTA_RADIUS,
    min_cells: Annotated[
        float, typer.Option(help="Cells that must say something of a gene for it to be tested.")
    ] = spaf_data.defaults.PATTERN_MIN_CELLS,
    cell_scores: Annotated[bool, typer.Option("--cell-scores", help="Also a layer of scores a pattern.")] = False,
    platform: Annotated[str, typer.Option(help="Of the run; default: found out.")] = "auto",
    pixel_size: Annotated[
        float | None, typer.Option(help="Um a pixel, where positions are pixels and the run does not say it.")
    ] = None,
    min_qv: Annotated[
        float, typer.Option(help="Transcripts of lower quality are dropped.")
    ] = spaf_data.defaults.MIN_QV,
    key_added: Annotated[str, typer.Option(help="Key of uns to write.")] = PATTERNS,
    as_json: JSON = False,
) -> None:
    """Where in the cell each gene lies: nuclear, peripheral, polarised, punctate .., against permuted labels.

    Example:

        spaf-analysis patterns /data/xenium_breast -o patterns.csv

        spaf-analysis patterns /data/xenium_breast --cells tumour.h5ad --cell-scores -o tumour_patterns.h5ad
    """
    from spaf_analysis.patterns.tool import patterns
    from spaf_analysis.tables import read_table
    from spaf_data import ReadOptions, bin_transcripts, check_patterns, read_transcripts

    check_result(cells or bundle, out, as_json=as_json)
    if cell_scores and (out is None or out.suffix != ".h5ad"):
        raise InputError("scores of cells (--cell-scores) are layers of a table of cells: name an .h5ad file with -o.")
    check_patterns(pattern or ())
    options = ReadOptions(pixel_size=pixel_size)
    adata = None if cells is None else read_table(cells)
    transcripts = read_transcripts(bundle, platform=platform, min_qv=min_qv, options=options)
    if adata is None:
        adata = bin_transcripts(transcripts, min_transcripts=1)
    patterns(
        adata, bundle, transcripts=transcripts, patterns=pattern, radius=radius, min_cells=min_cells,
        cell_scores=cell_scores, options=options, key_added=key_added,
    )  # fmt: skip
    found = adata.uns[key_added]
    write_result(adata, found["table"], out)
    if as_json:
        print_json(found)
