"""Ligand-receptor pairs drawn: beside chance, and beside gene pairs as frequent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spaf_analysis.keys import LIGREC
from spaf_analysis.plots.style import ACCENT, FAINT, INK, MUTED, style
from spaf_analysis.tables import stored_result, table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spaf_model import Cells


def ligrec(adata: Cells, *, n: int = 20, key: str = LIGREC, table_key: str | None = None) -> Axes:
    """Draw the ligand-receptor pairs that exceed gene pairs as frequent most.

    Parameters
    ----------
    adata
        With what `spaf_analysis.tl.ligrec` wrote, or a SpatialData.
    n
        Number of pairs, at most.
    key
        Key of `uns`.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    matplotlib.axes.Axes
        A line from the ratio of the matched pairs (open) to that of the pair (filled; in colour where it was called).

    Raises
    ------
    InputError
        If it is not there.
    """
    table = table_of(adata, table_key)
    stored = stored_result(table, key, "ligand-receptor pairs", "tl.ligrec writes them")
    rows = pd.DataFrame(stored["table"])
    rows = rows[np.isfinite(rows["excess"].to_numpy(dtype=np.float64))].head(n)
    called = rows["called"].to_numpy(dtype=bool)
    with style():
        figure = Figure(figsize=(6.4, 0.27 * len(rows) + 1.0), layout="constrained")
        axes = figure.add_subplot()
        y = np.arange(len(rows))
        axes.axvline(1.0, color=FAINT, linewidth=1)
        axes.hlines(y, rows["ratio_matched"], rows["ratio"], color=FAINT, linewidth=5)
        axes.scatter(
            rows["ratio_matched"], y, facecolors="white", edgecolors=MUTED, s=34, zorder=3, label="pairs as frequent"
        )
        axes.scatter(rows["ratio"][called], y[called], color=ACCENT, s=34, zorder=4, label="called")
        axes.scatter(rows["ratio"][~called], y[~called], color=MUTED, s=34, zorder=4, label="not called")
        axes.set_yticks(y, [f"{a} – {b}" for a, b in zip(rows["ligand"], rows["receptor"], strict=True)])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set(xlabel="observed over expected within type and tile")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0, handletextpad=0.2)
        return axes
