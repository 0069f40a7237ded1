"""The command ``spaf-analysis gene-pairs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spaf_analysis.commands import JSON, LAYER, OUT, SOURCE, check_result, print_json, write_result
from spaf_analysis.errors import InputError
from spaf_analysis.keys import GENE_PAIR_MARKERS, GENE_PAIRS


def gene_pairs_command(
    source: SOURCE,
    out: OUT = None,
    groupby: Annotated[
        str | None,
        typer.Option(help="Column of obs with groups; the table is then of pairs that mark them beyond their genes."),
    ] = None,
    cells: Annotated[
        Path | None, typer.Option(help="File to write with the scores of cells: cells x gene pairs.", metavar="C.h5ad")
    ] = None,
    transcripts: Annotated[
        Path | None, typer.Option(help="The run that the slide is of, for --robustness.", metavar="BUNDLE")
    ] = None,
    robustness: Annotated[
        Path | None,
        typer.Option(
            help="Table to write of how pairs, beside counts, survive noise, a lost boundary, lost transcripts and a "
            "thinner panel.",
            metavar="CURVES.csv",
        ),
    ] = None,
    min_cells: Annotated[int, typer.Option(help="Pairs seen in fewer cells are not ranked.", min=1)] = 10,
    layer: LAYER = None,
    key_added: Annotated[str, typer.Option(help="Key of uns to write.")] = GENE_PAIRS,
    as_json: JSON = False,
) -> None:
    """Rank gene pairs by how far their co-localisation goes beyond expectation, or find those that mark groups.

    Example:

        spaf-analysis gene-pairs slide.h5ad -o pairs.csv

        spaf-analysis gene-pairs slide.h5ad --groupby type -o markers.csv

        spaf-analysis gene-pairs slide.h5ad --transcripts XENIUM_FOLDER --robustness curves.csv -o pairs.csv
    """
    import spaf_data
    from spaf_analysis.gene_pairs.groups import gene_pair_markers, markers_sentence, scores_key
    from spaf_analysis.gene_pairs.tool import gene_pairs, stored_gene_pairs
    from spaf_analysis.tables import read_table
    from spaf_model import replace_file

    check_result(source, out, as_json=as_json)
    if cells is not None:
        if cells.suffix != ".h5ad":
            raise InputError(f"{cells} is where an AnnData of cells x gene pairs goes; its name must end in .h5ad.")
        check_result(source, cells, as_json=as_json)
    if (transcripts is None) != (robustness is None):
        raise InputError("--robustness needs the run that the slide is of (--transcripts), and that is for it alone.")
    if robustness is not None:
        check_result(source, robustness, as_json=as_json)
        if robustness.suffix == ".h5ad":
            raise InputError(f"{robustness} is where a table goes; its name must end in .csv or .parquet.")
    adata = read_table(source)
    if transcripts is not None and robustness is not None:
        curves = spaf_data.robustness(spaf_data.read_transcripts(transcripts), dimensions=None)
        write_result(adata, curves, robustness)
    gene_pairs(adata, min_cells=min_cells, key_added=key_added)
    ranked = stored_gene_pairs(adata, key=key_added)
    table = ranked.table
    content = ranked.stored()
    del content["table"]
    content["enriched"] = ranked.enriched(len(ranked.table))
    if groupby is not None:
        gene_pair_markers(adata, groupby=groupby, min_cells=min_cells, layer=layer)
        markers = adata.uns[GENE_PAIR_MARKERS]
        table = markers["table"]
        content["markers"] = markers
        typer.echo(markers_sentence(markers), err=True)
    if cells is not None:
        replace_file(cells, spaf_data.gene_pair_table(adata, key=scores_key(adata)).write_h5ad)
    write_result(adata, table, out)
    if as_json:
        print_json(content)
