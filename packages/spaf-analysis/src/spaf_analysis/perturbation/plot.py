"""Interactions of gene pairs, drawn: a heat map and a volcano."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spaf_analysis.errors import InputError
from spaf_analysis.keys import PERTURBATION
from spaf_analysis.plots.style import ACCENT, INK, MUTED, style
from spaf_analysis.tables import stored_result, table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spaf_model import Cells

_NAMED = 8  # gene pairs named in the volcano
_GENES = 25  # of either cell, in the heat map


def perturbation(
    adata: Cells, *, key: str = PERTURBATION, n_genes: int = _GENES, table_key: str | None = None
) -> list[Axes]:
    """Draw the interactions of gene pairs.

    Parameters
    ----------
    adata
        With what `spaf_analysis.tl.perturb` wrote, or a SpatialData.
    key
        Key of `uns`.
    n_genes
        Genes of either cell in the heat map: those of the gene pairs with the smallest p.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    list of matplotlib.axes.Axes
        The heat map (mean interaction in near less far pairs, a dot where it is called), and the volcano.

    Raises
    ------
    InputError
        If it is not there, or no gene pair was tested.
    """
    table = table_of(adata, table_key)
    stored = stored_result(table, key, "interactions", "tl.perturb writes them")
    rows = pd.DataFrame(stored["table"])
    if not len(rows):
        raise InputError(f"uns[{key!r}] has no gene pair that was tested.")
    with style():
        figure = Figure(figsize=(11.0, 5.0), layout="constrained")
        heat, volcano = figure.subplots(1, 2, width_ratios=(1.15, 1))
        _heat_map(heat, rows, stored, n_genes)
        _volcano(volcano, rows, stored)
    return [heat, volcano]


def _heat_map(axes: Axes, rows: pd.DataFrame, stored: dict[str, Any], n_genes: int) -> None:
    names = [list(dict.fromkeys(rows[column]))[:n_genes] for column in ("gene_left", "gene_right")]
    row, column = (
        rows[name].map({gene: place for place, gene in enumerate(genes)}).to_numpy(dtype=float)
        for name, genes in zip(("gene_left", "gene_right"), names, strict=True)
    )
    shown = np.isfinite(row) & np.isfinite(column)
    at = row[shown].astype(int), column[shown].astype(int)
    values = np.full((len(names[0]), len(names[1])), np.nan)
    values[at] = rows["difference"].to_numpy()[shown]
    top = max(float(np.nanquantile(np.abs(values), 0.98)), 1e-12)
    image = axes.imshow(values, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto")
    called = (rows["fdr"] <= stored["parameters"]["fdr"]).to_numpy()[shown]
    axes.scatter(at[1][called], at[0][called], s=9, color=INK)
    left, right = (str(name) for name in stored["names"])
    axes.set_yticks(range(len(names[0])), names[0], fontsize=7)
    axes.set_xticks(range(len(names[1])), names[1], fontsize=7, rotation=90)
    axes.set(ylabel=f"gene of {left}", xlabel=f"gene of {right}", title="Interaction, near less far")
    axes.figure.colorbar(image, ax=axes, label="logit", extend="both")


def _volcano(axes: Axes, rows: pd.DataFrame, stored: dict[str, Any]) -> None:
    called = (rows["fdr"] <= stored["parameters"]["fdr"]).to_numpy()
    difference, p = rows["difference"].to_numpy(), -np.log10(rows["p"].to_numpy())
    axes.scatter(difference[~called], p[~called], s=6, color=MUTED, alpha=0.5, linewidths=0, rasterized=True)
    axes.scatter(difference[called], p[called], s=14, color=ACCENT, linewidths=0)
    for place in np.flatnonzero(called)[:_NAMED]:
        words = f"{rows['gene_left'].iloc[place]} × {rows['gene_right'].iloc[place]}"
        axes.annotate(words, (difference[place], p[place]), fontsize=7, xytext=(3, 2), textcoords="offset points")
    axes.axvline(0.0, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set(xlabel="interaction, near less far (logit)", ylabel="−log10 p")
    axes.set_title(f"{int(called.sum()):,} of {len(rows):,} called")
