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
