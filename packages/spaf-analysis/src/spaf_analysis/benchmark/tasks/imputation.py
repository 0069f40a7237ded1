"""Genes that are held out, from cells of other parts or of a reference that measured them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.benchmark.base import BASELINE, METHOD, Difference, Judged, Method, Own, Score, Settings, Task
from spaf_analysis.benchmark.tasks._predictions import check_parts
from spaf_analysis.errors import InputError
from spaf_analysis.genes import shared_genes
from spaf_analysis.imputation import fit_imputation
from spaf_analysis.imputation.spaces import log_counts
from spaf_analysis.metrics import percentile_interval

if TYPE_CHECKING:
    from spaf_analysis.benchmark.base import Role
    from spaf_analysis.benchmark.data import Data

AUTO = "impute"
_MEASURE = "Pearson"
_HELD = 3  # one gene in so many is held out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imputation(Task):
    """A third of the genes of one part, by the cells of the others or by the reference that the data set names.

    Judged is the mean over genes of the correlation over cells of what `spaf-analysis impute` chooses, beside each of
    its ways by itself: k-NN, SpaGE's and ridge regression among them. What is held out has no part in the choice.
    """

    name = "imputation"
    title = "Genes that were not measured"

    def unasked(self, data: Data) -> str:
        """Ask of tissue, or of what has a reference."""
        return "" if data.has_places or data.options.reference else "cells have no places and there is no reference"

    def methods(self, given: Sequence[Method]) -> Sequence[Method]:
        """Return the one method of its own."""
        return (Own(AUTO, ""),)

    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge held-out genes over resampled genes."""
        query, reference, names = _tables(data, settings.seed)
        truth = log_counts(query).toarray()
        varies = np.flatnonzero((truth.std(axis=0) > 0) & (np.asarray(reference.sum(axis=0)).ravel() > 0))
        held = np.zeros(len(names), dtype=bool)
        held[np.random.default_rng(settings.seed).permutation(varies)[: varies.size // _HELD]] = True
        if not held.any():
            raise InputError(f"{varies.size} genes vary in both; {_HELD} are needed to hold one out.")
        every = np.array(names, dtype=object)
        found = fit_imputation(
            query[:, ~held], reference[:, ~held], reference[:, held], [*every[~held], *every[held]], seed=settings.seed,
            depth=np.asarray(reference.sum(axis=1), dtype=np.float64).ravel(),
        )  # fmt: skip
        part, rows = found.parts[-1], np.arange(query.shape[0])
        genes = np.arange(part.genes.size)
        accuracy = {method.name: _correlations(found.dense(), truth[:, held])}
        accuracy |= {
            way.name: _correlations(np.asarray(way.predict(rows, genes)), truth[:, held]) for way in part.ways
        }  # fmt: skip
        draws = np.random.default_rng([settings.seed, 4]).integers(0, genes.size, (settings.replicates, genes.size))
        scores, differences = [], []
        for name, values in accuracy.items():
            role: Role = METHOD if name == method.name else BASELINE
            value, low, high = percentile_interval(float(values.mean()), values[draws].mean(axis=1))
            scores.append(Score(name=name, role=role, measure=_MEASURE, value=value, low=low, high=high))
            if role == BASELINE:
                minus = accuracy[method.name] - values
                value, low, high = percentile_interval(float(minus.mean()), minus[draws].mean(axis=1))
                differences.append(
                    Difference(name=method.name, baseline=name, measure=_MEASURE, value=value, low=low, high=high)
                )
        return Judged(scores, differences, ("genes", genes.size), [f"{AUTO} took {found.method}."])


def _tables(data: Data, seed: int) -> tuple[sparse.csr_matrix, sparse.csr_matrix, list[str]]:
    """Return counts of the query and of the reference over the genes of both, and their names."""
    if data.reference is not None:
        shared = shared_genes(data.table, data.reference, (f"data set {data.name!r}", "the reference"))
        return shared.counts(data.table.X, 0), shared.counts(data.reference.X, 1), list(shared.names)
    rows = np.arange(data.table.n_obs)
    folds = data.folds(rows, seed=seed)
    check_parts(folds, data)
    counts = sparse.csr_matrix(data.table.X)
    return counts[folds == 0], counts[folds != 0], data.table.var_names.astype(str).tolist()


def _correlations(found: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the correlation over cells of each gene; 0 where what was found does not vary."""
    found, truth = found - found.mean(axis=0), truth - truth.mean(axis=0)
    size = np.sqrt((found**2).sum(axis=0) * (truth**2).sum(axis=0))
    correlations: NDArray[np.float64] = np.divide(
        (found * truth).sum(axis=0), size, out=np.zeros(len(size)), where=size > 1e-9
    )
    return correlations
