"""Cell types around each other: whether what one half of a tissue says holds in the other half."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spaf_analysis.benchmark.base import Difference, Judged, Method, Own, Score, Settings, Task
from spaf_analysis.benchmark.tasks._asked import labelled
from spaf_analysis.benchmark.tasks._replication import Drawn, compared, halves
from spaf_analysis.errors import InputError
from spaf_analysis.keys import SLIDE, TYPE_PAIRS
from spaf_analysis.tables import slide_names
from spaf_analysis.type_pairs.tool import type_pairs

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from spaf_analysis.benchmark.data import Data

OBSERVED = "enrichment of the other half"
RANDOM = "random labelling"
MISFIT = "root mean square of log2 observed over foretold"
_LEAST = 6  # pairs of types


@dataclasses.dataclass(frozen=True, kw_only=True)
class TypePairs(Task):
    """Neighbours of each pair of types in one half of each slide, as foretold by the enrichment in the other half.

    Both halves are held against their own exact expectation under random labelling, which is the baseline: it foretells
    an enrichment of 1. Where the labels of each slide are shuffled there is nothing to foretell, and the other half
    should not be better than it. Intervals are over resampled types.
    """

    radius: float | None = None  # um; None: that of the cell graph
    min_expected: float = 20.0  # neighbours of a pair of types, in either half

    name = "type-pairs"
    title = "Cell types around each other"
    needs = ("label", "places")
    errors = (MISFIT,)

    def __post_init__(self) -> None:
        for option, value in (("radius", self.radius), ("min_expected", self.min_expected)):
            if value is not None and not value > 0:
                raise InputError(f"{option} must be above 0, not {value:g}.")

    def methods(self, given: Sequence[Method]) -> Sequence[Method]:
        """Return the one method of its own."""
        return (Own(OBSERVED, ""),)

    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge pairs of types, as cells lie and with labels shuffled."""
        table, label = labelled(data), str(data.options.label)
        shuffled = table.copy()
        shuffled.obs[label] = _within(
            table.obs[label].astype(str).to_numpy(), slide_names(table), np.random.default_rng([settings.seed, 11])
        )
        scores: list[Score] = []
        differences: list[Difference] = []
        n_pairs = []
        for case, one in (("as cells lie", table), ("labels shuffled", shuffled)):
            pairs = self._of_halves(one, label)
            n_pairs.append(len(pairs))
            weights = _weights(pairs[["of", "around"]].to_numpy(), settings)
            away = {method.name: pairs["first"] - pairs["second"], RANDOM: -pairs["second"]}
            found: dict[str, Drawn] = {name: _rms(values.to_numpy(), weights) for name, values in away.items()}
            more, minus = compared(method.name, found, measure=MISFIT, case=case)
            scores += more
            differences += minus
        note = f"{n_pairs[0]} pairs of types are frequent enough in both halves, {n_pairs[1]} with labels shuffled."
        return Judged(scores, differences, ("types", table.obs[label].nunique()), [note])

    def _of_halves(self, table: ad.AnnData, label: str) -> pd.DataFrame:
        """Return log2 of observed over expected in either half, of each pair of types once."""
        of_half, logs = halves(table), []
        for half in range(2):
            part = table[of_half == half].copy()
            part.obs[SLIDE] = slide_names(part)
            type_pairs(part, cell_type=label, radius=self.radius)
            found = part.uns[TYPE_PAIRS]["table"]
            frequent = found[(found["expected"] >= self.min_expected) & (found["of"] <= found["around"])]
            # A half more keeps what was never seen finite.
            ratio = np.log2((frequent["observed"] + 0.5) / (frequent["expected"] + 0.5))
            logs.append(ratio.set_axis(pd.MultiIndex.from_frame(frequent[["of", "around"]])))
        both: pd.DataFrame = pd.concat(logs, axis=1, join="inner", keys=["first", "second"]).reset_index()
        if len(both) < _LEAST:
            raise InputError(
                f"{len(both)} pairs of types have {self.min_expected:g} expected neighbours in both halves; {_LEAST} "
                "are needed."
            )
        return both


def _weights(pairs: NDArray[np.object_], settings: Settings) -> NDArray[np.float64]:
    """Return how often each pair is drawn where types are drawn with replacement; a type with itself as one."""
    types, code = np.unique(pairs.astype(str), return_inverse=True)
    one, other = code.reshape(pairs.shape).T
    rng = np.random.default_rng([settings.seed, 7])
    times = rng.multinomial(len(types), np.full(len(types), 1 / len(types)), settings.replicates)
    weights: NDArray[np.float64] = np.where(one == other, times[:, one], times[:, one] * times[:, other]).astype(float)
    return weights


def _rms(away: NDArray[np.float64], weights: NDArray[np.float64]) -> Drawn:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt(np.mean(away**2))), np.sqrt(weights @ away**2 / weights.sum(axis=1))


def _within(labels: NDArray[np.str_], slide: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.str_]:
    """Return labels where the cells of one slide changed theirs."""
    order = np.argsort(slide, kind="stable")
    found = np.array(labels)
    found[order] = labels[np.lexsort((rng.random(len(slide)), slide))]
    return found
