"""Genes of neighbours that act together, by whether halves of the tissue agree and what is called where cells moved."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spaf_analysis.benchmark.base import Difference, Judged, Method, Score, Settings, Task
from spaf_analysis.benchmark.tasks._asked import chosen_types, labelled, model_that
from spaf_analysis.benchmark.tasks._replication import HALVES, agreement, compared, halves, share, weights_of_genes
from spaf_analysis.defaults import MAX_CELL_PAIRS, MIN_CELL_PAIRS
from spaf_analysis.errors import InputError
from spaf_analysis.keys import PERTURBATION, SPATIAL
from spaf_analysis.perturbation.tool import perturb
from spaf_model import PerturbedPair, PerturbsPairs

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from spaf_analysis.benchmark.data import Data

PRODUCT = "product of amounts"
FALSE = "share with p of at most .05, cells of a type dealt anew"
_GENES = ["gene_left", "gene_right"]


class ProductOfAmounts:
    """What needs no model: the score of two cells is the sum over all gene pairs of the product of their log counts."""

    compares_states = True
    source = PRODUCT

    def perturb_pairs(self, adata: Any, left: Any, right: Any, **options: Any) -> Iterator[PerturbedPair]:
        """Yield what each gene, and each pair of genes, does to the sum."""
        for one, other in zip(left, right, strict=True):
            a, b = (np.log1p(np.asarray(adata.X[cell].toarray(), dtype=np.float64).ravel()) for cell in (one, other))
            i, j = np.flatnonzero(a), np.flatnonzero(b)
            both = np.outer(a[i], b[j])
            yield PerturbedPair(float(both.sum()), i, j, -both.sum(axis=1), -both.sum(axis=0), both)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perturbation(Task):
    """Standard scores of gene pairs in halves of each slide, and p where the cells of each type changed places.

    Then near and far mean nothing and the share of p at most .05 should be .05. The baseline puts the product of the
    amounts of both genes in the place of a model's interaction.
    """

    left: str | None = None  # type of the one cell; None: the most frequent of the labels
    right: str | None = None  # and of the other; None: the same as the left
    max_pairs: int = MAX_CELL_PAIRS
    min_pairs: int = MIN_CELL_PAIRS  # near and far ones that must have both genes
    n_shuffles: int = 2
    n_permutations: int = 1_000
    screen: float = 0.125  # see `tl.perturb`

    name = "perturbation"
    title = "Genes of neighbours that act together"
    needs = ("label", "places")
    errors = (FALSE,)

    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge gene pairs over resampled genes."""
        model = model_that(method, data, PerturbsPairs)
        table = labelled(data)
        types = chosen_types(table, data, self.left, self.right)
        of_half = halves(table)
        parts = [table[of_half == half].copy() for half in range(2)]
        anew = [_dealt_anew(table, str(data.options.label), seed, settings) for seed in range(self.n_shuffles)]
        asks: dict[str, Any] = {method.name: model, PRODUCT: ProductOfAmounts()}
        results: dict[str, tuple[list[pd.DataFrame], list[pd.DataFrame]]] = {}
        notes = [f"Pairs of {' and '.join(types)}."]
        for name, one in asks.items():
            results[name] = tuple(  # type: ignore[assignment]
                [self._tested(cells, one, types, data, settings) for cells in some] for some in (parts, anew)
            )
            self._tested(table, one, types, data, settings)
            found = table.uns[PERTURBATION]
            notes.append(
                f"{name}: {found['n_called']:,} of {found['n_tested']:,} gene pairs are called, and "
                f"{found['n_controls_called']:,} of their {found['n_controls']:,} controls."
            )
        both = _together([half for of_halves, _ in results.values() for half in of_halves])
        if both.empty:
            raise InputError("no pair of genes is tested in both halves of the tissue.")
        weights = _weights(both.index, table, settings)
        agree, wrong = {}, {}
        for number, (name, (_, shuffled)) in enumerate(results.items()):
            one, other = (both.iloc[:, 2 * number + half].to_numpy(dtype=np.float64) for half in range(2))
            agree[name] = agreement(one, other, weights)
            rows = pd.concat(shuffled)
            flags = (rows["p"] <= 0.05).to_numpy()
            wrong[name] = share(flags, _weights(rows.index, table, settings))
        scores: list[Score] = []
        differences: list[Difference] = []
        for measure, values in ((HALVES, agree), (FALSE, wrong)):
            more, minus = compared(method.name, values, measure=measure)
            scores += more
            differences += minus
        return Judged(scores, differences, ("genes", table.n_vars), notes)

    def _tested(
        self, table: ad.AnnData, model: Any, types: tuple[str, str], data: Data, settings: Settings
    ) -> pd.DataFrame:
        perturb(
            table, model, cell_type=str(data.options.label), left=types[0], right=types[1], max_pairs=self.max_pairs,
            min_pairs=self.min_pairs, screen=self.screen, n_permutations=self.n_permutations, seed=settings.seed,
        )  # fmt: skip
        found: pd.DataFrame = table.uns[PERTURBATION]["table"].set_index(_GENES)[["z", "p"]]
        return found


def _together(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return z of the gene pairs that all know, a column each."""
    return pd.concat([part["z"].rename(str(number)) for number, part in enumerate(parts)], axis=1, join="inner")


def _dealt_anew(table: ad.AnnData, label: str, seed: int, settings: Settings) -> ad.AnnData:
    """Return the cells where those of each type changed places: what a cell is says no more of what lies beside it."""
    found = table.copy()
    rng = np.random.default_rng([settings.seed, seed, 9])
    places = np.asarray(table.obsm[SPATIAL])
    for cells in table.obs.groupby(label, observed=True).indices.values():
        found.obsm[SPATIAL][cells] = places[rng.permutation(cells)]
    return found


def _weights(pairs: pd.Index[Any], table: ad.AnnData, settings: Settings) -> NDArray[np.float64]:
    codes = np.stack([table.var_names.get_indexer(pairs.get_level_values(side)) for side in _GENES], axis=1)
    return weights_of_genes(codes, table.n_vars, settings)
