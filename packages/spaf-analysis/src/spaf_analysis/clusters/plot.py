"""Clusters drawn: in the tissue, and in a map of the embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spaf_analysis.errors import InputError
from spaf_analysis.keys import CLUSTERS, UMAP
from spaf_analysis.plots.maps import embedding_categories, tissue_categories
from spaf_analysis.tables import cells_of_slide, places_of, table_of

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd
    from matplotlib.axes import Axes

    from spaf_model import Cells


def clusters(adata: Cells, *, key: str = CLUSTERS, slide: str | None = None, table_key: str | None = None) -> Axes:
    """Draw the tissue coloured by cluster.

    Parameters
    ----------
    adata
        With `obsm["spatial"]` and clusters in `obs`, or a SpatialData.
    key
        Column of `obs`; any other category can be drawn as well.
    slide
        The slide to draw; may be None where there is only one.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    matplotlib.axes.Axes
        In um, y downwards.

    Raises
    ------
    InputError
        If there is no such column or slide.
    """
    table = table_of(adata, table_key)
    cells = cells_of_slide(table, slide)
    labels = _labels(table, key).iloc[cells]
    title = f"{key}, {slide}" if slide else key
    return tissue_categories(places_of(table)[cells], labels, title=title, legend=key).axes[0]


def umap(adata: Cells, *, key: str = UMAP, color: str = CLUSTERS, table_key: str | None = None) -> Axes:
    """Draw the cells in the map of an embedding, coloured by cluster.

    Parameters
    ----------
    adata
        With `obsm[key]`, or a SpatialData.
    key
        What `spaf_analysis.tl.umap` wrote.
    color
        Column of `obs`.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    matplotlib.axes.Axes
        Without ticks: distances in such a map have no unit.

    Raises
    ------
    InputError
        If there is no such map or column.
    """
    table = table_of(adata, table_key)
    if key not in table.obsm:
        raise InputError(
            f"obsm has no map {key!r} (spaf_analysis.tl.umap writes one); it has: {', '.join(table.obsm)}."
        )
    layout = np.asarray(table.obsm[key], dtype=np.float64)
    shown = np.flatnonzero(np.isfinite(layout).all(axis=1))
    return embedding_categories(layout[shown], _labels(table, color).iloc[shown], title=color).axes[0]


def _labels(table: ad.AnnData, key: str) -> pd.Series:
    if key not in table.obs:
        raise InputError(f"obs has no column {key!r}; it has: {', '.join(table.obs) or 'nothing'}.")
    labels: pd.Series = table.obs[key].astype("category")
    return labels
