"""Cells drawn where they are: in the tissue, or in a map of the embedding."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from spaf_analysis.plots.style import FAINT, INK, category_colors, style

# Inches. Every map has the same margins, so that maps side by side have the same scale.
_WIDTH = 6.4
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.7, 1.15, 0.55, 0.35
_LEGEND_COLUMN = 0.5  # more width for each further column of a legend
_LEGEND_ROWS = 14


def tissue_categories(
    coordinates: NDArray[np.floating],
    labels: pd.Series,
    *,
    title: str,
    legend: str,
    colors: Mapping[str, str] | None = None,
) -> Figure:
    """Tissue coloured by a category.

    Parameters
    ----------
    coordinates
        Cells x 2 in um; drawn with y downwards, the frame of the instrument's images.
    labels
        A categorical, one a cell; cells without a category are drawn in light grey.
    title
        Title of the figure.
    legend
        Title of the legend.
    colors
        Colour of each category; colour-blind-safe ones in the order of the categories if None.

    Returns
    -------
    matplotlib.figure.Figure
        With equal axes in um, a scale bar and the legend outside.
    """
    with style():
        columns = 1 + (len(labels.cat.categories) - 1) // _LEGEND_ROWS
        figure, axes, size = _tissue_axes(coordinates, title, right=_RIGHT + _LEGEND_COLUMN * (columns - 1))
        points = _categories(axes, coordinates, labels, colors, size)
        marks = axes.legend(
            handles=points, title=legend, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, ncols=columns,
            handletextpad=0.3, columnspacing=0.8, alignment="left",
        )  # fmt: skip
        for handle in marks.legend_handles:
            handle.set_sizes([36])
        return figure


def tissue_values(
    coordinates: NDArray[np.floating], values: NDArray[np.floating], *, title: str, label: str, cmap: str = "viridis"
) -> Figure:
    """Tissue coloured by a number, high values on top.

    Parameters
    ----------
    coordinates
        Cells x 2 in um; drawn with y downwards, the frame of the instrument's images.
    values
        One a cell. The colours end at the 99th percentile, so that a few extreme cells do not flatten the others.
    title
        Title of the figure.
    label
        What the values are, with their unit.
    cmap
        Name of a matplotlib colour map.

    Returns
    -------
    matplotlib.figure.Figure
        With equal axes in um, a scale bar and the colour bar outside.
    """
    with style():
        figure, axes, size = _tissue_axes(coordinates, title)
        order = np.argsort(values, kind="stable")
        top = float(np.quantile(values, 0.99))
        points = axes.scatter(
            *coordinates[order].T, c=values[order], s=size, cmap=cmap, linewidths=0,
            vmin=0, vmax=top if top > 0 else None, rasterized=True,
        )  # fmt: skip
        bar = figure.colorbar(points, cax=axes.inset_axes((1.02, 0.25, 0.035, 0.5)), extend="max")
        bar.set_label(label)
        bar.outline.set_visible(False)
        return figure


def embedding_categories(
    positions: NDArray[np.floating], labels: pd.Series, *, title: str, colors: Mapping[str, str] | None = None
) -> Figure:
    """Cells in a two-dimensional map such as UMAP, coloured by a category whose name stands at the middle of its cells.

    Parameters
    ----------
    positions
        Cells x 2, without unit.
    labels
        A categorical, one a cell.
    title
        Title of the figure.
    colors
        Colour of each category; colour-blind-safe ones in the order of the categories if None.

    Returns
    -------
    matplotlib.figure.Figure
        Without ticks: distances in such a map have no unit.
    """
    with style():
        figure = Figure(figsize=(_WIDTH, 5.2), layout="constrained")
        axes = figure.add_subplot()
        size = float(np.clip(12_000 / max(len(positions), 1), 0.4, 24))
        _categories(axes, positions, labels, colors, size)
        for category in labels.cat.categories:
            inside = (labels == category).to_numpy()
            if inside.any():
                axes.annotate(
                    str(category), np.median(positions[inside], axis=0), ha="center", va="center", weight="bold",
                    path_effects=[withStroke(linewidth=2.5, foreground="white")],
                )  # fmt: skip
        axes.set(title=title, xlabel="UMAP 1", ylabel="UMAP 2", xticks=[], yticks=[])
        return figure


def _categories(
    axes: Any,
    coordinates: NDArray[np.floating],
    labels: pd.Series,
    colors: Mapping[str, str] | None,
    size: float,
) -> list[Any]:
    """Draw each category, interleaved in the order of the cells, and return a handle for each."""
    names = [str(name) for name in labels.cat.categories]
    palette = colors or dict(zip(names, category_colors(len(names)), strict=True))
    codes = labels.cat.codes.to_numpy()
    lookup = np.array([*(palette[name] for name in names), FAINT])
    axes.scatter(*coordinates.T, c=lookup[codes], s=size, linewidths=0, rasterized=True)
    return [axes.scatter([], [], c=palette[name], s=36, linewidths=0, label=name) for name in names]


def _tissue_axes(coordinates: NDArray[np.floating], title: str, *, right: float = _RIGHT) -> tuple[Figure, Any, float]:
    """Make axes with the shape of the tissue, a strip below it for the scale bar, and the area of a point (points²)."""
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    extent = np.maximum(high - low, 1.0)
    margin, strip = 0.02 * extent, 0.09 * extent[1]
    shape = (extent[1] + 2 * margin[1] + strip) / (extent[0] + 2 * margin[0])
    width = _WIDTH - _LEFT - right
    height = float(np.clip(width * shape, 1.6, 6.0))
    full = (_WIDTH, height + _BOTTOM + _TOP)
    figure = Figure(figsize=full)
    axes = figure.add_axes((_LEFT / full[0], _BOTTOM / full[1], width / full[0], height / full[1]), anchor="NW")
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(high[1] + margin[1] + strip, low[1] - margin[1])
    axes.set_aspect("equal")
    axes.set(title=title, xlabel="x (µm)", ylabel="y (µm, downwards)")

    length = _round_length(extent[0] / 5)
    y = high[1] + strip * 0.75
    axes.plot([high[0] - length, high[0]], [y, y], color=INK, linewidth=2.5, solid_capstyle="butt")
    axes.annotate(
        f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm", (high[0] - length, y), xytext=(-5, 0),
        textcoords="offset points", ha="right", va="center", fontsize=8.5,
    )  # fmt: skip
    # The cells cover about half of the axes, whatever their number.
    area = min(width * height, width**2 * shape, height**2 / shape) * 72**2
    return figure, axes, float(np.clip(0.5 * area / len(coordinates), 0.3, 40))


def _round_length(length: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not longer."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step * power for step in (1, 2, 5) if step * power <= length))
