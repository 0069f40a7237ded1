"""The command ``spaf-analysis cell-pairs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spaf_analysis.commands import JSON, KEY, OUT, SEED, SOURCE, check_all_kept, check_result, print_json, write_result
from spaf_analysis.defaults import MAX_PAIRS, N_REPLICATES
from spaf_analysis.errors import InputError
from spaf_analysis.keys import CELL_PAIRS, EMBEDDING, TYPE_PAIRS


def cell_pairs_command(
    source: SOURCE,
    out: OUT = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model directory or starter; without one the embedding alone is judged."),
    ] = None,
    key: KEY = EMBEDDING,
    train: Annotated[
        Path | None,
        typer.Option(metavar="OTHER.h5ad", help="Another slide to fit on; all cells of IN.h5ad are then judged."),
    ] = None,
    radius: Annotated[
        list[float] | None,
        typer.Option(help="Radius to judge at, in um; repeatable; default: that of neighbours and around it."),
    ] = None,
    positive_radius: Annotated[
        float | None,
        typer.Option(help="Largest distance of neighbours in um; default: the radius of the cell graph, or 30."),
    ] = None,
    cell_type: Annotated[
        str | None, typer.Option(help="Column of obs: also which cell types lie around which (type-pairs).")
    ] = None,
    donor: Annotated[str | None, typer.Option(help="Column of obs with donors, for cell types.")] = None,
    max_pairs: Annotated[int, typer.Option(help="Pairs of neighbours judged at each radius, at most.")] = MAX_PAIRS,
    tower: Annotated[
        bool, typer.Option("--tower/--no-tower", help="Train a small network as a baseline; some ten seconds.")
    ] = True,
    replicates: Annotated[int, typer.Option(help="Resampled tissues behind each interval.")] = N_REPLICATES,
    seed: SEED = 0,
    key_added: Annotated[str, typer.Option(help="Key of uns to write.")] = CELL_PAIRS,
    as_json: JSON = False,
) -> None:
    """Judge how well a model, or any embedding, tells neighbouring cells, beside baselines.

    Example:

        spaf-analysis cell-pairs embedded.h5ad --model run/model -o pairs.csv --json

        spaf-analysis cell-pairs left.h5ad --train right.h5ad --key X_other -o pairs.parquet
    """
    import pandas as pd

    from spaf_analysis.cell_pairs.tool import cell_pairs
    from spaf_analysis.tables import labels_of, read_table
    from spaf_analysis.type_pairs.tool import type_pairs
    from spaf_data import Distances

    check_result(source, out, as_json=as_json, others=[train])
    if donor is not None and cell_type is None:
        raise InputError("--donor says whose cell types are compared: give --cell-type too, or leave it out.")
    if cell_type is not None:
        check_all_kept(out, as_json=as_json, lost="the cell types around each other (--cell-type)")
    if train is not None and train.exists() and source.exists() and train.samefile(source):
        raise InputError(f"--train {train} holds the cells that are judged; give another slide, or leave it out.")
    adata, other = read_table(source), None if train is None else read_table(train)
    for option, column in (("--cell-type", cell_type), ("--donor", donor)):
        if column is not None:
            labels_of(adata, column, option, least=1)
    cell_pairs(
        adata, model, key=key, train=other, radii=tuple(radius) if radius else None,
        distances=None if positive_radius is None else Distances(positive=positive_radius),
        max_pairs=max_pairs, tower=tower, n_replicates=replicates, seed=seed, key_added=key_added,
    )  # fmt: skip
    judged = adata.uns[key_added]
    if cell_type is not None:
        type_pairs(adata, cell_type=cell_type, donor=donor, radius=positive_radius, seed=seed)
    if "scores" not in judged and out is not None and out.suffix != ".h5ad":
        raise InputError(f"there is no table to write: cell pairs were not judged, since {judged['reason']}.")
    write_result(adata, pd.DataFrame(judged.get("scores", [])), out)
    if as_json:
        print_json(judged if cell_type is None else judged | {"type_pairs": adata.uns[TYPE_PAIRS]})
