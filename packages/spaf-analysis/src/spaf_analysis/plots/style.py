"""Colours, fonts and sizes that all figures share."""

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl

# Ten colours that stay apart for the common forms of colour blindness, in order (Petroff, arXiv:2107.02270).
CATEGORIES = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
INK = "#1f2933"
MUTED = "#7b8794"
FAINT = "#e4e7eb"
ACCENT = "#0072b2"

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": FAINT,
    "text.color": INK,
    # Names of genes, slides and tissues are text: two dollar signs make no formula of what is between them.
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    # Ids inside an SVG are hashes of this and the content: equal figures give equal files.
    "svg.hashsalt": "spaf",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw figures in the style of the reports."""
    with mpl.rc_context(_STYLE):
        yield


def category_colors(n: int) -> list[str]:
    """`n` colours for categories: ten safe ones, then the same ones lighter and darker for the smaller categories."""
    colors = []
    for index in range(n):
        base = mpl.colors.to_rgb(CATEGORIES[index % len(CATEGORIES)])
        towards, amount = ((1.0, 0.0), (1.0, 0.55), (0.0, 0.45))[(index // len(CATEGORIES)) % 3]
        colors.append(mpl.colors.to_hex([channel + (towards - channel) * amount for channel in base]))
    return colors
