"""Integration drawn: identity against mixing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from spaf_analysis.errors import InputError
from spaf_analysis.integrate.tool import OURS, stored_integration
from spaf_analysis.keys import INTEGRATION
from spaf_analysis.plots.style import ACCENT, MUTED, style
from spaf_analysis.tables import table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spaf_model import Cells

TITLES = {
    "nmi": "NMI, best resolution", "ari": "ARI, best resolution", "purity": "purity of neighbours", "cilisi": "CiLISI",
    "ilisi": "iLISI", "graph_connectivity": "graph connectivity", "pcr": "variance between batches",
    "pcr_comparison": "PCR comparison", "asw_label": "silhouette of labels", "asw_batch": "silhouette of batches",
    "isolated": "isolated labels", "avg_bio": "AvgBIO", "avg_batch": "AvgBATCH", "nmi_default": "NMI, resolution 1",
    "ari_default": "ARI, resolution 1",
}  # fmt: skip


def integration(
    adata: Cells,
    *,
    key: str = INTEGRATION,
    identity: str = "purity",
    mixing: str = "cilisi",
    table_key: str | None = None,
) -> Axes:
    """Draw identity against mixing, an embedding each.

    Parameters
    ----------
    adata
        With what `spaf_analysis.tl.integrate` wrote, or a SpatialData.
    key
        Key of `uns`.
    identity, mixing
        Metrics of the scores.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    matplotlib.axes.Axes
        Up and to the right is better: what a cell is is kept, and batches are mixed.

    Raises
    ------
    InputError
        If it is not there, or such a metric is not, as without labels.
    """
    scores = stored_integration(table_of(adata, table_key), key)["scores"]
    for metric in (identity, mixing):
        if metric not in scores:
            known = ", ".join(name for name in TITLES if name in scores)
            raise InputError(f"the integration has no metric {metric!r}; it has: {known}.")
    with style():
        figure = Figure(figsize=(6.4, 4.8), layout="constrained")
        axes = figure.add_subplot()
        for row in scores.to_dict(orient="records"):
            color = ACCENT if str(row["method"]).startswith(OURS) else MUTED
            x, y = row[mixing], row[identity]
            errors = [
                np.abs([[row[f"{metric}_low"] - value], [row[f"{metric}_high"] - value]])
                for metric, value in ((mixing, x), (identity, y))
            ]
            axes.errorbar(x, y, xerr=errors[0], yerr=errors[1], fmt="o", color=color, markersize=5, elinewidth=0.9)
            axes.annotate(row["method"], (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8, color=color)
        axes.set(xlabel=f"{TITLES[mixing]} (batches mixed)", ylabel=f"{TITLES[identity]} (identity kept)")
        axes.set_title("Integration")
        axes.grid()
        axes.set_axisbelow(True)
        return axes
