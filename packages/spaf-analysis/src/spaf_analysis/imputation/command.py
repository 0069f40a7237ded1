"""The command ``spaf-analysis impute``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spaf_analysis.commands import JSON, OUT, SEED, check_result, print_json, write_result


def impute_command(
    source: Annotated[
        Path, typer.Argument(metavar="SPATIAL.h5ad", help="Cells or spots x genes with counts. It is not changed.")
    ],
    reference: Annotated[Path, typer.Option(help="Cells x more genes with counts.", metavar="CELLS.h5ad")],
    out: OUT = None,
    genes: Annotated[
        list[str] | None, typer.Option("--gene", help="Gene to predict; may be given again. Default: all it can.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="knn, spage, ridge, ridge-200, kernel, model, blend, or auto: the best on genes held out."),
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Directory of a model that predicts counts, as one more way to genes."),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of the cells with counts; default: X.")] = None,
    reference_layer: Annotated[str | None, typer.Option(help="Layer of the reference with counts; default: X.")] = None,
    measured: Annotated[
        bool,
        typer.Option("--measured", help="Predict measured genes too (those of --gene), each without having read it."),
    ] = False,
    without_depth: Annotated[
        bool, typer.Option("--without-depth", help="Remove what of genes follows from the depth of a cell.")
    ] = False,
    neighbourhood: Annotated[
        bool, typer.Option("--neighbourhood", help="Also the mean over the 10 nearest cells, as a layer.")
    ] = False,
    counts: Annotated[bool, typer.Option("--counts", help="Also counts in the scale of the reference.")] = False,
    seed: SEED = 0,
    as_json: JSON = False,
) -> None:
    """Predict genes that were not measured, by a reference that did, and say which to believe.

    An .h5ad holds cells x predicted genes and is written block by block; a table (.csv, .parquet) holds what is known
    of each gene.

    Example:

        spaf-analysis impute xenium.h5ad --reference cells.h5ad -o imputed.h5ad
    """
    from spaf_analysis.imputation.tool import imputed_table
    from spaf_analysis.imputation.writing import write_imputed
    from spaf_analysis.tables import read_table

    check_result(source, out, as_json=as_json, others=[reference])
    spatial, cells = read_table(source), read_table(reference)
    made = imputed_table(
        spatial, cells, genes=genes or None, method=method, model=model, layer=layer, reference_layer=reference_layer,
        measured=measured, without_depth=without_depth, neighbourhood=neighbourhood, counts=counts, seed=seed,
    )  # fmt: skip
    if out is not None and out.suffix == ".h5ad":
        write_imputed(made, out)
    else:
        write_result(spatial, made.found.genes, out)
    if as_json:
        print_json(made.record | {"genes": made.found.genes})
