"""Figures as text that a page can carry inside itself."""

import base64
import io

from matplotlib.figure import Figure

from spaf_analysis.plots.style import style


def svg_uri(figure: Figure) -> str:
    """Return the figure as the data URI of an SVG: text as outlines, point clouds as pixels, so it needs no font."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
