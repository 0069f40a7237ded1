"""Proportions of cell types drawn in the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spaf_analysis.deconvolution.tool import proportions_of
from spaf_analysis.errors import InputError
from spaf_analysis.keys import PROPORTIONS
from spaf_analysis.plots.maps import tissue_values
from spaf_analysis.tables import cells_of_slide, places_of, table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spaf_model import Cells


def proportion(
    adata: Cells, cell_type: str, *, key: str = PROPORTIONS, slide: str | None = None, table_key: str | None = None
) -> Axes:
    """Draw the tissue coloured by the proportion of a cell type.

    Parameters
    ----------
    adata
        With `obsm[key]` as `spaf_analysis.tl.deconvolve` wrote it and `obsm["spatial"]`, or a SpatialData.
    cell_type
        One of its types.
    key
        What `tl.deconvolve` wrote.
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
        If there are no proportions, or no such type or slide.
    """
    found = proportions_of(adata, key=key, table_key=table_key)
    if cell_type not in found:
        raise InputError(f"obsm[{key!r}] has no type {cell_type!r}; it has: {', '.join(map(str, found.columns))}.")
    table = table_of(adata, table_key)
    spots = cells_of_slide(table, slide)
    spots = spots[np.isfinite(found[cell_type].to_numpy()[spots])]
    title = f"{cell_type}, {slide}" if slide else cell_type
    values = found[cell_type].to_numpy()[spots]
    return tissue_values(places_of(table)[spots], values, title=title, label="share of the cells").axes[0]
