"""Ligand-receptor pairs drawn: beside chance, and beside gene pairs as frequent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spaf_analysis.errors import InputError
from spaf_analysis.keys import LIGREC, LIGREC_TYPES
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


def ligrec_types(
    adata: Cells, ligand: str, receptor: str, *, key: str = LIGREC_TYPES, table_key: str | None = None
) -> Axes:
    """Draw which types send a ligand and which receive it.

    Parameters
    ----------
    adata
        With what `spaf_analysis.tl.ligrec_types` wrote, or a SpatialData.
    ligand, receptor
        The pair.
    key
        Key of `uns`.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    matplotlib.axes.Axes
        A heat map of the standard score of what is observed beyond expectation within type and tile, senders x
        receivers; a dot where it was called, grey where no cell could change places.

    Raises
    ------
    InputError
        If it is not there, or has no such pair.
    """
    stored = stored_result(table_of(adata, table_key), key, "senders and receivers", "tl.ligrec_types writes them")
    rows = pd.DataFrame(stored["table"])
    rows = rows[(rows["ligand"] == ligand).to_numpy() & (rows["receptor"] == receptor).to_numpy()]
    if rows.empty:
        raise InputError(f"uns[{key!r}] has no pair {ligand} and {receptor}.")
    types = sorted({*rows["sender"], *rows["receiver"]})
    z = rows.pivot(index="sender", columns="receiver", values="z").reindex(index=types, columns=types)
    values = z.to_numpy(dtype=np.float64)
    top = max(float(np.nanmax(np.abs(values), initial=0.0)), 1.0)
    with style():
        figure = Figure(figsize=(0.32 * len(types) + 3.0, 0.32 * len(types) + 1.8), layout="constrained")
        axes = figure.add_subplot()
        axes.set_facecolor(FAINT)
        image = axes.imshow(values, cmap="RdBu_r", vmin=-top, vmax=top)
        called = rows[rows["called"].to_numpy(dtype=bool)]
        axes.scatter(called["receiver"].map(types.index), called["sender"].map(types.index), s=14, color=INK)
        axes.set_xticks(range(len(types)), types, rotation=90)
        axes.set_yticks(range(len(types)), types)
        axes.set(xlabel=f"receives ({receptor})", ylabel=f"sends ({ligand})")
        figure.colorbar(image, ax=axes, label="z beyond type and tile")
        return axes
