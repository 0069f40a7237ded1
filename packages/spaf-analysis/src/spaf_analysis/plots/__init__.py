"""Figures: each function returns a matplotlib figure that can be saved or shown on its own."""

from spaf_analysis.plots.charts import account_bars, learning_curves
from spaf_analysis.plots.encode import svg_uri
from spaf_analysis.plots.maps import embedding_categories, tissue_categories, tissue_values
from spaf_analysis.plots.marks import SCORE_MARKS
from spaf_analysis.plots.style import category_colors, style

__all__ = [
    "SCORE_MARKS",
    "account_bars",
    "category_colors",
    "embedding_categories",
    "learning_curves",
    "style",
    "svg_uri",
    "tissue_categories",
    "tissue_values",
]
