"""Niches drawn: in the tissue, by what they are made of, and by how they differ between conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spaf_analysis.clusters.plot import clusters
from spaf_analysis.errors import InputError
from spaf_analysis.keys import NICHE_DIFFERENCES, NICHES
from spaf_analysis.niches.comparison import stored_differences
from spaf_analysis.plots.style import ACCENT, MUTED, style
from spaf_analysis.tables import labels_of, table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spaf_model import Cells

_MAX_ROWS = 20


def niches(adata: Cells, *, key: str = NICHES, slide: str | None = None, table_key: str | None = None) -> Axes:
    """Draw the tissue coloured by niche.

    Parameters
    ----------
    adata
        With what `spaf_analysis.tl.niches` wrote, or a SpatialData.
    key
        Column of `obs`.
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
    return clusters(adata, key=key, slide=slide, table_key=table_key)


def niche_composition(adata: Cells, cell_type: str, *, key: str = NICHES, table_key: str | None = None) -> Axes:
    """Draw the share of each cell type in each niche.

    Parameters
    ----------
    adata
        With what `spaf_analysis.tl.niches` wrote, or a SpatialData.
    cell_type
        Column of `obs`.
    key
        Column of `obs` with the niches.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    matplotlib.axes.Axes
        Niches x types; each row adds up to 1.

    Raises
    ------
    InputError
        If there is no such column.
    """
    table = table_of(adata, table_key)
    labels_of(table, key, "key", least=1)
    types, names = labels_of(table, cell_type, "cell_type", least=1)
    known = types >= 0
    kind = pd.Categorical.from_codes(types[known], categories=pd.Index(names))
    share = pd.crosstab(table.obs[key].to_numpy()[known], kind, normalize="index")
    order = sorted(share.index, key=lambda name: (len(str(name)), str(name)))
    share = share.loc[order]
    with style():
        figure = Figure(figsize=(1.8 + 0.34 * share.shape[1], 1.6 + 0.3 * share.shape[0]), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(share.to_numpy(), cmap="viridis", aspect="auto", vmin=0)
        axes.set(title=f"{cell_type} in each niche", ylabel="niche")
        axes.set_xticks(range(share.shape[1]), share.columns.astype(str), rotation=90)
        axes.set_yticks(range(share.shape[0]), [str(name) for name in share.index])
        figure.colorbar(image, ax=axes, label="share of the cells")
        return axes


def niche_differences(
    adata: Cells, *, key: str = NICHE_DIFFERENCES, kind: str = "abundance", table_key: str | None = None
) -> Axes:
    """Draw what differs most between two conditions.

    Parameters
    ----------
    adata
        With what `spaf_analysis.tl.niche_differences` wrote, or a SpatialData.
    key
        Key of `uns`.
    kind
        "abundance", "composition" or "gene".
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    matplotlib.axes.Axes
        At most 20 rows, the most certain on top; filled where the adjusted p is at most .05.

    Raises
    ------
    InputError
        If it is not there, or holds no such kind.
    """
    stored = stored_differences(table_of(adata, table_key), key)
    whole = pd.DataFrame(stored["table"])
    rows = whole[(whole["kind"] == kind) & np.isfinite(whole["p"])].head(_MAX_ROWS)
    if not len(rows):
        known = ", ".join(dict.fromkeys(whole.loc[np.isfinite(whole["p"]), "kind"])) or "nothing"
        raise InputError(f"uns[{key!r}] compares no {kind!r}; it compares: {known}.")
    with style():
        figure = Figure(figsize=(6.4, 1.3 + 0.24 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        certain = rows["p_adjusted"].to_numpy() <= 0.05
        y = np.arange(len(rows))[::-1]
        axes.barh(y, rows["difference"], color=np.where(certain, ACCENT, "white"), edgecolor=ACCENT)
        axes.axvline(0, color=MUTED, linewidth=0.9)
        names = [f"{row.niche}  {row.feature}".strip() for row in rows.itertuples()]
        axes.set_yticks(y, names)
        unit = "log2 counts per million" if kind == "gene" else "share of the cells"
        axes.set(title=f"Niches: {kind}", xlabel=f"{stored['first']} less {stored['second']} ({unit})")
        return axes
