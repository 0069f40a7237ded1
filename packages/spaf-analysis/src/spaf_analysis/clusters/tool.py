"""Clusters, their genes and a map of the cells, of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spaf_analysis.clusters.compute import leiden, markers
from spaf_analysis.clusters.compute import umap as umap_of
from spaf_analysis.defaults import N_NEIGHBORS
from spaf_analysis.errors import InputError
from spaf_analysis.keys import CLUSTERS, EMBEDDING, UMAP
from spaf_analysis.tables import embedded_cells, table_of
from spaf_model import check_key

if TYPE_CHECKING:
    from spaf_model import Cells


def cluster(
    adata: Cells,
    *,
    key: str = EMBEDDING,
    resolution: float = 1.0,
    n_neighbors: int = N_NEIGHBORS,
    seed: int = 0,
    table_key: str | None = None,
    key_added: str = CLUSTERS,
) -> None:
    """Leiden clusters of the cells in the space of an embedding.

    Parameters
    ----------
    adata
        Cells x genes with an embedding, or a SpatialData. Written: `obs[key_added]`, a categorical of cluster numbers
        "1", "2", ... from the largest to the smallest cluster (missing for cells without an embedding), and the
        parameters in `uns[key_added]`.
    key
        The embedding in `obsm`.
    resolution
        Resolution of the modularity; higher gives more clusters.
    n_neighbors
        Cells in the neighbourhood of a cell.
    seed
        Seed of the neighbour search and of Leiden.
    table_key
        Table of a SpatialData; may be None where it has only one.
    key_added
        Column of `obs` to write.

    Raises
    ------
    InputError
        If there is no such embedding, fewer than 3 cells have one, or the resolution is not above 0.
    """
    check_key(key_added)
    table = table_of(adata, table_key)
    check_resolution(resolution)
    embedding, embedded = embedded_cells(table, key)
    found = leiden(embedding, resolution=resolution, n_neighbors=n_neighbors, seed=seed)
    codes = np.full(table.n_obs, -1, dtype=np.int64)
    codes[embedded] = found
    names = pd.Index([str(number) for number in range(1, int(found.max()) + 2)])
    table.obs[key_added] = pd.Categorical.from_codes(codes, categories=names)
    table.uns[key_added] = {
        "embedding": key,
        "method": "leiden",
        "resolution": resolution,
        "n_neighbors": n_neighbors,
        "seed": seed,
    }


def umap(
    adata: Cells,
    *,
    key: str = EMBEDDING,
    n_neighbors: int = N_NEIGHBORS,
    seed: int = 0,
    table_key: str | None = None,
    key_added: str = UMAP,
) -> None:
    """Two-dimensional UMAP of an embedding, into `obsm[key_added]`; NaN for cells without an embedding.

    Parameters
    ----------
    adata
        Cells x genes with an embedding, or a SpatialData.
    key
        The embedding in `obsm`.
    n_neighbors
        Cells in the neighbourhood of a cell.
    seed
        Seed of the neighbour search and of the layout.
    table_key
        Table of a SpatialData; may be None where it has only one.
    key_added
        Key of `obsm` to write.

    Raises
    ------
    InputError
        If there is no such embedding or fewer than 3 cells have one.
    """
    check_key(key_added)
    table = table_of(adata, table_key)
    embedding, embedded = embedded_cells(table, key)
    layout = np.full((table.n_obs, 2), np.nan)
    layout[embedded] = umap_of(embedding, n_neighbors=n_neighbors, seed=seed)
    table.obsm[key_added] = layout


def marker_genes(adata: Cells, *, key: str = CLUSTERS, n_genes: int = 5, table_key: str | None = None) -> pd.DataFrame:
    """Size of each cluster and the genes that set it apart most.

    Parameters
    ----------
    adata
        Cells x genes with counts in `X` and clusters in `obs`, or a SpatialData.
    key
        Column of `obs` with the clusters.
    n_genes
        Number of genes for each cluster.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    pandas.DataFrame
        Indexed by cluster: `n_cells`, `share` of the clustered cells, and `genes` (list, highest first) by Welch's t of
        the log-normalised counts against all other cells; only genes that are higher in the cluster. It describes the
        clusters and is no test: they were made from the same counts.

    Raises
    ------
    InputError
        If `obs` has no such column.
    """
    table = table_of(adata, table_key)
    if key not in table.obs:
        raise InputError(f"obs has no column {key!r} with clusters; it has: {', '.join(table.obs) or 'nothing'}.")
    labels = table.obs[key].astype("category")
    clustered = labels.notna().to_numpy()
    return markers(
        table.X[clustered], labels.cat.codes.to_numpy()[clustered], labels.cat.categories.astype(str).tolist(),
        table.var_names.astype(str).tolist(), n_genes=n_genes,
    )  # fmt: skip


def check_resolution(resolution: float) -> None:
    """Raise `InputError` for a resolution that gives no clusters."""
    if not resolution > 0:
        raise InputError(f"resolution must be above 0, not {resolution:g}.")
