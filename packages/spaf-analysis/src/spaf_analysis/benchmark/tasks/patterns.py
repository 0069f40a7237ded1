"""Where in the cell genes lie, by whether halves of the tissue agree and what is called where genes are dealt anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, norm

import spaf_data
from spaf_analysis.benchmark.base import Difference, Judged, Method, Own, Score, Settings, Task
from spaf_analysis.benchmark.tasks._replication import (
    HALVES,
    agreement,
    compared,
    dealt_anew,
    halves,
    share,
    weights_of_genes,
)
from spaf_analysis.errors import InputError

if TYPE_CHECKING:
    from spaf_analysis.benchmark.data import Data
    from spaf_data import Transcripts

PERMUTED = "labels permuted in cells"
POOLED = "all cells as one"
CALLED = "called, genes dealt anew"
_FDR = 0.05
# Of two sides of one statistic the halves agree alike: one of them is asked.
_SIDES = ("cytoplasmic", "edge")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patterns(Task):
    """Standard scores of each pattern in halves of each slide, and calls where genes are dealt anew within each cell.

    Then no gene lies anywhere in particular and every call is false. The baseline takes all cells as one: the share of
    a gene's transcripts in the nucleus, or their mean distance from the centre, against those of all transcripts. It
    has no answer for the other patterns.
    """

    name = "patterns"
    title = "Where in the cell genes lie"
    needs = ("transcripts", "places")
    errors = (CALLED,)

    def methods(self, given: Sequence[Method]) -> Sequence[Method]:
        """Return the one method of its own."""
        return (Own(PERMUTED, ""),)

    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge each pattern over resampled genes."""
        transcripts, rows = data.transcripts
        of_half = halves(data.table)[rows]
        parts = [_tested(transcripts.of_cells(np.flatnonzero(of_half == half)), data) for half in range(2)]
        anew = _tested(dealt_anew(transcripts, settings.seed), data)
        genes = pd.Index(transcripts.genes)
        scores: list[Score] = []
        differences: list[Difference] = []
        left_out = []
        for pattern, dealt in anew.groupby("pattern", sort=False):
            weights = weights_of_genes(genes.get_indexer(pd.Index(dealt["gene"]))[:, None], len(genes), settings)
            names = {method.name: "z"} | ({POOLED: "z_pooled"} if dealt["z_pooled"].notna().all() else {})
            called = {name: share(_called(dealt, z), weights) for name, z in names.items()}
            found = [compared(method.name, called, measure=CALLED, case=str(pattern))]
            if pattern not in _SIDES:
                one, other = (part[part["pattern"] == pattern].set_index("gene").reindex(genes) for part in parts)
                weights = weights_of_genes(np.arange(len(genes))[:, None], len(genes), settings)
                try:
                    agree = {
                        name: agreement(one[z].to_numpy(), other[z].to_numpy(), weights) for name, z in names.items()
                    }
                    found.append(compared(method.name, agree, measure=HALVES, case=str(pattern)))
                except InputError:
                    left_out.append(str(pattern))
            for more, minus in found:
                scores += more
                differences += minus
        notes = [f"{', '.join(left_out)}: too few genes are tested in both halves."] if left_out else []
        return Judged(scores, differences, ("genes", len(genes)), notes)


def _called(table: pd.DataFrame, column: str) -> np.ndarray:
    """Return which genes are called for one pattern."""
    p = table["p"] if column == "z" else norm.sf(table[column])
    return np.asarray(false_discovery_control(p) <= _FDR)


def _tested(transcripts: Transcripts, data: Data) -> pd.DataFrame:
    """Return z and p of each gene and pattern, and z of taking all cells as one where that says something."""
    assert data.run is not None, "transcripts come from it"
    outlines = spaf_data.read_outlines(data.run, transcripts)
    table = spaf_data.subcellular_patterns(transcripts, outlines=outlines).table
    pooled = {"nuclear": _pooled(transcripts, np.asarray(transcripts.in_nucleus, dtype=np.float64))}
    cell = transcripts.cell
    n = np.maximum(np.diff(transcripts.offsets), 1)
    squared = np.zeros(transcripts.n_transcripts)
    for values in (np.asarray(transcripts.x, np.float64), np.asarray(transcripts.y, np.float64)):
        squared += (values - (np.bincount(cell, values, len(n)) / n)[cell]) ** 2
    pooled["central"] = _pooled(transcripts, -np.sqrt(squared))
    z = pd.concat({name: pd.Series(values, transcripts.genes) for name, values in pooled.items()})
    return table.assign(z_pooled=z.reindex(pd.MultiIndex.from_frame(table[["pattern", "gene"]])).to_numpy())


def _pooled(transcripts: Transcripts, values: np.ndarray) -> np.ndarray:
    """Return how far the mean over the transcripts of each gene lies from that of all, in standard errors."""
    n = np.bincount(transcripts.gene, minlength=transcripts.n_genes)
    total = np.bincount(transcripts.gene, weights=values, minlength=transcripts.n_genes)
    error = values.std() * np.sqrt(n)
    z: np.ndarray = np.divide(total - n * values.mean(), error, out=np.full(len(n), np.nan), where=error > 0)
    return z
