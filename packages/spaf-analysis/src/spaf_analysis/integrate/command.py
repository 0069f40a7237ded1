"""The command ``spaf-analysis integrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spaf_analysis.commands import (
    JSON,
    KEY,
    MODEL,
    OUT,
    SEED,
    check_all_kept,
    check_result,
    print_json,
    write_result,
)
from spaf_analysis.errors import InputError
from spaf_analysis.keys import EMBEDDING, INTEGRATION


def integrate_command(
    sources: Annotated[
        list[Path], typer.Argument(metavar="A.h5ad [B.h5ad ..]", help="Cells x genes with counts in X. Not changed.")
    ],
    batch: Annotated[
        str | None, typer.Option(help="Column of obs with what is to be mixed; default of several files: the file.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of obs with what is to be kept; without it only mixing is measured.")
    ] = None,
    out: OUT = None,
    model: MODEL = None,
    key: KEY = EMBEDDING,
    use_harmony: Annotated[
        bool | None, typer.Option("--harmony/--no-harmony", help="Default: where harmonypy is installed.")
    ] = None,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete", help="Of two files: embed on the genes of both; what one lacks is imputed from the other."
        ),
    ] = False,
    registered: Annotated[
        float | None,
        typer.Option(help="Two technologies in one frame: also judge how spots find the cells within so many um."),
    ] = None,
    centre: Annotated[bool, typer.Option("--centre", help="Also the embedding less the mean of each batch.")] = False,
    max_cells: Annotated[int, typer.Option(help="Cells that are judged, at most.", min=30)] = 20_000,
    replicates: Annotated[int, typer.Option(help="Draws behind each interval.", min=2)] = 300,
    seed: SEED = 0,
    key_added: Annotated[str, typer.Option(help="Key of uns to write.")] = INTEGRATION,
    as_json: JSON = False,
) -> None:
    """Integrate slides, patients or technologies, and judge it beside PCA, scaled PCA and HVG + PCA, all with Harmony.

    Example:

        spaf-analysis integrate slides.h5ad --batch patient --label type -o integrated.h5ad --json

        spaf-analysis integrate xenium.h5ad visium.h5ad --complete --registered 60 -o integrated.h5ad
    """
    import pandas as pd

    from spaf_analysis.integrate.tables import FILE, together
    from spaf_analysis.integrate.technologies import completed_embedding, registered_pairs, registered_places
    from spaf_analysis.integrate.tool import integrate, stored_embeddings
    from spaf_analysis.tables import embed_where_missing, labels_of, read_table

    for source in sources:
        check_result(source, out, as_json=as_json)
    if batch is None and len(sources) == 1:
        raise InputError("say with --batch which column of obs names what is to be mixed, or give several files.")
    if complete and (len(sources) != 2 or model is not None):
        raise InputError("--complete is for two files, and makes an embedding itself: leave out --model.")
    if registered is not None and len(sources) != 2:
        raise InputError("--registered is for two files: spots, and cells in the same frame.")
    check_all_kept(out if registered is not None else None, as_json=as_json, lost="what registered places say")
    if len({source.resolve() for source in sources}) < len(sources):
        raise InputError("a file is named twice; each would be integrated with itself.")
    tables = [read_table(source) for source in sources]
    for table, source in zip(tables, sources, strict=True):
        for option, name in (("--batch", batch), ("--label", label)):
            if name is not None and name not in table.obs:
                raise InputError(
                    f"{source}: obs has no column {name!r} ({option}); it has: "
                    f"{', '.join(map(str, table.obs)) or 'nothing'}."
                )
    if complete:
        for table, embedding in zip(tables, completed_embedding(tables[0], tables[1], seed=seed), strict=True):
            table.obsm[key] = embedding
    for table, source in zip(tables, sources, strict=True):
        embed_where_missing(table, key, model, where=str(source))
    adata = together(tables, sources, key)
    column = FILE if batch is None else batch
    for option, name in (("--batch", column), ("--label", label)):
        if name is not None:
            labels_of(adata, name, option)
    if registered is not None:  # what cannot be asked is said before the work
        registered_places(adata, batch=column, radius=registered)
    integrate(
        adata, batch=column, label=label, key=key, use_harmony=use_harmony, centre=centre, max_cells=max_cells,
        n_replicates=replicates, seed=seed, key_added=key_added,
    )  # fmt: skip
    found = adata.uns[key_added]
    if registered is not None:
        found["registered"] = registered_pairs(
            adata, batch=column, keys=stored_embeddings(adata, key, key_added), radius=registered,
            n_replicates=replicates, seed=seed,
        )  # fmt: skip
    write_result(adata, pd.DataFrame(found["scores"]), out)
    if as_json:
        print_json(found)
