"""The command ``spaf-analysis gene-pairs``."""

from __future__ import annotations

from typing import Annotated

import typer

from spaf_analysis.commands import JSON, OUT, SOURCE, check_result, print_json, write_result
from spaf_analysis.keys import GENE_PAIRS


def gene_pairs_command(
    source: SOURCE,
    out: OUT = None,
    min_cells: Annotated[int, typer.Option(help="Pairs seen in fewer cells are not ranked.", min=1)] = 10,
    key_added: Annotated[str, typer.Option(help="Key of uns to write.")] = GENE_PAIRS,
    as_json: JSON = False,
) -> None:
    """Rank gene pairs by how far their co-localisation goes beyond expectation.

    Example:

        spaf-analysis gene-pairs slide.h5ad -o pairs.csv
    """
    from spaf_analysis.gene_pairs.tool import gene_pairs, stored_gene_pairs
    from spaf_analysis.tables import read_table

    check_result(source, out, as_json=as_json)
    adata = read_table(source)
    gene_pairs(adata, min_cells=min_cells, key_added=key_added)
    ranked = stored_gene_pairs(adata, key=key_added)
    write_result(adata, ranked.table, out)
    if as_json:
        content = ranked.stored()
        del content["table"]
        print_json(content | {"enriched": ranked.enriched(len(ranked.table))})
