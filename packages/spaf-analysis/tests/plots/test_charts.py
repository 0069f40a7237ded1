import numpy as np
import pandas as pd
import pytest

from spaf_analysis import plots


def test_account_bars_add_up():
    figure = plots.account_bars({"transcripts": [("kept", 75), ("in no cell", 25)], "cells": [("analysed", 10)]})
    widths = [[patch.get_width() for patch in axes.patches] for axes in figure.axes]
    assert widths == [[75.0, 25.0], [100.0]]
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["kept 75.0 %", "in no cell 25.0 %"]


@pytest.fixture
def metrics():
    steps = np.arange(0, 50, 10)
    table = pd.DataFrame({"step": steps, "split": "train", "loss": 5.0 - steps / 50, "loss_pairs": 1.0})
    validation = table.assign(split="validation", auroc_pairs=0.6)
    return pd.concat([table, validation], ignore_index=True)


def test_learning_curves_show_what_was_logged(metrics):
    figure = plots.learning_curves(metrics, best_step=30)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.axison]
    assert titles == ["All objectives", "Cell pairs", "Ranking"]
    training, validation, best = figure.axes[0].lines
    np.testing.assert_allclose(training.get_ydata(), metrics.loc[metrics.split == "train", "loss"])
    assert len(validation.get_xdata()) == 5
    assert best.get_xdata()[0] == 30
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["training", "validation", "weights kept (step 30)"]


def test_learning_curves_of_a_run_without_validation(metrics):
    figure = plots.learning_curves(metrics[metrics.split == "train"].drop(columns="auroc_pairs"))
    assert sum(axes.axison for axes in figure.axes) == 2


def test_pair_intervals_draw_values_and_bounds():
    rows = [
        {"score": score, "radius": radius, "negatives": kind, "auroc": 0.7, "auroc_low": 0.6, "auroc_high": 0.75}
        for score in ("model", "pca")
        for radius in (10.0, 30.0)
        for kind in ("easy", "hard")
    ]
    figure = plots.pair_intervals(pd.DataFrame(rows), {"model": "M", "pca": "P"}, {"easy": "E", "hard": "H"})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["E", "H"]
    bars = figure.axes[0].containers
    assert len(bars) == 2
    np.testing.assert_allclose(bars[0].lines[0].get_ydata(orig=False), [0.7, 0.7])
    low_to_high = [segment[:, 1] for segment in bars[0].lines[2][0].get_segments()]
    np.testing.assert_allclose(low_to_high, [[0.6, 0.75]] * 2)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["10", "30"]


def test_gene_pairs_read_from_top_to_bottom():
    table = pd.DataFrame(
        {"gene_a": ["A", "C"], "gene_b": ["B", "D"], "expected": [10.0, 20.0], "observed": [50.0, 40.0]}
    )
    axes = plots.gene_pair_enrichment(table, label="cells").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["A – B", "C – D"]
    bottom, top = axes.get_ylim()
    assert bottom > top
    np.testing.assert_allclose(axes.collections[2].get_offsets()[:, 0], [50, 40])


def test_dollar_signs_in_names_are_no_formula():
    table = pd.DataFrame(
        {"gene_a": ["A$_{$"], "gene_b": ["$\\frac$"], "observed": [9.0], "expected": [2.0], "fold": [4.5], "z": [5.0]}
    )
    figure = plots.gene_pair_enrichment(table, label="joins in s$1$")
    figure.draw_without_rendering()
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert any("A$_{$" in text for text in shown)
    assert not any(text.get_parse_math() for text in figure.axes[0].get_yticklabels())
