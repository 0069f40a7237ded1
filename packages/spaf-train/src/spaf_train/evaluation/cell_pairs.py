"""How well scores of cell pairs tell neighbours from other cells: AUROC and AUPRC with intervals, side by side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_model import InputError
from spaf_train.evaluation.bootstrap import Interval, Tiles, interval_columns, pair_weights, spatial_tiles
from spaf_train.evaluation.discrimination import Discrimination, discrimination
from spaf_train.evaluation.pairs import NEGATIVES, MatchedPairs

PairScore = Callable[[NDArray[np.integer], NDArray[np.integer]], NDArray[np.floating]]


@dataclass(frozen=True)
class CellPairEvaluation:
    """Scores of cell pairs judged on one set of pairs.

    Attributes
    ----------
    scores
        A row per score, radius and kind of negatives: `score, radius, negatives, n_positives`, then `auroc, auroc_low,
        auroc_high` and the same for `auprc`.
    differences
        A row per pair of scores, radius and kind of negatives: `score, baseline, radius, negatives`, then `auroc`
        (score minus baseline on the same resampled tissues), `auroc_low, auroc_high`, and the same for `auprc`.
    tiles
        The tiles of tissue that were resampled.
    n_pairs
        Number of different rows of positives with their negatives that were scored.
    values
        For each score its values along the rows of the pairs: of the `"neighbour"` pairs and of the negatives of each
        kind, NaN where there is no negative.
    """

    scores: pd.DataFrame
    differences: pd.DataFrame
    tiles: Tiles
    n_pairs: int
    values: Mapping[str, Mapping[str, NDArray[np.floating]]] = field(default_factory=dict)

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Kinds of negatives that no pair of neighbours has, so that nothing could be judged against them."""
        return tuple(kind for kind in NEGATIVES if not (self.scores["negatives"] == kind).any())

    def interval(self, score: str, radius: float, negatives: str, measure: str = "auroc") -> Interval:
        """Return one value with its interval.

        Raises
        ------
        KeyError
            If the score, radius or kind of negatives was not judged.
        """
        table = self.scores
        return _only(table[(table.score == score) & _case(table, radius, negatives)], measure)

    def difference(self, score: str, baseline: str, radius: float, negatives: str, measure: str = "auroc") -> Interval:
        """Return a score minus a baseline, with the interval of the difference.

        Raises
        ------
        KeyError
            If the scores were not compared at this radius and kind of negatives.
        """
        table = self.differences
        same = (table.score == score) & (table.baseline == baseline)
        return _only(table[same & _case(table, radius, negatives)], measure)


def evaluate_cell_pairs(
    pairs: MatchedPairs,
    coordinates: NDArray[np.floating],
    scores: Mapping[str, PairScore],
    *,
    comparisons: Mapping[str, tuple[str, ...]],
    slide: NDArray[np.generic] | None = None,
    cells: NDArray[np.integer] | None = None,
    n_replicates: int = 1_000,
    seed: int = 0,
) -> CellPairEvaluation:
    """Judge scores of cell pairs by how they rank neighbours above matched negatives.

    Parameters
    ----------
    pairs
        The pairs, as indices into `coordinates`.
    coordinates
        Cells x 2, in um: of the cells that the pairs were drawn from.
    scores
        A function per name that takes the cells of the pairs (left, right) and returns a value per pair, higher for
        pairs more like neighbours.
    comparisons
        For a score the baselines that it is compared with.
    slide
        The slide of each cell.
    cells
        What the functions take for each cell of `coordinates` (the position in a larger table); the same index if None.
    n_replicates
        Number of resampled tissues behind each interval.
    seed
        Seed of the resampling.

    Returns
    -------
    CellPairEvaluation
        With 95 % intervals. Combinations without any pair are left out.

    Raises
    ------
    InputError
        If a score is not finite for some pair.
    """
    if cells is None:
        cells = np.arange(len(coordinates))
    tiles = spatial_tiles(coordinates, slide)
    values = {name: _score_rows(name, function, pairs, cells) for name, function in scores.items()}

    rows: list[dict[str, object]] = []
    differences: list[dict[str, object]] = []
    for radius in pairs.radii:
        for negatives in NEGATIVES:
            used = pairs.rows(radius, negatives)
            if not len(used):
                continue
            case = {"radius": radius, "negatives": negatives}
            left = np.concatenate([pairs.anchor[used]] * 2)
            right = np.concatenate([pairs.neighbour[used], pairs.partner(negatives)[used]])
            labels = np.arange(len(left)) < len(used)
            # First row: the data as they are; the others: resampled tissues, the same ones for all scores.
            weights = np.vstack(
                [np.ones(len(left)), pair_weights(tiles, left, right, n_replicates=n_replicates, seed=seed)]
            )
            results: dict[str, Discrimination] = {}
            for name, value in values.items():
                both = np.concatenate([value["neighbour"][used], value[negatives][used]])
                results[name] = discrimination(labels, both, weights)
                rows.append(
                    {"score": name, **case, "n_positives": len(used), **interval_columns(**results[name]._asdict())}
                )
            for name, baselines in comparisons.items():
                for baseline in baselines:
                    minus = interval_columns(**results[name].minus(results[baseline])._asdict())
                    differences.append({"score": name, "baseline": baseline, **case, **minus})
    return CellPairEvaluation(pd.DataFrame(rows), pd.DataFrame(differences), tiles, len(pairs), values)


def _score_rows(
    name: str, function: PairScore, pairs: MatchedPairs, cells: NDArray[np.integer]
) -> dict[str, NDArray[np.floating]]:
    """Values of one score for the neighbours and both negatives of every row; NaN where there is no negative."""
    values = {}
    for kind, partner in {"neighbour": pairs.neighbour, **{kind: pairs.partner(kind) for kind in NEGATIVES}}.items():
        exists = partner >= 0
        values[kind] = np.full(len(pairs), np.nan)
        if not exists.any():  # a small region has no cells far apart
            continue
        values[kind][exists] = function(cells[pairs.anchor[exists]], cells[partner[exists]])
        if not np.isfinite(values[kind][exists]).all():
            raise InputError(f"the score {name!r} is not finite for {int(np.isnan(values[kind][exists]).sum())} pairs.")
    return values


def _case(table: pd.DataFrame, radius: float, negatives: str) -> pd.Series:
    return (table.radius == radius) & (table.negatives == negatives)


def _only(row: pd.DataFrame, measure: str) -> Interval:
    if len(row) != 1:
        raise KeyError("this score, radius and kind of negatives were not judged")
    value, low, high = row[[measure, f"{measure}_low", f"{measure}_high"]].iloc[0]
    return Interval(float(value), float(low), float(high))
