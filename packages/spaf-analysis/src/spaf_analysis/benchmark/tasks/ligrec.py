"""Ligands beside receptors: random pairs that are called where cells lie anywhere, and the rank of known pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spaf_analysis.benchmark.base import BASELINE, METHOD, Difference, Judged, Method, Own, Score, Settings, Task
from spaf_analysis.benchmark.tasks._asked import labelled
from spaf_analysis.benchmark.tasks._replication import Drawn, compared, share, weights_of_genes
from spaf_analysis.defaults import TILE
from spaf_analysis.errors import InputError
from spaf_analysis.keys import LIGREC, SPATIAL
from spaf_analysis.ligrec.inputs import inputs_of
from spaf_analysis.ligrec.tool import ligrec
from spaf_analysis.metrics import percentile_interval

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from spaf_analysis.benchmark.data import Data

WITHIN = "dealt within type and tile"
ANYWHERE = "dealt among all cells"
FALSE = "share with p of at most .05"
RANK = "mean rank among pairs as frequent"
_ALL = 1e7  # um, a tile that holds everything
_LEAST_GENES = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class LigandReceptor(Task):
    """Random pairs of genes: how many have p of at most .05 where cells changed places within type and tile, and as is.

    In the first nothing but types and tiles decides what lies beside what, so the share should be .05; few random pairs
    are signals, so it should hardly be more in the second. The baseline is the usual null, which deals values anew
    among all cells. Where a resource is named, also how its pairs rank among pairs as frequent, which is .5 for pairs
    that mean nothing.
    """

    resource: str | None = None  # table of pairs, relative to the TOML file, or one of liana's by name
    n_pairs: int = 500  # random ones
    n_shuffles: int = 3  # of the places of cells
    tile: float = TILE  # um
    min_share: float = 0.05  # of the cells in which a gene is seen

    name = "ligrec"
    title = "Ligands beside their receptors"
    needs = ("label", "places")
    errors = (FALSE,)

    def __post_init__(self) -> None:
        for option in ("n_pairs", "n_shuffles", "tile", "min_share"):
            if not getattr(self, option) > 0:
                raise InputError(f"{option} must be above 0, not {getattr(self, option):g}.")

    def methods(self, given: Sequence[Method]) -> Sequence[Method]:
        """Return the one method of its own."""
        return (Own(WITHIN, ""),)

    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge random pairs over resampled genes, and those of the resource over resampled pairs."""
        table, label = labelled(data), str(data.options.label)
        pairs, genes = self._random_pairs(table, settings.seed)
        weights = weights_of_genes(genes, table.n_vars, settings)
        strata = inputs_of(table, cell_type=label, donor=None, bandwidth=30.0, tile=self.tile).stratum
        shuffled = []
        for seed in range(self.n_shuffles):
            other = table.copy()
            other.obsm[SPATIAL] = _within(table.obsm[SPATIAL], strata, np.random.default_rng([settings.seed, seed]))
            shuffled.append(other)
        scores: list[Score] = []
        differences: list[Difference] = []
        for case, tables in (("cells change places", shuffled), ("as cells lie", [table])):
            found: dict[str, Drawn] = {}
            for name in (method.name, ANYWHERE):
                each = [share(self._p(one, pairs, label, name) <= 0.05, weights) for one in tables]
                found[name] = (float(np.mean([value for value, _ in each])), np.mean([d for _, d in each], axis=0))
            more, minus = compared(method.name, found, measure=FALSE, case=case)
            scores += more
            differences += minus
        notes = []
        if self.resource is not None:
            score, chance, minus_chance = self._ranked(data, table, label, method.name, settings)
            scores += [score, chance]
            differences.append(minus_chance)
        else:
            notes.append("no resource is named ([tasks.ligrec] resource), so no known pairs are ranked.")
        return Judged(scores, differences, ("genes", len(np.unique(genes))), notes)

    def _random_pairs(self, table: ad.AnnData, seed: int) -> tuple[pd.DataFrame, NDArray[np.int64]]:
        seen = np.flatnonzero(table.X.getnnz(axis=0) >= self.min_share * table.n_obs)
        if len(seen) < _LEAST_GENES:
            raise InputError(
                f"{len(seen)} genes are seen in {self.min_share:.0%} of the cells; {_LEAST_GENES} are needed."
            )
        rng = np.random.default_rng([seed, 3])
        one, other = np.triu_indices(len(seen), 1)
        some = rng.permutation(len(one))[: self.n_pairs]
        genes = rng.permuted(np.stack([seen[one[some]], seen[other[some]]], axis=1), axis=1)
        names = table.var_names.to_numpy().astype(str)[genes]
        return pd.DataFrame(names, columns=["ligand", "receptor"]), genes

    def _p(self, table: ad.AnnData, pairs: pd.DataFrame, label: str, name: str) -> NDArray[np.float64]:
        """Return p of each pair under one null; 1 of those that cannot be tested."""
        strata: dict[str, Any] = {"cell_type": label, "tile": self.tile} if name == WITHIN else {"tile": _ALL}
        ligrec(table, resource=pairs, n_matched=1, min_cells=1, **strata)
        found = table.uns[LIGREC]["table"].set_index(["ligand", "receptor"])["p"]
        p = found.reindex(pd.MultiIndex.from_frame(pairs)).to_numpy(dtype=np.float64)
        return np.asarray(np.nan_to_num(p, nan=1.0))

    def _ranked(
        self, data: Data, table: ad.AnnData, label: str, name: str, settings: Settings
    ) -> tuple[Score, Score, Difference]:
        file = data.folder / str(self.resource)
        ligrec(table, resource=file if file.is_file() else str(self.resource), cell_type=label, tile=self.tile)
        ranks = table.uns[LIGREC]["table"]["rank"].dropna().to_numpy(dtype=np.float64)
        if not len(ranks):
            raise InputError(f"no pair of {self.resource} could be ranked.")
        draws = np.random.default_rng([settings.seed, 5]).integers(0, len(ranks), (settings.replicates, len(ranks)))
        value, low, high = percentile_interval(float(ranks.mean()), ranks[draws].mean(axis=1))
        case, chance = f"{len(ranks)} pairs of the resource", "chance"
        return (
            Score(name=name, role=METHOD, case=case, measure=RANK, value=value, low=low, high=high),
            Score(name=chance, role=BASELINE, case=case, measure=RANK, value=0.5),
            Difference(
                name=name, baseline=chance, case=case, measure=RANK, value=value - 0.5, low=low - 0.5, high=high - 0.5
            ),
        )


def _within(places: NDArray[np.float64], stratum: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the places of cells where those of one stratum changed theirs."""
    found = np.array(places)
    order = np.argsort(stratum, kind="stable")
    found[order] = found[np.lexsort((rng.random(len(stratum)), stratum))]
    return found
