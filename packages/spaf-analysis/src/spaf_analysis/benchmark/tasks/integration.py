"""Batches mixed and identity kept, beside principal components in three recipes, each after Harmony too."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.benchmark.base import BASELINE, CONTROL, METHOD, Difference, Judged, Method, Score, Settings, Task
from spaf_analysis.errors import InputError
from spaf_analysis.integrate.baselines import (
    PROJECTION_ROW,
    RANDOM_ROW,
    baseline_embeddings,
    harmony,
    has_harmony,
)
from spaf_analysis.integrate.judging import judge_integration
from spaf_analysis.integrate.tool import WITH_HARMONY
from spaf_analysis.tables import labels_of

if TYPE_CHECKING:
    from spaf_analysis.benchmark.base import Role
    from spaf_analysis.benchmark.data import Data

_MEASURES = {"nmi": "NMI", "ari": "ARI", "purity": "purity", "cilisi": "CiLISI"}
_CONTROLS = (PROJECTION_ROW, RANDOM_ROW)
_LEAST = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Integration(Task):
    """The embedding as it is and after Harmony, as `spaf-analysis integrate` judges it."""

    max_cells: int = 5_000  # of more cells as many are drawn by the seed

    name = "integration"
    title = "Batches mixed, identity kept"
    needs = ("label", "batch")
    # Whoever mixes most of those that keep no identity is nothing to beat.
    chosen_by = {"CiLISI": "purity"}  # noqa: RUF012

    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge identity and mixing beside every baseline."""
        embedding = method.embed(data)
        codes, _ = data.codes(str(data.options.label))
        batch, _ = labels_of(data.table, str(data.batch), "batch")
        cells = np.flatnonzero(np.isfinite(embedding).all(axis=1) & (codes >= 0) & (batch >= 0))
        if cells.size > self.max_cells:
            rng = np.random.default_rng(settings.seed)
            cells = np.sort(rng.choice(cells, self.max_cells, replace=False))
        of_batch = np.unique(batch[cells], return_inverse=True)[1].ravel()
        of_label = np.unique(codes[cells], return_inverse=True)[1].ravel()
        if cells.size < _LEAST or of_batch.max(initial=0) < 1 or of_label.max(initial=0) < 1:
            raise InputError(
                f"{cells.size} cells have an embedding, a label and a batch; {_LEAST} of 2 labels and batches are "
                "needed."
            )
        ours = _after_harmony({method.name: embedding[cells]}, of_batch, settings.seed)
        baselines = data.once(
            ("integration", cells.tobytes(), settings.seed), lambda: _baselines(data, cells, of_batch, settings.seed)
        )
        unit, what = data.units(cells)
        against = tuple(name for name in baselines if name not in _CONTROLS)
        found = judge_integration(
            ours | baselines, of_batch, of_label, unit, against=against, n_replicates=settings.replicates,
            seed=settings.seed,
        )  # fmt: skip

        def role(name: str) -> Role:
            return METHOD if name in ours else CONTROL if name in _CONTROLS else BASELINE

        scores = [
            Score(
                name=row["method"], role=role(row["method"]), measure=title, value=row[measure],
                low=row[f"{measure}_low"], high=row[f"{measure}_high"],
            )
            for row in found.scores.to_dict(orient="records")
            for measure, title in _MEASURES.items()
        ]  # fmt: skip
        differences = [
            Difference(
                name=row["method"], baseline=row["baseline"], measure=_MEASURES[row["metric"]],
                value=row["difference"], low=row["low"], high=row["high"],
                verdict=row["verdict"] if row["verdict"] == "costs identity" else "",
            )
            for row in found.differences.to_dict(orient="records")
            if row["method"] in ours and row["metric"] in _MEASURES
        ]  # fmt: skip
        notes = [] if has_harmony() else ["Harmony was not run: install the extra spaf-analysis[integration]."]
        return Judged(scores, differences, (what, int(unit.max()) + 1), notes)


def _after_harmony(
    embeddings: dict[str, NDArray[np.float64]], batch: NDArray[np.int64], seed: int
) -> dict[str, NDArray[np.float64]]:
    found: dict[str, NDArray[np.float64]] = {}
    for name, values in embeddings.items():
        found[name] = values
        if has_harmony() and name not in _CONTROLS:
            found[name + WITH_HARMONY] = harmony(values, batch, seed=seed)
    return found


def _baselines(
    data: Data, cells: NDArray[np.int64], batch: NDArray[np.int64], seed: int
) -> dict[str, NDArray[np.float64]]:
    return _after_harmony(baseline_embeddings(sparse.csr_matrix(data.table.X)[cells], seed=seed), batch, seed)
