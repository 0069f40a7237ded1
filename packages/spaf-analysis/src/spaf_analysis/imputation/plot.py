"""Which imputed genes to believe, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from spaf_analysis.imputation.tool import stored_imputation
from spaf_analysis.keys import IMPUTATION
from spaf_analysis.plots.style import ACCENT, MUTED, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spaf_model import Cells


def imputation_accuracy(adata: Cells, *, key: str = IMPUTATION, table_key: str | None = None) -> Axes:
    """Draw the accuracy of measured genes that were held out beside what was expected of each.

    Parameters
    ----------
    adata
        With what `spaf_analysis.tl.impute` wrote down, or what it returned; or a SpatialData.
    key
        Key of `uns`.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    matplotlib.axes.Axes
        A point a gene; around the diagonal expectations mean what they say.

    Raises
    ------
    InputError
        If it is not there.
    """
    held_out = stored_imputation(adata, key=key, table_key=table_key)["held_out"]
    with style():
        axes = Figure(figsize=(4.2, 4.2), layout="constrained").add_subplot()
        axes.axline((0.0, 0.0), slope=1.0, color=MUTED, linewidth=1)
        axes.scatter(held_out["expected"], held_out["accuracy"], s=8, color=ACCENT, alpha=0.6, linewidths=0)
        axes.set(xlabel="expected correlation", ylabel="correlation with what was measured")
        axes.set_title("Held-out genes")
        return axes
