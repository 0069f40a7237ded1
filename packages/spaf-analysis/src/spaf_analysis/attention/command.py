"""The command ``spaf-analysis attention``."""

from __future__ import annotations

from typing import Annotated

import typer

from spaf_analysis.commands import (
    ASSAY,
    CONDITION,
    JSON,
    LAYER,
    OUT,
    SEED,
    SOURCE,
    SPECIES,
    TISSUE,
    check_all_kept,
    check_result,
    given_context,
    print_json,
    write_result,
)
from spaf_analysis.defaults import MIN_CELL_PAIRS
from spaf_analysis.keys import ATTENTION
from spaf_analysis.perturbation.command import CELL_PAIRS, CELL_TYPE, FAR, LEFT, NEAR, PAIRS, RIGHT, TILE, read_pairs


def attention_command(
    source: SOURCE,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Directory of a model that reads two cells as one sequence.")
    ],
    out: OUT = None,
    cell_type: CELL_TYPE = None,
    left: LEFT = None,
    right: RIGHT = None,
    pairs: PAIRS = None,
    layers: Annotated[list[int] | None, typer.Option(help="Network layer, from 0; repeatable; default: all.")] = None,
    heads: Annotated[list[int] | None, typer.Option(help="Attention head, from 0; repeatable; default: all.")] = None,
    by: Annotated[str, typer.Option(help="mean; or also each layer, or head, by itself (shown by --json).")] = "mean",
    near: NEAR = None,
    far: FAR = None,
    tile: TILE = None,
    max_pairs: CELL_PAIRS = 100,
    min_pairs: Annotated[int, typer.Option(help="Pairs of cells that must have both genes.")] = MIN_CELL_PAIRS,
    shuffles: Annotated[int, typer.Option(help="Shuffled sets of pairs of cells.")] = 19,
    agreement: Annotated[int, typer.Option(help="Pairs of cells in which genes are deleted to compare; 0: none.")] = 10,
    fdr: Annotated[float, typer.Option(help="False discovery rate of what is called.")] = 0.05,
    layer: LAYER = None,
    tissue: TISSUE = None,
    condition: CONDITION = None,
    species: SPECIES = None,
    assay: ASSAY = None,
    seed: SEED = 0,
    key_added: Annotated[str, typer.Option(help="Key of uns to write.")] = ATTENTION,
    as_json: JSON = False,
) -> None:
    """Attention from gene to gene in pairs of near cells, less position and beside shuffled pairs.

    Example:

        spaf-analysis attention slide.h5ad -m run/model --cell-type type --left Tumor --right T_cell -o attention.csv
    """
    import pandas as pd

    from spaf_analysis.attention.tool import attention
    from spaf_analysis.tables import read_table

    check_result(source, out, as_json=as_json, others=[pairs])
    context = given_context(tissue=tissue, condition=condition, species=species, assay=assay)
    if by != "mean":
        check_all_kept(out, as_json=as_json, lost=f"each {by} (--by)")
    adata = read_table(source)
    attention(
        adata, model, cell_type=cell_type, left=left, right=right, pairs=read_pairs(pairs), layers=layers or None,
        heads=heads or None, by=by, near=near, far=far, tile=tile, max_pairs=max_pairs,  # type: ignore[arg-type]
        min_pairs=min_pairs, n_shuffles=shuffles, n_agreement=agreement, fdr=fdr, seed=seed, key_added=key_added,
        layer=layer, **context,
    )  # fmt: skip
    write_result(adata, pd.DataFrame(adata.uns[key_added]["table"]), out)
    if as_json:
        print_json(adata.uns[key_added])
