"""Attention between cells drawn: against shuffled pairs, and what its controls explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spaf_analysis.attention.compute import BETWEEN
from spaf_analysis.keys import ATTENTION
from spaf_analysis.plots.style import ACCENT, MUTED, category_colors, style
from spaf_analysis.tables import stored_result, table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spaf_model import Cells

_SHARES = {"position": "position", "detection": "detection", "correlation": "correlation", "shuffled": "shuffled pairs"}


def attention(adata: Cells, *, key: str = ATTENTION, table_key: str | None = None) -> list[Axes]:
    """Draw what is left of attention between cells.

    Parameters
    ----------
    adata
        With what `spaf_analysis.tl.attention` wrote, or a SpatialData.
    key
        Key of `uns`.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    list of matplotlib.axes.Axes
        Attention less position in the pairs of cells against that in shuffled ones, a point a directed gene pair; and
        the share of variance that each control explains (position: of the attention as it is).

    Raises
    ------
    InputError
        If it is not there.
    """
    table = table_of(adata, table_key)
    stored = stored_result(table, key, "attention", "tl.attention writes it")
    rows, controls = pd.DataFrame(stored["table"]), pd.DataFrame(stored["controls"])
    between = rows[rows["direction"].isin(BETWEEN)]
    called = (between["fdr"] <= stored["parameters"]["fdr"]).to_numpy()
    with style():
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        points, bars = figure.subplots(1, 2)
        for shown, color, size in ((~called, MUTED, 6), (called, ACCENT, 14)):
            some = between[shown]
            points.scatter(
                some["shuffled"], some["weight"], s=size, color=color, alpha=0.6, linewidths=0, rasterized=True
            )
        points.axline((0, 0), slope=1, color=MUTED, linewidth=0.8, linestyle=":")
        points.set(xlabel="shuffled pairs of cells", ylabel="pairs of cells as they are")
        points.set_title(f"Attention less position: {int(called.sum()):,} called")
        place = np.arange(len(controls))
        for step, (name, color) in enumerate(zip(_SHARES, category_colors(len(_SHARES)), strict=True)):
            if name in controls:
                bars.bar(place + 0.2 * (step - 1.5), controls[name].fillna(0), 0.2, color=color, label=_SHARES[name])
        bars.set_xticks(place, controls["direction"].str.replace("_", " "), rotation=20)
        bars.set(ylabel="share of variance explained", ylim=(0, 1), title="Controls")
        bars.legend()
    return [points, bars]
