import numpy as np
import pandas as pd

from spaf_analysis.gene_pairs.plot import gene_pair_enrichment
from spaf_analysis.plots.style import style


def test_gene_pairs_read_from_top_to_bottom():
    table = pd.DataFrame(
        {"gene_a": ["A", "C"], "gene_b": ["B", "D"], "expected": [10.0, 20.0], "observed": [50.0, 40.0]}
    )
    axes = gene_pair_enrichment(table, label="cells")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["A – B", "C – D"]
    bottom, top = axes.get_ylim()
    assert bottom > top
    np.testing.assert_allclose(axes.collections[2].get_offsets()[:, 0], [50, 40])


def test_dollar_signs_in_names_are_no_formula():
    table = pd.DataFrame({"gene_a": ["A$_{$"], "gene_b": ["$\\frac$"], "observed": [9.0], "expected": [2.0]})
    with style():
        axes = gene_pair_enrichment(table, label="joins in s$1$")
    axes.figure.draw_without_rendering()
    (shown,) = axes.get_yticklabels()
    assert shown.get_text() == "A$_{$ – $\\frac$"
    assert not shown.get_parse_math()
