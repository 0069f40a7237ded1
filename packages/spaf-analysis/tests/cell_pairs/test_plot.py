import numpy as np
import pandas as pd

from spaf_analysis.cell_pairs.plot import pair_intervals


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
