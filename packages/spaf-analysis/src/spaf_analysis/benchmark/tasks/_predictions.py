"""Predicted labels as rows of the table, judged over resampled tiles of tissue, or cells where there are no places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaf_analysis.benchmark.base import BASELINE, CONTROL, METHOD, Difference, Judged, Role, Score, Settings
from spaf_analysis.errors import InputError
from spaf_analysis.metrics import Tiles
from spaf_train.evaluation import evaluate_predictions, prediction_differences

if TYPE_CHECKING:
    from spaf_analysis.benchmark.data import Data

_MEASURES = {"macro_f1": "macro-F1", "accuracy": "accuracy"}
MAJORITY = "most frequent class"


def judged_predictions(
    data: Data,
    rows: NDArray[np.int64],
    codes: NDArray[np.int64],
    predicted: Mapping[str, NDArray[np.integer]],
    n_classes: int,
    settings: Settings,
    *,
    controls: tuple[str, ...] = (MAJORITY,),
    notes: tuple[str, ...] = (),
) -> Judged:
    """Judge classes of cells, the first of which are those of the method; the others are baselines and controls."""
    code, unit = data.units(rows)
    tiles = Tiles(code, int(code.max()) + 1, float("nan"))
    numbers = {"n_replicates": settings.replicates, "seed": settings.seed}
    scores = evaluate_predictions(codes, predicted, n_classes, tiles, **numbers)
    differences = prediction_differences(codes, predicted, n_classes, tiles, **numbers)
    first = next(iter(predicted))

    def role(name: str) -> Role:
        return METHOD if name == first else CONTROL if name in controls else BASELINE

    return Judged(
        [
            Score(
                name=row["score"], role=role(row["score"]), measure=title, value=row[measure],
                low=row[f"{measure}_low"], high=row[f"{measure}_high"],
            )
            for row in scores.to_dict(orient="records")
            for measure, title in _MEASURES.items()
        ],
        [
            Difference(
                name=first, baseline=row["baseline"], measure=title, value=row[measure],
                low=row[f"{measure}_low"], high=row[f"{measure}_high"],
            )
            for row in differences.to_dict(orient="records")
            for measure, title in _MEASURES.items()
        ],
        (unit, tiles.n),
        notes,
    )  # fmt: skip


def majority(codes: NDArray[np.int64], folds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each cell the class that is most frequent in the other folds."""
    found = np.zeros(codes.size, dtype=np.int64)
    for fold in np.unique(folds):
        held = folds == fold
        if not held.all():
            found[held] = np.bincount(codes[~held]).argmax()
    return found


def check_parts(folds: NDArray[np.int64], data: Data) -> None:
    """Raise `InputError` where there is one part alone, so that nothing could be held out."""
    if np.unique(folds).size < 2:
        raise InputError(f"the labelled cells are all in one part ({data.options.parts}); choose other parts.")
