"""What is known of predicted labels, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from spaf_analysis.errors import InputError
from spaf_analysis.keys import LABEL_PRED
from spaf_analysis.plots.style import ACCENT, MUTED, style
from spaf_analysis.tables import table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spaf_model import Cells


def label_confusion(adata: Cells, *, key: str = LABEL_PRED, table_key: str | None = None) -> Axes:
    """Draw the confusion matrix of held-out cells of the reference, each row as shares of its label.

    Parameters
    ----------
    adata
        What `spaf_analysis.tl.annotate` wrote to, or a SpatialData.
    key
        What it wrote.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    matplotlib.axes.Axes
        Rows are labels, columns predictions.

    Raises
    ------
    InputError
        If it is not there.
    """
    confusion = _stored(adata, key, table_key)["confusion"]
    shares = confusion.to_numpy() / np.maximum(confusion.to_numpy().sum(axis=1, keepdims=True), 1)
    with style():
        size = 0.28 * len(confusion) + 2.0
        axes = Figure(figsize=(size + 0.8, size), layout="constrained").add_subplot()
        image = axes.imshow(shares, vmin=0.0, vmax=1.0, cmap="viridis")
        axes.set_xticks(range(len(confusion)), confusion.columns, rotation=90)
        axes.set_yticks(range(len(confusion)), confusion.index)
        axes.set(xlabel="predicted", ylabel="label")
        figure = axes.get_figure()
        assert figure is not None
        figure.colorbar(image, ax=axes, label="share of the label")
        return axes


def label_reliability(adata: Cells, *, key: str = LABEL_PRED, table_key: str | None = None) -> Axes:
    """Draw how often held-out cells of the reference are right beside how sure their labels are.

    Parameters and errors are those of `label_confusion`.

    Returns
    -------
    matplotlib.axes.Axes
        One point a bin; on the diagonal probabilities mean what they say.
    """
    bins = _stored(adata, key, table_key)["reliability"]
    bins = bins[bins["n"] > 0]
    with style():
        axes = Figure(figsize=(4.0, 4.0), layout="constrained").add_subplot()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
        axes.plot(bins["probability"], bins["right"], color=ACCENT, marker="o")
        axes.set(xlabel="probability of the label", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
        return axes


def label_rejection(adata: Cells, *, key: str = LABEL_PRED, table_key: str | None = None) -> Axes:
    """Draw the accuracy of the held-out cells of the reference that are left when the least certain are unknown.

    Parameters and errors are those of `label_confusion`.

    Returns
    -------
    matplotlib.axes.Axes
        The rejection curve, in place of a threshold that is the same for all data.
    """
    curve = _stored(adata, key, table_key)["rejection"]
    with style():
        axes = Figure(figsize=(4.0, 4.0), layout="constrained").add_subplot()
        axes.plot(curve["rejected"], curve["accuracy"], color=ACCENT, marker="o")
        axes.set(xlabel="share of cells called unknown", ylabel="accuracy of the others")
        return axes


def _stored(adata: Cells, key: str, table_key: str | None) -> dict[str, Any]:
    table = table_of(adata, table_key)
    if key not in table.uns or "confusion" not in table.uns[key]:
        raise InputError(f"uns has no record of labels {key!r}: spaf_analysis.tl.annotate writes it.")
    stored: dict[str, Any] = table.uns[key]
    return stored
