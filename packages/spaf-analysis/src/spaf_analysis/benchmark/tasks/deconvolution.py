"""What spots are made of, where that is known: squares of labelled cells that were added up."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.benchmark.base import (
    BASELINE,
    CONTROL,
    METHOD,
    Difference,
    Judged,
    Method,
    Own,
    Score,
    Settings,
    Task,
)
from spaf_analysis.deconvolution import METHODS, accuracy, deconvolve_counts, spots_of_tissue
from spaf_analysis.errors import InputError
from spaf_analysis.metrics import percentile_interval
from spaf_analysis.tables import places_of

if TYPE_CHECKING:
    from spaf_analysis.benchmark.base import Role
    from spaf_analysis.benchmark.data import Data
    from spaf_analysis.deconvolution.methods import Method as HowTo

AUTO, FREQUENCIES = "deconvolve", "frequencies of the reference"
_MEASURES = ("RMSE", "Pearson")
_FEWEST = 10  # spots


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deconvolution(Task):
    """Spots made of the cells of one part, by the cells of the others; embeddings have no part in it.

    What is judged is the method that `spaf-analysis deconvolve` chooses, beside each by itself.
    """

    name = "deconvolution"
    title = "What spots are made of"
    needs = ("label", "places")
    errors = ("RMSE",)

    def methods(self, given: Sequence[Method]) -> Sequence[Method]:
        """Return the one method of its own."""
        return (Own(AUTO, ""),)

    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge proportions over resampled spots."""
        codes, names = data.codes(str(data.options.label))
        rows = np.flatnonzero(codes >= 0)
        held = data.folds(rows, seed=settings.seed) == 0
        counts, labels = sparse.csr_matrix(data.table.X)[rows], np.array(names)[codes[rows]]
        known = np.isin(labels, np.unique(labels[~held]))
        made = spots_of_tissue(
            counts[held & known], labels[held & known], places_of(data.table)[rows][held & known],
            width=data.options.spot,
        )  # fmt: skip
        n_spots = made.counts.shape[0]
        if n_spots < _FEWEST:
            raise InputError(f"only {n_spots} squares of {data.options.spot:g} um hold labelled cells; make spot less.")
        types = np.unique(labels[~held]).tolist()
        truth = np.zeros((n_spots, len(types)))
        truth[:, [types.index(name) for name in made.types]] = made.proportions
        found: dict[str, NDArray[np.float64]] = {}
        chosen = ""
        asked: tuple[HowTo | Literal["auto"], ...] = ("auto", *METHODS)
        for how in asked:
            result = deconvolve_counts(
                made.counts, counts[~held], labels[~held], method=how, n_replicates=0, seed=settings.seed
            )  # fmt: skip
            found[method.name if how == "auto" else how] = result.cells
            chosen = result.method if how == "auto" else chosen
        shares = np.array([(labels[~held] == name).mean() for name in types])
        found[FREQUENCIES] = np.tile(shares, (n_spots, 1))
        values = _replicates(found, truth, settings)
        scores, differences = [], []
        for name, of_name in values.items():
            role: Role = METHOD if name == method.name else CONTROL if name == FREQUENCIES else BASELINE
            for measure, drawn in zip(_MEASURES, of_name.T, strict=True):
                value, low, high = percentile_interval(drawn[0], drawn[1:])
                scores.append(Score(name=name, role=role, measure=measure, value=value, low=low, high=high))
        for name in METHODS:
            for measure, drawn in zip(_MEASURES, (values[method.name] - values[name]).T, strict=True):
                value, low, high = percentile_interval(drawn[0], drawn[1:])
                differences.append(
                    Difference(name=method.name, baseline=name, measure=measure, value=value, low=low, high=high)
                )
        notes = [f"Spots are squares of {data.options.spot:g} um; deconvolve took {chosen}."]
        return Judged(scores, differences, ("spots", n_spots), notes)


def _replicates(
    found: dict[str, NDArray[np.float64]], truth: NDArray[np.float64], settings: Settings
) -> dict[str, NDArray[np.float64]]:
    """Return error and correlation on the spots as they are, then on every draw, (1 + n_draws, 2)."""
    rng = np.random.default_rng([settings.seed, 3])
    draws = [np.arange(len(truth)), *rng.integers(len(truth), size=(settings.replicates, len(truth)))]
    return {
        name: np.array([accuracy(shares[drawn], truth[drawn]) for drawn in draws]) for name, shares in found.items()
    }
