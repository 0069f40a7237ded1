"""Types around types, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spaf_analysis.keys import TYPE_PAIRS
from spaf_analysis.plots.style import INK, style
from spaf_analysis.tables import stored_result, table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spaf_model import Cells


def type_pairs(adata: Cells, *, key: str = TYPE_PAIRS, table_key: str | None = None) -> Axes:
    """Draw which cell types lie around which.

    Parameters
    ----------
    adata
        With what `spaf_analysis.tl.type_pairs` wrote, or a SpatialData.
    key
        Key of `uns`.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    matplotlib.axes.Axes
        A row for the type in the middle, a column for the one around it, coloured by log2 of observed over expected
        (with conditions: of the first over the second); a dot where the adjusted p is at most .05.

    Raises
    ------
    InputError
        If it is not there.
    """
    table = table_of(adata, table_key)
    stored = stored_result(table, key, "pairs of types", "tl.type_pairs writes them")
    rows = pd.DataFrame(stored["table"])
    names = [str(name) for name in stored["types"]]
    compared = "first" in rows
    above, below = ("first", "second") if compared else ("ratio", None)
    place = {name: position for position, name in enumerate(names)}
    at = rows["of"].map(place).to_numpy(), rows["around"].map(place).to_numpy()
    shown, adjusted = np.full((2, len(names), len(names)), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = rows[above].to_numpy(dtype=np.float64) / (1.0 if below is None else rows[below].to_numpy())
        shown[at] = np.where(ratio > 0, np.log2(ratio), np.nan)
    adjusted[at] = rows["p_adjusted"].to_numpy()
    size = 0.34 * len(names)
    with style():
        figure = Figure(figsize=(2.6 + size, 1.8 + size), layout="constrained")
        axes = figure.add_subplot()
        top = float(np.nanquantile(np.abs(shown), 0.98)) if np.isfinite(shown).any() else 1.0
        image = axes.imshow(shown, cmap="RdBu_r", vmin=-max(top, 0.1), vmax=max(top, 0.1))
        row, column = np.nonzero(adjusted <= 0.05)
        axes.scatter(column, row, s=12, color=INK)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="around them", ylabel="cells of")
        first, second = stored["conditions"] if compared else ("observed", "expected")
        axes.set_title("Types around types")
        figure.colorbar(image, ax=axes, label=f"log2 {first} over {second}", extend="both")
        return axes
