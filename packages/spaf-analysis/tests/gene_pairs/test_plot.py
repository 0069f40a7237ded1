import numpy as np
import pandas as pd
import pytest

from spaf_analysis import InputError, pl
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


def test_curves_of_pairs_stand_beside_those_of_counts():
    table = pd.DataFrame(
        {
            "perturbation": ["jitter", "jitter", "dropped", "dropped", "nucleus", "jitter"],
            "level": [1.0, 0.0, 0.1, 0.5, np.nan, 1.0],
            "scope": ["slide"] * 5 + ["cell"],
            "jaccard": [0.4, 1.0, 0.8, 0.3, 0.5, 0.2],
            "counts": [1.0, 1.0, 0.99, 0.9, 0.8, 1.0],
        }
    )
    panels = pl.pair_robustness(table)
    assert [axes.get_xlabel() for axes in panels] == ["noise in places (um)", "share of transcripts lost"]
    counts, pairs = panels[0].lines
    np.testing.assert_allclose(pairs.get_xydata(), [[0.0, 1.0], [1.0, 0.4]])
    np.testing.assert_allclose(counts.get_xydata(), [[0.0, 1.0], [1.0, 1.0]])
    with pytest.raises(InputError, match="no column 'counts'"):
        pl.pair_robustness(table.drop(columns="counts"))
    with pytest.raises(InputError, match="nothing in the table has levels"):
        pl.pair_robustness(table[table["perturbation"] == "nucleus"])
