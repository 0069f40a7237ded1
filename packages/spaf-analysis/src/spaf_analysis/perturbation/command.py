"""The command ``spaf-analysis perturb``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from spaf_analysis.defaults import MAX_CELL_PAIRS, MIN_CELL_PAIRS, N_NEAR_FAR
from spaf_analysis.keys import NEIGHBOUR_GENES, PERTURBATION

if TYPE_CHECKING:
    import pandas as pd

# Which pairs of cells: shared with the command attention.
CELL_TYPE = Annotated[str | None, typer.Option(help="Column of obs with cell types.")]
LEFT = Annotated[str | None, typer.Option(help="Type of the one cell of a pair.")]
RIGHT = Annotated[str | None, typer.Option(help="Type of the other cell; may be the same.")]
PAIRS = Annotated[
    Path | None, typer.Option(help="Table of pairs in place of types: columns left, right (cells), near (true, false).")
]
NEAR = Annotated[float | None, typer.Option(help="Most um between near cells; default: of the cell graph, or 30.")]
FAR = Annotated[float | None, typer.Option(help="Least um between far cells; default: 80.")]
TILE = Annotated[float | None, typer.Option(help="Side in um of the squares of a match; default: three times far.")]
CELL_PAIRS = Annotated[int, typer.Option("--max-pairs", help="Near pairs of cells at most, each with a far one.")]
MODEL_NAME = Annotated[str, typer.Option("--model", "-m", help="Model directory, or a model that comes with SpaF.")]


def perturb_command(
    source: SOURCE,
    model: MODEL_NAME = "starter-1",
    out: OUT = None,
    cell_type: CELL_TYPE = None,
    left: LEFT = None,
    right: RIGHT = None,
    pairs: PAIRS = None,
    gene: Annotated[list[str] | None, typer.Option(help="Gene to change; repeatable; default: all.")] = None,
    neighbours: Annotated[
        bool,
        typer.Option(
            "--neighbours", help="Take each gene from the neighbours of a cell instead: its state and expected counts."
        ),
    ] = False,
    change: Annotated[str, typer.Option(help="delete, mask (ranks of others stay) or fold.")] = "delete",
    fold: Annotated[float, typer.Option(help="What counts are multiplied by, with --change fold.")] = 2.0,
    near: NEAR = None,
    far: FAR = None,
    tile: TILE = None,
    max_pairs: CELL_PAIRS = MAX_CELL_PAIRS,
    min_pairs: Annotated[
        int, typer.Option(help="Near and far pairs of cells that must have both genes of a pair.")
    ] = MIN_CELL_PAIRS,
    screen: Annotated[
        float, typer.Option(help="Share of gene pairs asked of a model that reads two cells as one sequence.")
    ] = 0.125,
    fdr: Annotated[float, typer.Option(help="False discovery rate of what is called.")] = 0.05,
    permutations: Annotated[int, typer.Option(help="Of near and far, at most, of each gene pair.")] = N_NEAR_FAR,
    layer: LAYER = None,
    tissue: TISSUE = None,
    condition: CONDITION = None,
    species: SPECIES = None,
    assay: ASSAY = None,
    seed: SEED = 0,
    key_added: Annotated[str | None, typer.Option(help="Key of uns to write.")] = None,
    as_json: JSON = False,
) -> None:
    """Which genes of neighbouring cells act together on a model's score, against matched cells far apart.

    Example:

        spaf-analysis perturb slide.h5ad --cell-type type --left Tumor --right T_cell -o interactions.csv

        spaf-analysis perturb slide.h5ad --model my-scgpt-spatial --neighbours --gene CXCL12 -o neighbours.csv
    """
    import pandas as pd

    from spaf_analysis.errors import InputError
    from spaf_analysis.perturbation.neighbours import perturb_neighbours
    from spaf_analysis.perturbation.tool import perturb
    from spaf_analysis.tables import read_table

    check_result(source, out, as_json=as_json, others=[pairs])
    context = given_context(tissue=tissue, condition=condition, species=species, assay=assay)
    if neighbours:
        given = [
            name for name, value in (("--left", left), ("--right", right), ("--pairs", pairs)) if value is not None
        ]
        if given:
            raise InputError(f"{given[0]} is for pairs of cells: leave it out with --neighbours.")
        check_all_kept(out, as_json=as_json, lost="the expected counts of other genes (expression)")
        adata = read_table(source)
        key = key_added or NEIGHBOUR_GENES
        perturb_neighbours(
            adata, model, genes=gene, cell_type=cell_type, seed=seed, key_added=key, layer=layer, **context
        )  # fmt: skip
    else:
        adata = read_table(source)
        key = key_added or PERTURBATION
        perturb(
            adata, model, cell_type=cell_type, left=left, right=right, pairs=read_pairs(pairs), genes=gene,
            change=change, fold=fold, near=near, far=far, tile=tile, max_pairs=max_pairs,  # type: ignore[arg-type]
            min_pairs=min_pairs, screen=screen, fdr=fdr, n_permutations=permutations, seed=seed, key_added=key,
            layer=layer, **context,
        )  # fmt: skip
    write_result(adata, pd.DataFrame(adata.uns[key]["table"]), out)
    if as_json:
        print_json(adata.uns[key])


def read_pairs(path: Path | None) -> pd.DataFrame | None:
    """Read a table of pairs of cells; None where there is none.

    Raises
    ------
    InputError
        If there is no such file, or it is no table.
    """
    from spaf_analysis.errors import InputError
    from spaf_analysis.tables import table_of_file

    if path is None:
        return None
    if not path.is_file():
        raise InputError(f"there is no file {path}.")
    return table_of_file(path)
