"""The command ``spaf-analysis niches``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spaf_analysis.commands import (
    JSON,
    KEY,
    MODEL,
    OUT,
    SEED,
    SOURCE,
    check_all_kept,
    check_result,
    print_json,
    write_result,
)
from spaf_analysis.defaults import N_NEIGHBORS, N_REPLICATES
from spaf_analysis.errors import InputError
from spaf_analysis.keys import EMBEDDING, NICHE_DIFFERENCES, NICHES


def niches_command(
    source: SOURCE,
    out: OUT = None,
    model: MODEL = None,
    key: KEY = EMBEDDING,
    inputs: Annotated[
        str, typer.Option(help="What is averaged over neighbours: both, embedding, or expression (no model needed).")
    ] = "both",
    n_domains: Annotated[
        int | None,
        typer.Option("--n-domains", "-k", help="Number of niches; default: of 3 to 15, as halves agree."),
    ] = None,
    method: Annotated[str, typer.Option(help="kmeans or mixture.")] = "kmeans",
    n_neighbors: Annotated[int, typer.Option(help="Nearest cells that count; of spots on a grid whole rings.")] = (
        N_NEIGHBORS
    ),
    radius: Annotated[float | None, typer.Option(help="Cells further away than this (um) do not count.")] = None,
    one_centre: Annotated[bool, typer.Option("--one-centre", help="Keep what sets slides apart as a whole.")] = False,
    label: Annotated[
        str | None, typer.Option(help="Column of obs with regions: judge niches beside baselines.")
    ] = None,
    condition: Annotated[str | None, typer.Option(help="Column of obs: compare niches between conditions.")] = None,
    donor: Annotated[str | None, typer.Option(help="Column of obs with the donors, the units of comparison.")] = None,
    contrast: Annotated[
        tuple[str, str] | None, typer.Option(help="The two conditions, where there are more.", metavar="A B")
    ] = None,
    cell_type: Annotated[
        str | None, typer.Option(help="Column of obs with cell types, compared within niches.")
    ] = None,
    replicates: Annotated[int, typer.Option(help="Resampled tissues behind each interval.")] = N_REPLICATES,
    threads: Annotated[int, typer.Option(help="Threads of the search for neighbours.", min=1)] = 1,
    seed: SEED = 0,
    key_added: Annotated[str, typer.Option(help="Column of obs to write.")] = NICHES,
    as_json: JSON = False,
) -> None:
    """Find niches, the same across slides; judge them against regions, and compare them between conditions.

    Written are obs["spaf_niche"] and obsm["X_SpaF_niche"]; a table holds a row a cell, JSON sizes and what was judged.

    Example:

        spaf-analysis niches embedded.h5ad --n-domains 8 -o niches.h5ad

        spaf-analysis niches embedded.h5ad --label region --json

        spaf-analysis niches slides.h5ad --condition disease --donor patient --cell-type type -o niches.h5ad --json
    """
    import pandas as pd

    from spaf_analysis.niches.comparison import niche_differences
    from spaf_analysis.niches.tool import chosen_inputs, judge_niches, niches
    from spaf_analysis.tables import check_cell_names, embed_where_missing, labels_of, read_table

    check_result(source, out, as_json=as_json)
    kind, how = chosen_inputs(inputs, method)
    if (condition is None) != (donor is None):
        raise InputError("niches are compared between conditions of donors: give both --condition and --donor.")
    for option, value in (("--cell-type", cell_type), ("--contrast", contrast)):
        if value is not None and condition is None:
            raise InputError(
                f"{option} is for comparing conditions: give --condition and --donor too, or leave it out."
            )
    if condition is not None:
        check_all_kept(out, as_json=as_json, lost="the differences between conditions (--condition)")
    if label is not None:
        check_all_kept(out, as_json=as_json, lost="how niches were judged (--label)")
    adata = read_table(source)
    check_cell_names(adata)
    columns = {"--label": label, "--condition": condition, "--donor": donor, "--cell-type": cell_type}
    for option, column in columns.items():
        if column is not None:
            labels_of(adata, column, option)
    if kind != "expression":
        embed_where_missing(adata, key, model)
    niches(
        adata, key=key, inputs=kind, n_domains=n_domains, method=how, n_neighbors=n_neighbors, radius=radius,
        centre_slides=not one_centre, seed=seed, n_threads=threads, key_added=key_added,
    )  # fmt: skip
    sizes = adata.obs[key_added].value_counts(sort=False)
    content: dict[str, Any] = {
        "n_cells": adata.n_obs, "n_without_embedding": int(adata.obs[key_added].isna().sum()),
        "n_domains": adata.uns[key_added]["n_domains"], "is_chosen": adata.uns[key_added]["is_chosen"],
        "stability": adata.uns[key_added]["stability"],
        "niches": [{"niche": name, "n_cells": int(n)} for name, n in sizes.items()],
    }  # fmt: skip
    if label is not None:
        judged = judge_niches(adata, label, key=key, n_neighbors=n_neighbors, method=how, n_replicates=replicates)
        adata.uns[key_added]["judged"] = content["judged"] = judged
    if condition is not None and donor is not None:
        niche_differences(
            adata, condition=condition, donor=donor, contrast=contrast, key=key_added, cell_type=cell_type, seed=seed
        )
        content["differences"] = adata.uns[NICHE_DIFFERENCES]
    cells = pd.Index(adata.obs_names.astype(str), name="cell")
    write_result(adata, pd.DataFrame({"niche": adata.obs[key_added].to_numpy()}, index=cells), out)
    if as_json:
        print_json(content)
