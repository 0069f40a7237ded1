import base64
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from spaf_analysis import plots


@pytest.fixture
def coordinates():
    return np.random.default_rng(0).random((200, 2)) * [500, 300] + [1_000, 200]


@pytest.fixture
def labels():
    return pd.Series(pd.Categorical(["a", "b", "c", None] * 50, categories=["a", "b", "c", "unused"]))


def test_tissue_has_equal_axes_in_um_with_y_downwards(coordinates, labels):
    axes = plots.tissue_categories(coordinates, labels, title="T", legend="Type").axes[0]
    assert axes.get_aspect() == 1.0
    low, high = axes.get_ylim()
    assert low > coordinates[:, 1].max() > coordinates[:, 1].min() > high
    assert "µm" in axes.get_xlabel()
    assert "µm" in axes.get_ylabel()


def test_scale_bar_is_as_long_as_it_says(coordinates, labels):
    axes = plots.tissue_categories(coordinates, labels, title="T", legend="Type").axes[0]
    bar = axes.lines[0].get_xdata()
    assert bar[1] - bar[0] == pytest.approx(50)
    assert [text.get_text() for text in axes.texts] == ["50 µm"]
    wide = plots.tissue_categories(coordinates * 40, labels, title="T", legend="Type").axes[0]
    assert [text.get_text() for text in wide.texts] == ["2 mm"]


def test_points_have_the_colours_of_the_legend(coordinates, labels):
    colors = {"a": "#ff0000", "b": "#00ff00", "c": "#0000ff", "unused": "#000000"}
    axes = plots.tissue_categories(coordinates, labels, title="T", legend="Type", colors=colors).axes[0]
    drawn = [to_hex(color) for color in axes.collections[0].get_facecolors()]
    assert drawn[:3] == ["#ff0000", "#00ff00", "#0000ff"]
    assert drawn[3] not in colors.values()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "c", "unused"]


def test_values_are_drawn_highest_on_top(coordinates):
    values = np.random.default_rng(1).random(200)
    figure = plots.tissue_values(coordinates, values, title="G", label="counts")
    points = figure.axes[0].collections[0]
    np.testing.assert_array_equal(points.get_array(), np.sort(values))
    np.testing.assert_allclose(points.get_offsets(), coordinates[np.argsort(values)])


def test_maps_side_by_side_have_the_same_scale(coordinates, labels):
    first = plots.tissue_categories(coordinates, labels, title="T", legend="Type")
    second = plots.tissue_values(coordinates, np.arange(200.0), title="G", label="counts")
    assert first.axes[0].get_position().bounds == second.axes[0].get_position().bounds
    assert tuple(first.get_size_inches()) == tuple(second.get_size_inches())


def test_colors_of_many_categories_differ():
    colors = plots.category_colors(30)
    assert len(set(colors)) == 30
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for color in colors)


def test_figures_are_self_contained_and_equal_each_time(coordinates, labels):
    uris = [plots.svg_uri(plots.embedding_categories(coordinates, labels, title="UMAP")) for _ in range(2)]
    assert uris[0] == uris[1]
    assert uris[0].startswith("data:image/svg+xml;base64,")
    svg = base64.b64decode(uris[0].partition(",")[2]).decode()
    assert "<text" not in svg
    for target in re.findall(r'(?:href|src)="([^"]*)"', svg):
        assert target.startswith(("#", "data:"))
