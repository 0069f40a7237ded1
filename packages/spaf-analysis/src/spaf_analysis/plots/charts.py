"""Charts of a run: what was dropped, how training went."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spaf_analysis.plots.marks import SCORE_MARKS
from spaf_analysis.plots.style import ACCENT, MUTED, style
from spaf_train import objective_columns

_ACCOUNT_COLORS = ("#0072b2", "#e69f00", "#cc79a7", "#b8c0c8", "#56b4e9")


def account_bars(bars: Mapping[str, Sequence[tuple[str, int]]]) -> Figure:
    """Where the items of each kind went, as bars of shares.

    Parameters
    ----------
    bars
        For each kind ("transcripts", "cells") the parts (name, number), the kept ones first.

    Returns
    -------
    matplotlib.figure.Figure
        One bar a kind, its legend below it.
    """
    with style():
        figure = Figure(figsize=(9.6, 0.75 * len(bars)), layout="constrained")
        for axes, (kind, parts) in zip(figure.subplots(len(bars), 1, squeeze=False)[:, 0], bars.items(), strict=True):
            total = max(sum(number for _, number in parts), 1)
            start = 0.0
            for (name, number), color in zip(parts, _ACCOUNT_COLORS, strict=False):
                share = 100 * number / total
                axes.barh(0, share, left=start, color=color, height=0.8, label=f"{name} {share:.1f} %")
                start += share
            axes.set(xlim=(0, 100), yticks=[0], yticklabels=[kind.capitalize()], xticks=[])
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.legend(
                loc="upper left", bbox_to_anchor=(0, -0.02), ncols=len(parts), fontsize=8.5, handlelength=0.9,
                borderaxespad=0.1, columnspacing=1.4,
            )  # fmt: skip
        return figure


def learning_curves(metrics: pd.DataFrame, *, best_step: int | None = None) -> Figure:
    """Losses and accuracies over the steps of training.

    Parameters
    ----------
    metrics
        `metrics.csv` of a run: a row per logged step and split.
    best_step
        The step whose weights were kept.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each quantity that was logged: training thin, validation with points.
    """
    own = objective_columns()
    panels = [
        ("loss", "All objectives", "loss (weighted sum)"),
        *((column.name, column.panel, column.unit) for column in own if column.unit != "AUROC"),
        ("auroc", "Ranking", "AUROC (validation)"),
    ]
    ranked = {column.name: column.panel for column in own if column.unit == "AUROC"}
    aurocs = [name for name in ranked if _logged(metrics, name)]
    panels = [panel for panel in panels if (panel[0] == "auroc" and aurocs) or _logged(metrics, panel[0])]
    last = max(int(metrics["step"].max()), 1)
    with style():
        rows = -(-len(panels) // 3)
        figure = Figure(figsize=(9.6, 2.5 * rows + 0.3), layout="constrained")
        grid = figure.subplots(rows, 3, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes, (column, title, label) in zip(grid, panels, strict=False):
            if column == "auroc":
                for name, (color, marker) in zip(aurocs, cycle(SCORE_MARKS[::2] + SCORE_MARKS[1::2]), strict=False):
                    validation = _rows(metrics, "validation", name)
                    axes.plot(
                        "step", name, data=validation, color=color, marker=marker, markersize=3, label=ranked[name]
                    )
                axes.axhline(0.5, color=MUTED, linewidth=0.8, linestyle=":")
                axes.legend(
                    loc="lower right", bbox_to_anchor=(1.02, 0.99), ncols=2, fontsize=8, borderaxespad=0.2,
                    handlelength=1.4, columnspacing=0.9,
                )  # fmt: skip
            else:
                training, validation = _rows(metrics, "train", column), _rows(metrics, "validation", column)
                axes.plot("step", column, data=training, color="#9fb3c8", linewidth=0.9)
                axes.plot("step", column, data=validation, color=ACCENT, marker="o", markersize=3, linewidth=1.4)
            if best_step is not None:
                axes.axvline(best_step, color="#d55e00", linewidth=1, linestyle="--")
            axes.set(title=title, xlabel="step", ylabel=label, xlim=(-0.02 * last, 1.02 * last))
            axes.grid(axis="y")
        handles = [
            Line2D([], [], color="#9fb3c8", label="training"),
            Line2D([], [], color=ACCENT, marker="o", markersize=3, label="validation"),
        ]
        if best_step is not None:
            handles.append(Line2D([], [], color="#d55e00", linestyle="--", label=f"weights kept (step {best_step})"))
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=8.5)
        return figure


def _logged(metrics: pd.DataFrame, column: str) -> bool:
    return column in metrics and bool(metrics[column].notna().any())


def _rows(metrics: pd.DataFrame, split: str, column: str) -> pd.DataFrame:
    if column not in metrics:
        return pd.DataFrame({"step": [], column: []})
    return metrics.loc[(metrics["split"] == split) & metrics[column].notna(), ["step", column]]
