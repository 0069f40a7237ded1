"""Patterns inside cells, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from spaf_analysis.errors import InputError
from spaf_analysis.keys import PATTERNS
from spaf_analysis.patterns.compute import FDR, leading_patterns, scores_of_genes, shown_patterns
from spaf_analysis.patterns.tool import stored_patterns
from spaf_analysis.plots.style import INK, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from spaf_model import Cells


def patterns(adata: Cells, *, n: int = 25, key: str = PATTERNS, table_key: str | None = None) -> Axes:
    """Draw the genes whose place in the cell is most certain, by pattern.

    Parameters
    ----------
    adata
        With what `spaf_analysis.tl.patterns` wrote, or a SpatialData.
    n
        Number of genes, at most.
    key
        Key of `uns`.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    matplotlib.axes.Axes
        See `pattern_scores`.

    Raises
    ------
    InputError
        If it is not there, or no gene is called.
    """
    table = stored_patterns(adata, key=key, table_key=table_key)["table"]
    if not (table["fdr"] <= FDR).any():
        raise InputError(f"no gene of uns[{key!r}] has a pattern at a false discovery rate of 5 %.")
    return pattern_scores(table, n)


def pattern_scores(table: pd.DataFrame, n: int) -> Axes:
    """Draw the standard scores of the genes whose place is most certain.

    Parameters
    ----------
    table
        As `spaf_data.subcellular_patterns` gives it, with a gene that is called.
    n
        Number of genes, at most.

    Returns
    -------
    matplotlib.axes.Axes
        A row a gene, grouped by the pattern that is most certain, a column a pattern, coloured by the standard score; a
        dot where the gene is called at a false discovery rate of 5 %.
    """
    leading = leading_patterns(table).head(n)
    columns = shown_patterns(sorted(set(table["pattern"])))
    leading = leading.sort_values(["pattern", "z"], ascending=[True, False], kind="stable")
    genes = leading["gene"].tolist()
    z, fdr = scores_of_genes(table, genes, columns)
    top = float(np.nanquantile(np.abs(z), 0.9))
    with style():
        figure = Figure(figsize=(2.6 + 0.4 * len(columns), 1.8 + 0.2 * len(genes)), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(z, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto")
        row, column = np.nonzero(fdr <= FDR)
        axes.scatter(column, row, s=8, color=INK)
        axes.set_xticks(range(len(columns)), columns, rotation=90)
        axes.set_yticks(range(len(genes)), genes)
        axes.set_title("Where in the cell")
        figure.colorbar(image, ax=axes, label="standard score", extend="both")
        return axes
