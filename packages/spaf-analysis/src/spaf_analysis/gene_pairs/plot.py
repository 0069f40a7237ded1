"""Gene pairs drawn: observed beside expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from spaf_analysis.errors import InputError
from spaf_analysis.gene_pairs.tool import stored_gene_pairs
from spaf_analysis.keys import GENE_PAIR_MARKERS, GENE_PAIRS
from spaf_analysis.plots.style import ACCENT, FAINT, INK, MUTED, style
from spaf_analysis.tables import stored_result, table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from spaf_model import Cells

COUNTED = {
    "enrichment": "pairs of neighbouring transcripts (logarithmic axis)",
    "overlap": "cells in which both are co-localised (logarithmic axis)",
}
LEVELS = {
    "jitter": "noise in places (um)",
    "outer": "part of the cell that is kept",
    "dropped": "share of transcripts lost",
    "panel": "share of genes measured",
}


def gene_pairs(adata: Cells, *, n: int = 15, key: str = GENE_PAIRS, table_key: str | None = None) -> Axes:
    """Draw the gene pairs most enriched, as `spaf_analysis.tl.gene_pairs` ranked them.

    Parameters
    ----------
    adata
        With `uns[key]`, or a SpatialData.
    n
        Number of pairs, at most.
    key
        What `tl.gene_pairs` wrote.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    matplotlib.axes.Axes
        See `gene_pair_enrichment`.

    Raises
    ------
    InputError
        If it is not there, or no pair is enriched.
    """
    ranked = stored_gene_pairs(adata, key=key, table_key=table_key)
    top = ranked.enriched(n)
    if top.empty:
        raise InputError(f"no gene pair of uns[{key!r}] is enriched at a false discovery rate of 5 %.")
    return gene_pair_enrichment(top, label=COUNTED[ranked.method])


def gene_pair_markers(adata: Cells, *, n: int = 15, key: str = GENE_PAIR_MARKERS, table_key: str | None = None) -> Axes:
    """Draw the gene pairs that mark groups most certainly, beside how certain their presence alone seems.

    Parameters
    ----------
    adata
        With what `spaf_analysis.tl.gene_pair_markers` wrote, or a SpatialData.
    n
        Pairs and groups, at most: those that add most to their genes.
    key
        Key of `uns`.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    matplotlib.axes.Axes
        A line from p by presence (open) to p of what the pair adds (filled; in colour where it was called), both as
        -log10.

    Raises
    ------
    InputError
        If it is not there.
    """
    stored = stored_result(
        table_of(adata, table_key), key, "markers among gene pairs", "tl.gene_pair_markers writes them"
    )
    rows = pd.DataFrame(stored["table"])
    rows = rows[rows["p"].notna().to_numpy()].head(n)
    adds, presence = (-np.log10(np.maximum(rows[name].to_numpy(), 1e-300)) for name in ("p", "p_presence"))
    called = rows["called"].to_numpy(dtype=bool)
    with style():
        figure = Figure(figsize=(6.4, 0.27 * len(rows) + 1.0), layout="constrained")
        axes = figure.add_subplot()
        y = np.arange(len(rows))
        axes.hlines(y, presence, adds, color=FAINT, linewidth=5)
        axes.scatter(presence, y, facecolors="white", edgecolors=MUTED, s=34, zorder=3, label="presence alone")
        axes.scatter(adds[called], y[called], color=ACCENT, s=34, zorder=4, label="beyond its genes, called")
        axes.scatter(adds[~called], y[~called], color=MUTED, s=34, zorder=4, label="beyond its genes")
        names = rows["gene_a"].astype(str) + " – " + rows["gene_b"].astype(str) + ", " + rows["group"].astype(str)
        axes.set_yticks(y, list(names))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set(xlabel="−log10 p")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0, handletextpad=0.2)
        return axes


def pair_robustness(table: pd.DataFrame, *, score: str = "jaccard") -> NDArray[np.object_]:
    """Draw how gene pairs survive what is done to transcripts, beside the counts of the same cells.

    Parameters
    ----------
    table
        Of `spaf_data.robustness`.
    score
        Its column: ``"jaccard"``, ``"recall"`` or ``"precision"``.

    Returns
    -------
    numpy.ndarray
        Of matplotlib axes, one for each kind of perturbation that has levels, with a line of pairs and one of counts.

    Raises
    ------
    InputError
        If the table is another one, or nothing in it has levels.
    """
    missing = [name for name in ("perturbation", "level", "scope", score, "counts") if name not in table]
    if missing:
        raise InputError(f"the table has no column {missing[0]!r}; it must be one of spaf_data.robustness.")
    overall = table[(table["scope"] == "slide") & table["level"].notna()]
    if overall.empty:
        raise InputError("nothing in the table has levels to draw.")
    kinds = list(dict.fromkeys(overall["perturbation"]))
    with style():
        figure = Figure(figsize=(2.6 * len(kinds) + 0.6, 2.6), layout="constrained")
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            own = overall[overall["perturbation"] == kind].sort_values("level")
            axes.plot(own["level"], own["counts"], color=MUTED, marker="o", linestyle="--", label="counts (cosine)")
            axes.plot(own["level"], own[score], color=ACCENT, marker="o", label=f"gene pairs ({score})")
            axes.set(xlabel=LEVELS.get(kind, kind), ylim=(0, 1.05))
            axes.grid(axis="y")
        panels[0].set_ylabel("like what was measured")
        panels[0].legend(loc="lower left")
        return np.asarray(panels, dtype=object)


def gene_pair_enrichment(table: pd.DataFrame, *, label: str) -> Axes:
    """Observed beside expected for each gene pair, on a logarithmic axis.

    Parameters
    ----------
    table
        Rows of the table of `GenePairs`, most enriched first.
    label
        What is counted.

    Returns
    -------
    matplotlib.axes.Axes
        A line from expected (open) to observed (filled) for each pair.
    """
    with style():
        figure = Figure(figsize=(6.4, 0.27 * len(table) + 1.0), layout="constrained")
        axes = figure.add_subplot()
        y = np.arange(len(table))
        axes.hlines(y, table["expected"], table["observed"], color=FAINT, linewidth=5)
        axes.scatter(table["expected"], y, facecolors="white", edgecolors=MUTED, s=34, zorder=3, label="expected")
        axes.scatter(table["observed"], y, color=ACCENT, s=34, zorder=3, label="observed")
        axes.set_yticks(y, [f"{a} – {b}" for a, b in zip(table["gene_a"], table["gene_b"], strict=True)])
        axes.set_ylim(len(table) - 0.4, -0.6)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel=label)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0, handletextpad=0.2)
        return axes
