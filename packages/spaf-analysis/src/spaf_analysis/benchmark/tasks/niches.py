"""Domains by what surrounds a cell against labelled regions."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaf_analysis.benchmark.base import BASELINE, METHOD, Difference, Judged, Method, Score, Settings, Task
from spaf_analysis.keys import EMBEDDING
from spaf_analysis.metrics import spatial_tiles
from spaf_analysis.niches.judging import judge_domains
from spaf_analysis.niches.tool import baseline_domains, niche_domains
from spaf_analysis.tables import places_of, slide_names

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd

    from spaf_analysis.benchmark.base import Role
    from spaf_analysis.benchmark.data import Data
    from spaf_analysis.niches.tool import Inputs

_MEASURES = {"ari": "ARI", "nmi": "NMI"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Niches(Task):
    """As many niches as regions, from the embedding and the counts together, as `spaf-analysis niches` finds them.

    A baseline beside those of `judge_niches` are the niches of the counts alone, which need no model.
    """

    seeds: int = 5  # clusterings, over which the interval goes too
    n_neighbors: int = 15

    name = "niches"
    title = "Niches against regions"
    needs = ("region", "places")

    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge the niches of the embedding and of both inputs beside baselines."""
        codes, names = data.codes(str(data.options.region))
        table = data.table.copy()
        embedding = method.embed(data)
        cells = np.flatnonzero(np.isfinite(embedding).all(axis=1))
        table = table[cells].copy()
        table.obsm[EMBEDDING] = embedding[cells]
        asked = {"both": method.name, "embedding": f"{method.name}, embedding alone"}
        ours = {
            asked[name.removeprefix("niches, ")]: of_seeds
            for name, of_seeds in self._niches(table, len(names), ("both", "embedding")).items()
        }
        baselines = data.once(("niches", cells.tobytes(), self), lambda: self._baselines(table, len(names)))
        tiles = spatial_tiles(places_of(table), slide_names(table))
        scores: list[Score] = []
        differences: list[Difference] = []
        for baseline in baselines:
            judged = judge_domains(
                ours | baselines, codes[cells], tiles, against=baseline, n_replicates=settings.replicates,
                seed=settings.seed,
            ).set_index("method")  # fmt: skip
            for measure, title in _MEASURES.items():
                for name in ours:
                    value, low, high = _of(judged, name, f"{measure}_minus_baseline")
                    differences.append(
                        Difference(name=name, baseline=baseline, measure=title, value=value, low=low, high=high)
                    )
        for name in judged.index.astype(str):
            for measure, title in _MEASURES.items():
                value, low, high = _of(judged, name, measure)
                role: Role = METHOD if name in ours else BASELINE
                scores.append(Score(name=name, role=role, measure=title, value=value, low=low, high=high))
        return Judged(scores, differences, ("tiles", tiles.n))

    def _niches(self, table: ad.AnnData, n: int, inputs: tuple[Inputs, ...]) -> dict[str, list[NDArray[np.int64]]]:
        return niche_domains(table, n, inputs=inputs, n_neighbors=self.n_neighbors, seeds=range(self.seeds))

    def _baselines(self, table: ad.AnnData, n: int) -> dict[str, list[NDArray[np.int64]]]:
        of_counts = self._niches(table, n, ("expression",))
        return of_counts | baseline_domains(table, n, n_neighbors=self.n_neighbors, seeds=range(self.seeds))


def _of(judged: pd.DataFrame, name: str, column: str) -> tuple[float, float, float]:
    value, low, high = judged.loc[[name], [column, f"{column}_low", f"{column}_high"]].to_numpy(dtype=np.float64)[0]
    return float(value), float(low), float(high)
