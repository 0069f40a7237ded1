"""A gene drawn in the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaf_analysis.errors import InputError
from spaf_analysis.metrics import log_normalize
from spaf_analysis.plots.maps import tissue_values
from spaf_analysis.tables import cells_of_slide, places_of, table_of

if TYPE_CHECKING:
    import anndata as ad
    from matplotlib.axes import Axes

    from spaf_model import Cells

UNIT = "ln(1 + counts per 10,000)"


def spatial_gene(adata: Cells, gene: str, *, slide: str | None = None, table_key: str | None = None) -> Axes:
    """Draw the tissue coloured by the expression of a gene.

    Parameters
    ----------
    adata
        With counts in `X` and `obsm["spatial"]`, or a SpatialData.
    gene
        One of `var_names`.
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
        If there is no such gene or slide.
    """
    table = table_of(adata, table_key)
    check_gene(table, gene)
    cells = cells_of_slide(table, slide)
    title = f"{gene}, {slide}" if slide else gene
    return tissue_values(places_of(table)[cells], expression_of(table, gene)[cells], title=title, label=UNIT).axes[0]


def expression_of(table: ad.AnnData, gene: str) -> NDArray[np.float64]:
    """Return ln(1 + counts per 10,000) of a gene in each cell."""
    return np.asarray(log_normalize(table.X)[:, [table.var_names.get_loc(gene)]].toarray()).ravel()


def check_gene(table: ad.AnnData, gene: str) -> None:
    """Raise `InputError` for a gene that is not there, with those of like names."""
    if gene not in table.var_names:
        near = [str(name) for name in table.var_names if str(name).upper().startswith(gene.upper()[:3])][:5]
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise InputError(f"the table has no gene {gene!r}{hint}.")
