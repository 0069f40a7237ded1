"""The command ``spaf-analysis type-pairs``."""

from __future__ import annotations

from typing import Annotated

import typer

from spaf_analysis.commands import JSON, OUT, SEED, SOURCE, check_result, print_json, write_result
from spaf_analysis.defaults import N_PERMUTATIONS
from spaf_analysis.errors import InputError
from spaf_analysis.keys import TYPE_PAIRS


def type_pairs_command(
    source: SOURCE,
    cell_type: Annotated[str, typer.Option(help="Column of obs with cell types.")],
    out: OUT = None,
    donor: Annotated[str | None, typer.Option(help="Column of obs with donors; default: each slide is one.")] = None,
    condition: Annotated[str | None, typer.Option(help="Column of obs with conditions to compare.")] = None,
    contrast: Annotated[
        tuple[str, str] | None, typer.Option(help="The two conditions, where there are more.", metavar="A B")
    ] = None,
    radius: Annotated[
        float | None, typer.Option(help="Of neighbours in um; default: that of the cell graph, or 30.")
    ] = None,
    n_neighbors: Annotated[int | None, typer.Option(help="Nearest cells in place of a radius.")] = None,
    permutations: Annotated[int, typer.Option(help="Arrangements of donors, at most.", min=1)] = N_PERMUTATIONS,
    seed: SEED = 0,
    key_added: Annotated[str, typer.Option(help="Key of uns to write.")] = TYPE_PAIRS,
    as_json: JSON = False,
) -> None:
    """Which cell types lie around which, against the exact expectation of each image, with donors as units.

    Example:

        spaf-analysis type-pairs slides.h5ad --cell-type type --donor patient -o pairs.csv

        spaf-analysis type-pairs slides.h5ad --cell-type type --donor patient --condition disease --json
    """
    import pandas as pd

    from spaf_analysis.tables import read_table
    from spaf_analysis.type_pairs.tool import type_pairs

    check_result(source, out, as_json=as_json)
    if contrast is not None and condition is None:
        raise InputError("--contrast is for comparing conditions: give --condition too, or leave it out.")
    adata = read_table(source)
    type_pairs(
        adata, cell_type=cell_type, donor=donor, condition=condition, contrast=contrast, radius=radius,
        n_neighbors=n_neighbors, n_permutations=permutations, seed=seed, key_added=key_added,
    )  # fmt: skip
    found = adata.uns[key_added]
    write_result(adata, pd.DataFrame(found["table"]), out)
    if as_json:
        print_json(found)
