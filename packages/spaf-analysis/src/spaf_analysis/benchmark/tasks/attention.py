"""Attention between the genes of two cells, by whether it ranks gene pairs as deleting them does."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from spaf_analysis.attention.tool import attention
from spaf_analysis.benchmark.base import Judged, Method, Settings, Task
from spaf_analysis.benchmark.tasks._asked import chosen_types, labelled, model_that
from spaf_analysis.benchmark.tasks._replication import compared
from spaf_analysis.errors import InputError
from spaf_analysis.keys import ATTENTION
from spaf_model import ShowsAttention

if TYPE_CHECKING:
    from spaf_analysis.benchmark.data import Data

DETECTION = "product of detection rates"
POSITION = "position alone"
AGREEMENT = "Spearman with deletion"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention(Task):
    """How attention between two cells, less position, ranks gene pairs beside what deleting both genes does.

    Of each pair of cells the rank correlation, and their mean. Baselines that ask no model are how often both genes are
    detected, and what position alone gives.
    """

    left: str | None = None  # type of the one cell; None: the most frequent of the labels
    right: str | None = None  # and of the other; None: the same as the left
    n_pairs: int = 20  # pairs of cells
    n_shuffles: int = 5

    name = "attention"
    title = "Attention between the genes of neighbours"
    needs = ("label", "places")

    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge attention over resampled pairs of cells."""
        model = model_that(method, data, ShowsAttention)
        table = labelled(data)
        types = chosen_types(table, data, self.left, self.right)
        attention(
            table, model, cell_type=str(data.options.label), left=types[0], right=types[1],
            n_agreement=self.n_pairs, n_shuffles=self.n_shuffles, seed=settings.seed,
        )  # fmt: skip
        stored = table.uns[ATTENTION]
        rows = stored["agreement"].dropna()
        if len(rows) < 2:
            reason = stored["reason"] or "deletion or attention does not vary"
            raise InputError(f"attention of {len(rows)} pairs of cells can be held against deletion: {reason}.")
        draws = np.random.default_rng([settings.seed, 6]).integers(0, len(rows), (settings.replicates, len(rows)))
        columns = {method.name: "rho", DETECTION: "rho_detection", POSITION: "rho_position"}
        found = {}
        for name, column in columns.items():
            values = rows[column].to_numpy(dtype=np.float64)
            found[name] = (float(values.mean()), values[draws].mean(axis=1))
        notes = [
            f"Pairs of {' and '.join(types)}.",
            f"{stored['n_called']:,} of {stored['n_tested']:,} directed gene pairs are called against shuffled pairs.",
        ]
        return Judged(*compared(method.name, found, measure=AGREEMENT), ("pairs of cells", len(rows)), notes)
