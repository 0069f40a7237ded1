"""Cell pairs drawn: how well each score tells neighbours, by radius."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spaf_analysis.cell_pairs.compute import SCORES
from spaf_analysis.errors import InputError
from spaf_analysis.keys import CELL_PAIRS
from spaf_analysis.plots.marks import SCORE_MARKS
from spaf_analysis.plots.style import MUTED, style
from spaf_analysis.tables import stored_result, table_of
from spaf_data import Distances

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spaf_model import Cells


def cell_pairs(adata: Cells, *, key: str = CELL_PAIRS, table_key: str | None = None) -> list[Axes]:
    """Draw what `spaf_analysis.tl.cell_pairs` found.

    Parameters
    ----------
    adata
        With `uns[key]`, or a SpatialData.
    key
        What `tl.cell_pairs` wrote.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    list of matplotlib.axes.Axes
        One a kind of negatives.

    Raises
    ------
    InputError
        If it is not there, or the pairs could not be judged.
    """
    table = table_of(adata, table_key)
    stored = stored_result(table, key, "judged cell pairs", "tl.cell_pairs writes them")
    if "scores" not in stored:
        raise InputError(f"the cell pairs of uns[{key!r}] were not judged: {stored['reason']}.")
    scores = pd.DataFrame(stored["scores"])
    found = {name: title for name, title in SCORES.items() if (scores["score"] == name).any()}
    return pair_intervals(scores, found, far_titles(Distances(**stored["distances"])))


def far_titles(distances: Distances) -> dict[str, str]:
    """Return the title of each kind of negatives."""
    return {
        "easy": f"against cells > {distances.easy_min:g} µm away",
        "hard": f"against cells {distances.hard_min:g}–{distances.hard_max:g} µm away",
    }


def pair_intervals(scores: pd.DataFrame, names: Mapping[str, str], panels: Mapping[str, str]) -> list[Axes]:
    """AUROC of each score by radius, with intervals, a panel for each kind of negatives.

    Parameters
    ----------
    scores
        The `scores` of a `CellPairEvaluation`.
    names
        What to call each score, in the order to draw.
    panels
        Title for each kind of negatives.

    Returns
    -------
    list of matplotlib.axes.Axes
        One a kind of negatives. Points with 95 % intervals; the dotted line is chance.
    """
    step = min(0.18, 0.8 / len(names))
    radii = sorted(scores["radius"].unique())
    shown = {kind: title for kind, title in panels.items() if (scores["negatives"] == kind).any()}
    with style():
        columns = len(names) if len(names) <= 4 else 3
        height = 3.6 + 0.25 * (-(-len(names) // columns) - 1)
        figure = Figure(figsize=(9.6, height), layout="constrained")
        grid = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, (kind, title) in zip(grid, shown.items(), strict=True):
            for index, ((score, label), (color, marker)) in enumerate(zip(names.items(), SCORE_MARKS, strict=False)):
                rows = scores[(scores["score"] == score) & (scores["negatives"] == kind)].set_index("radius")
                rows = rows.reindex(radii)
                x = np.arange(len(radii)) + step * (index - (len(names) - 1) / 2)
                error = np.abs(rows[["auroc_low", "auroc_high"]].to_numpy().T - rows["auroc"].to_numpy())
                axes.errorbar(
                    x, rows["auroc"], error, fmt=marker, color=color, markersize=5.5, label=label,
                    elinewidth=1.6,
                )  # fmt: skip
            axes.axhline(0.5, color=MUTED, linewidth=0.9, linestyle=":")
            axes.set(title=title, xlabel="neighbours within (µm)", xticks=range(len(radii)))
            axes.set_xticklabels([f"{radius:g}" for radius in radii])
            axes.grid(axis="y")
            axes.set_axisbelow(True)
        grid[0].set_ylabel("AUROC (95 % interval)")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9)
        return list(grid)
