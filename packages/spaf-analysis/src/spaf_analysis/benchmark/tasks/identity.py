"""What a cell is: a linear probe of an embedding alone, beside regressions that need no model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.annotate.compute import EMBEDDING, judge_methods
from spaf_analysis.annotate.features import finite, of_counts
from spaf_analysis.benchmark.base import Judged, Method, Settings, Task
from spaf_analysis.benchmark.tasks._predictions import MAJORITY, check_parts, judged_predictions, majority

if TYPE_CHECKING:
    from spaf_analysis.benchmark.data import Data

RANDOM = "random numbers"
_DIMENSIONS = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity(Task):
    """Labels of parts that were held out, by a linear probe fitted on the others; penalties are chosen there too."""

    name = "identity"
    title = "What a cell is: a linear probe"
    needs = ("label",)

    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge a probe of the embedding beside those of log counts and of principal components, and k-NN."""
        codes, names = data.codes(str(data.options.label))
        rows = np.flatnonzero(codes >= 0)
        folds = data.folds(rows, seed=settings.seed)
        check_parts(folds, data)
        embedding = finite(method.embed(data)[rows])
        predicted = {method.name: _predicted({EMBEDDING: embedding}, codes[rows], folds, len(names))[EMBEDDING]}
        predicted |= data.once(
            ("identity", settings.seed), lambda: _baselines(data, rows, codes[rows], folds, len(names), settings.seed)
        )
        return judged_predictions(
            data, rows, codes[rows], predicted, len(names), settings, controls=(MAJORITY, RANDOM)
        )  # fmt: skip


def _baselines(
    data: Data, rows: NDArray[np.int64], codes: NDArray[np.int64], folds: NDArray[np.int64], n: int, seed: int
) -> dict[str, NDArray[np.integer]]:
    features = of_counts(sparse.csr_matrix(data.table.X)[rows], np.arange(rows.size))
    drawn = np.random.default_rng(seed).normal(size=(rows.size, _DIMENSIONS)).astype(np.float32)
    random = _predicted({EMBEDDING: drawn}, codes, folds, n)[EMBEDDING]
    return _predicted(features, codes, folds, n) | {RANDOM: random, MAJORITY: majority(codes, folds)}


def _predicted(
    features: dict[str, NDArray[np.float32]], codes: NDArray[np.int64], folds: NDArray[np.int64], n: int
) -> dict[str, NDArray[np.integer]]:
    held = judge_methods(features, codes, folds, n)[1]
    return {name: logits.argmax(axis=1) for name, logits in held.items()}
