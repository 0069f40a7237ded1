"""The command ``spaf-analysis spatial-genes``."""

from __future__ import annotations

from typing import Annotated

import typer

from spaf_analysis.commands import JSON, OUT, SOURCE, check_result, print_json, write_result
from spaf_analysis.keys import MORANS_I


def spatial_genes_command(
    source: SOURCE,
    out: OUT = None,
    min_cell_share: Annotated[
        float, typer.Option(help="Genes found in a smaller share of the cells are left out.", min=0.0, max=1.0)
    ] = 0.05,
    key_added: Annotated[str, typer.Option(help="Column of var to write.")] = MORANS_I,
    as_json: JSON = False,
) -> None:
    """Rank genes by their pattern in space (Moran's I on the graph of neighbouring cells).

    Example:

        spaf-analysis spatial-genes slide.h5ad -o genes.csv
    """
    from spaf_analysis.spatial_genes.tool import spatial_genes
    from spaf_analysis.tables import read_table

    check_result(source, out, as_json=as_json)
    adata = read_table(source)
    spatial_genes(adata, min_cell_share=min_cell_share, key_added=key_added)
    ranked = adata.var[[key_added]].dropna().sort_values(key_added, ascending=False, kind="stable")
    ranked = ranked.rename_axis("gene").rename(columns={key_added: MORANS_I})
    write_result(adata, ranked, out)
    if as_json:
        print_json({"n_genes": adata.n_vars, "n_tested": len(ranked), "genes": ranked})
