"""Do neighbours look like neighbours in an embedding? At each radius, against cells far away and not so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

import spaf_data
from spaf_analysis.benchmark.base import BASELINE, METHOD, Difference, Judged, Method, Score, Settings, Task
from spaf_analysis.cell_pairs.compute import SCORES
from spaf_analysis.cell_pairs.tool import benchmark_cell_pairs, distances_of
from spaf_analysis.errors import InputError
from spaf_analysis.keys import EMBEDDING, SPLIT, TRAIN, VALIDATION
from spaf_analysis.metrics import EMBEDDING as COSINE
from spaf_analysis.tables import places_of, slide_names

if TYPE_CHECKING:
    import anndata as ad

    from spaf_analysis.benchmark.data import Data

_AWAY = {"easy": "far", "hard": "hard"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellPairs(Task):
    """The cosine of two cells, seen from the centre of their slide, as `spaf-analysis cell-pairs` judges it.

    Judged are the cells of ``obs["split"] == "validation"`` where the data have that; else whole slides or donors where
    those are the parts, or a region of each slide, with a gap.
    """

    radii: tuple[float, ...] | None = None  # um; None: those that follow the cell graph
    max_pairs: int = 2_000  # positive pairs at each radius
    tower: bool = True  # train a small network by contrast of neighbours, as a baseline

    name = "cell-pairs"
    title = "Do neighbours look like neighbours?"
    needs = ("places",)

    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge the cosine beside all baselines of cell pairs."""
        split = _split(data)
        table: ad.AnnData = data.table.copy()
        table.obs[SPLIT] = split
        table.obsm[EMBEDDING] = method.embed(data, np.flatnonzero(split == TRAIN))
        found = benchmark_cell_pairs(
            table, key=EMBEDDING, radii=self.radii, max_pairs=self.max_pairs, tower=self.tower,
            n_replicates=settings.replicates, seed=settings.seed,
        )  # fmt: skip
        judged = found.evaluation
        if judged is None:
            raise InputError(f"cell pairs cannot be judged: {found.reason}.")
        scores = [
            Score(
                name=method.name if row["score"] == COSINE else SCORES[row["score"]],
                role=METHOD if row["score"] == COSINE else BASELINE, case=_case(row), measure="AUROC",
                value=row["auroc"], low=row["auroc_low"], high=row["auroc_high"],
            )
            for row in judged.scores.to_dict(orient="records")
        ]  # fmt: skip
        differences = [
            Difference(
                name=method.name, baseline=SCORES[row["baseline"]], case=_case(row), measure="AUROC",
                value=row["auroc"], low=row["auroc_low"], high=row["auroc_high"],
            )
            for row in judged.differences.to_dict(orient="records")
            if row["score"] == COSINE
        ]  # fmt: skip
        notes = [f"{found.n_validation:,} cells are judged, and {found.n_train:,} are fitted on."]
        return Judged(scores, differences, ("tiles", judged.tiles.n), notes)


def _case(row: dict[Hashable, Any]) -> str:
    return f"{row['radius']:g} um, {_AWAY[str(row['negatives'])]}"


def _split(data: Data) -> np.ndarray:
    table = data.table
    if SPLIT in table.obs:
        given = table.obs[SPLIT].astype(str).to_numpy()
        if {TRAIN, VALIDATION} <= set(given):
            return np.asarray(given)
    if data.options.parts in ("slides", "donors"):
        held = data.folds(np.arange(table.n_obs)) == 0
        if not held.all():
            return np.where(held, VALIDATION, TRAIN)
    gap = max(spaf_data.defaults.GAP, 2.0 * distances_of(table).positive)
    split = spaf_data.split_regions(places_of(table), gap=gap, validation_fraction=1 / 3, slide=slide_names(table))
    return np.asarray(split)
