"""The command ``spaf-analysis deconvolve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spaf_analysis.commands import JSON, OUT, SEED, check_result, print_json, write_result
from spaf_analysis.keys import PROPORTIONS


def deconvolve_command(
    source: Annotated[Path, typer.Argument(metavar="SPOTS.h5ad", help="Spots x genes with counts. It is not changed.")],
    reference: Annotated[Path, typer.Option(help="Labelled cells x genes with counts.", metavar="CELLS.h5ad")],
    label: Annotated[str, typer.Option(help="Column of the reference with the cell types.")],
    out: OUT = None,
    method: Annotated[
        str,
        typer.Option(
            help="poisson, platform, least-squares, markers (no amounts), or auto: which of the first three errs least "
            "on spots made of the reference as another technology would see them."
        ),
    ] = "auto",
    smooth: Annotated[
        float,
        typer.Option(help="Weight of the six nearest spots beside a spot itself; 0: each spot for itself.", min=0.0),
    ] = 0.0,
    layer: Annotated[str | None, typer.Option(help="Layer of the spots with counts; default: X.")] = None,
    reference_layer: Annotated[str | None, typer.Option(help="Layer of the reference with counts; default: X.")] = None,
    replicates: Annotated[int, typer.Option(help="Resampled genes behind the standard errors; 0: none.", min=0)] = 20,
    seed: SEED = 0,
    key_added: Annotated[str, typer.Option(help="Key of obsm to write.")] = PROPORTIONS,
    as_json: JSON = False,
) -> None:
    """Find the cell types that spots are made of, by a reference of labelled cells.

    Example:

        spaf-analysis deconvolve spots.h5ad --reference cells.h5ad --label cell_type -o proportions.csv
    """
    from spaf_analysis.deconvolution.tool import deconvolve, record
    from spaf_analysis.tables import read_table

    check_result(source, out, as_json=as_json, others=[reference])
    spots, cells = read_table(source), read_table(reference)
    found = deconvolve(
        spots, cells, label, method=method, layer=layer, reference_layer=reference_layer,  # type: ignore[arg-type]
        n_replicates=replicates, smooth=smooth, seed=seed, key_added=key_added,
    )  # fmt: skip
    table = spots.obsm[key_added].rename_axis("spot")
    write_result(spots, table, out)
    if as_json:
        means = dict(zip(found.types, table.mean().tolist(), strict=True))
        print_json(record(found) | {"n_spots": spots.n_obs, "mean_proportions": means})
