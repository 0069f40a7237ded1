import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg

from spaf_analysis.cell_pairs import SCORES
from spaf_analysis.cell_pairs.plot import pair_intervals
from spaf_analysis.plots import SCORE_MARKS


def test_pair_intervals_draw_values_and_bounds():
    rows = [
        {"score": score, "radius": radius, "negatives": kind, "auroc": 0.7, "auroc_low": 0.6, "auroc_high": 0.75}
        for score in ("model", "pca")
        for radius in (10.0, 30.0)
        for kind in ("easy", "hard")
    ]
    axes = pair_intervals(pd.DataFrame(rows), {"model": "M", "pca": "P"}, {"easy": "E", "hard": "H"})
    assert [each.get_title(loc="left") for each in axes] == ["E", "H"]
    bars = axes[0].containers
    assert len(bars) == 2
    np.testing.assert_allclose(bars[0].lines[0].get_ydata(orig=False), [0.7, 0.7])
    low_to_high = [segment[:, 1] for segment in bars[0].lines[2][0].get_segments()]
    np.testing.assert_allclose(low_to_high, [[0.6, 0.75]] * 2)
    assert [text.get_text() for text in axes[0].get_xticklabels()] == ["10", "30"]


def test_the_legend_of_many_scores_fits_into_the_figure():
    names = {f"score {number}": f"A score with a long name, number {number}" for number in range(6)}
    rows = [
        {"score": score, "radius": 30.0, "negatives": "easy", "auroc": 0.7, "auroc_low": 0.6, "auroc_high": 0.75}
        for score in names
    ]
    figure = pair_intervals(pd.DataFrame(rows), names, {"easy": "E"})[0].figure
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    assert figure.bbox.x0 <= legend.get_window_extent().x0
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert len(set(SCORE_MARKS)) == len(SCORE_MARKS) >= len(SCORES)
