"""An evaluation as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from spaf_train.evaluation.evaluate import Evaluation, verdicts

if TYPE_CHECKING:
    import pandas as pd

    from spaf_train.evaluation.pair_models import PairHeadEvaluation


def evaluation_tables(evaluation: Evaluation) -> list[Table]:
    """Return what was judged, one table for each objective; 95 % intervals in brackets."""
    tables = []
    if evaluation.masked_genes is not None:
        tables.append(
            score_table(
                f"Masked genes ({evaluation.masked_genes['n'].iloc[0]:,} hidden)",
                evaluation.masked_genes,
                {"score": "by"},
                {"accuracy": "accuracy", "perplexity": "perplexity"},
            )
        )
    if evaluation.gene_pairs is not None:
        tables.append(
            score_table(
                f"Co-localised genes ({evaluation.colocalized_share:.1%} of the pairs: chance for AUPRC)",
                evaluation.gene_pairs,
                {"score": "by"},
                {"auroc": "AUROC", "auprc": "AUPRC"},
            )
        )
    if evaluation.cell_pairs is not None:
        tables += _pair_tables(evaluation.cell_pairs)
    return tables


def _pair_tables(found: PairHeadEvaluation) -> list[Table]:
    judged = found.evaluation
    is_rough = " (rough intervals)" * judged.tiles.are_few
    few = ", fewer than 20: intervals are rough" * judged.tiles.are_few
    keys = {"radius": "um", "negatives": "against", "score": "by"}
    differences = judged.differences.assign(verdict=verdicts(judged.differences, judged.tiles.n))
    tables = [
        score_table(
            f"Neighbouring cells ({judged.n_pairs:,} pairs, {judged.tiles.n} tiles{few}; chance .5)",
            judged.scores.sort_values(["negatives", "radius"], kind="stable"),
            {**keys, "n_positives": "pairs"},
            {"auroc": "AUROC", "auprc": "AUPRC"},
        ),
        score_table(
            f"Neighbouring cells, difference on the same tissues{is_rough}",
            differences.sort_values(["negatives", "radius"], kind="stable"),
            {"radius": "um", "negatives": "against", "score": "by", "baseline": "minus", "verdict": ""},
            {"auroc": "AUROC"},
        ),
    ]
    if len(found.calibration):
        tables += [
            score_table(
                f"Probabilities at the threshold{is_rough}",
                found.operating_points,
                {**keys, "threshold": "threshold"},
                {"sensitivity": "sensitivity", "specificity": "specificity"},
            ),
            score_table(
                "Calibration error of probabilities", found.calibration, {"score": "by", "radius": "um"}, {"ece": "ECE"}
            ),
            _reliability(found.reliability),
        ]
    return tables


def score_table(title: str, rows: pd.DataFrame, keys: dict[str, str], measures: dict[str, str]) -> Table:
    """Return one table: the columns named by `keys` and, with their intervals, by `measures`."""
    table = Table(title=title, title_justify="left")
    for name in keys.values():
        table.add_column(name, no_wrap=True)
    for name in measures.values():
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows.to_dict("records"):
        cells = [f"{row[key]:g}" if isinstance(row[key], float) else str(row[key]) for key in keys]
        cells += [f"{row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})" for name in measures]
        table.add_row(*map(escape, cells))
    return table


def _reliability(rows: pd.DataFrame) -> Table:
    table = Table(title="Reliability of probabilities", title_justify="left")
    for name in ("by", "bin", "pairs", "mean probability", "neighbours"):
        table.add_column(name, justify="left" if name in ("by", "bin") else "right")
    for row in rows.to_dict("records"):
        if row["n"]:
            table.add_row(
                row["score"], f"{row['low']:.1f}-{row['high']:.1f}", f"{row['n']:,}", f"{row['probability']:.3f}",
                f"{row['observed']:.3f}",
            )  # fmt: skip
    return table
