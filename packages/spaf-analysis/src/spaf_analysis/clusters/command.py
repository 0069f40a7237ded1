"""The command ``spaf-analysis clusters``."""

from __future__ import annotations

from typing import Annotated

import typer

from spaf_analysis.commands import JSON, KEY, MODEL, OUT, SEED, SOURCE, check_result, print_json, write_result
from spaf_analysis.defaults import N_NEIGHBORS
from spaf_analysis.keys import CLUSTERS, EMBEDDING


def clusters_command(
    source: SOURCE,
    out: OUT = None,
    model: MODEL = None,
    key: KEY = EMBEDDING,
    resolution: Annotated[float, typer.Option(help="Resolution of the clusters; higher gives more.")] = 1.0,
    n_neighbors: Annotated[int, typer.Option(help="Cells in the neighbourhood of a cell.", min=2)] = N_NEIGHBORS,
    n_genes: Annotated[int, typer.Option(help="Genes named for each cluster.", min=1)] = 5,
    seed: SEED = 0,
    key_added: Annotated[str, typer.Option(help="Column of obs to write.")] = CLUSTERS,
    as_json: JSON = False,
) -> None:
    """Cluster cells in the space of an embedding; a table holds a row a cell, JSON the clusters and their genes.

    Example:

        spaf-analysis clusters embedded.h5ad -o clustered.h5ad --json
    """
    import pandas as pd

    from spaf_analysis.clusters.tool import check_resolution, cluster, marker_genes
    from spaf_analysis.tables import embed_where_missing, read_table

    check_result(source, out, as_json=as_json)
    check_resolution(resolution)
    adata = read_table(source)
    embed_where_missing(adata, key, model)
    cluster(adata, key=key, resolution=resolution, n_neighbors=n_neighbors, seed=seed, key_added=key_added)
    cells = pd.Index(adata.obs_names.astype(str), name="cell")
    write_result(adata, pd.DataFrame({"cluster": adata.obs[key_added].to_numpy()}, index=cells), out)
    if as_json:
        found = marker_genes(adata, key=key_added, n_genes=n_genes)
        n_without = int(adata.obs[key_added].isna().sum())
        print_json({"n_cells": adata.n_obs, "n_without_embedding": n_without, "clusters": found})
