"""Cell pairs: how well models of any family tell neighbours, beside what principal components say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_data import Distances
from spaf_model import CellCounts, Model, ScoresPairs
from spaf_train.evaluation.bootstrap import interval_columns, pair_weights
from spaf_train.evaluation.calibration import calibration_error, operating_point, reliability_table
from spaf_train.evaluation.cell_pairs import CellPairEvaluation, PairScore
from spaf_train.evaluation.judging import (
    EMBEDDING,
    RANDOM,
    cells_in_pairs,
    centred_cosine,
    judge_cell_pairs,
    judged_pairs,
)
from spaf_train.evaluation.pairs import NEGATIVES, MatchedPairs, can_be_judged
from spaf_train.evaluation.random_encoder import random_twin

if TYPE_CHECKING:
    from spaf_train.evaluation.calibrated_cosine import CalibratedCosine
    from spaf_train.evaluation.cells import CorpusCells, ReadCells
    from spaf_train.evaluation.options import EvaluationOptions

_WHOLE = ""  # the embedding itself, among the parts that a model may give
_POINTS = ["score", "radius", "negatives", "threshold"]
_ERRORS = ["score", "radius"]

__all__ = ["PairHeadEvaluation", "evaluate_pair_models", "judged_pairs"]


@dataclasses.dataclass(frozen=True)
class PairHeadEvaluation:
    """Cell pairs judged, and what the probabilities of the model are worth.

    Attributes
    ----------
    evaluation
        AUROC and AUPRC of all scores, and their differences.
    operating_points
        A row per model that gives a probability, radius and kind of negatives: `score, radius, negatives, threshold,
        sensitivity, specificity` with their bounds.
    calibration
        A row per model: `score, radius, ece, ece_low, ece_high`, at the main radius with both kinds of negatives.
    reliability
        The bins behind it, with `score`; see `reliability_table`.
    """

    evaluation: CellPairEvaluation
    operating_points: pd.DataFrame
    calibration: pd.DataFrame
    reliability: pd.DataFrame


def evaluate_pair_models(
    models: Mapping[str, Model[Any, Any]],
    judged: ReadCells,
    fitted: CorpusCells,
    options: EvaluationOptions,
    distances: Distances = Distances(),
    *,
    heads: Mapping[str, CalibratedCosine] | None = None,
) -> PairHeadEvaluation | None:
    """Judge the pair head and the embedding of models, beside the baselines of `judge_cell_pairs`.

    Parameters
    ----------
    models
        By name, all with one vocabulary; the first is compared with the baselines and with the other models. One that
        cannot tell neighbours (`ScoresPairs`) is judged by the cosine of its embeddings alone.
    judged
        Cells to judge on; each has a gene.
    fitted
        Training cells: baselines are fitted on these.
    options
        Radii, numbers of pairs and replicates, threshold, seed.
    distances
        Of the corpus: of negatives, and the radius that trained baselines are fitted for and calibration is judged at.
    heads
        Of the models whose pairs are told by the cosine of their embeddings, in place of their own head.

    Returns
    -------
    PairHeadEvaluation
        None where the cells are too few or too close together to have neighbours with negatives.
    """
    heads = heads or {}
    seed, n_replicates = options.seed, options.n_replicates
    pairs = judged_pairs(judged.cells, options, distances)
    radii = pairs.radii
    if not can_be_judged(pairs):
        return None
    used = cells_in_pairs(pairs)
    slide = judged.cells.slide
    first = next(iter(models))
    scores: dict[str, PairScore] = {}
    cosines: dict[str, PairScore] = {}
    for name, model in models.items():
        view = _View.of(model, judged, used)
        states = view.states() if name == first or name in heads else None
        if states is not None:
            cosines[name] = centred_cosine(view.on_all(states), slide, used)
        if name in heads:
            scores[name] = partial(_calibrated, heads[name], cosines[name])
        elif isinstance(model, ScoresPairs):
            scores[name] = view.pair_score(states)
    scores[EMBEDDING] = cosines[first]
    scores[RANDOM] = centred_cosine(embedded(random_twin(models[first], seed), judged, used), slide, used)
    evaluation = judge_cell_pairs(pairs, judged.cells, fitted, scores, options=options, distances=distances)
    points: list[dict[str, object]] = []
    errors: list[dict[str, object]] = []
    tables: list[pd.DataFrame] = [reliability_table(np.zeros(0, dtype=bool), np.zeros(0), np.zeros(0))[:0]]
    for name in models:
        if name not in scores:
            continue
        values = evaluation.values[name]
        for radius in radii:
            for kind in NEGATIVES:
                items = _items(pairs, radius, (kind,))
                if not items.labels.size:
                    continue
                weights = items.weights(evaluation, n_replicates, seed)
                both = operating_point(items.labels, items.take(values), weights, threshold=options.threshold)
                row = {"score": name, "radius": radius, "negatives": kind, "threshold": options.threshold}
                points.append(row | interval_columns(sensitivity=both[0], specificity=both[1]))
        main = min(radii, key=lambda radius: abs(radius - distances.positive))
        items = _items(pairs, main, NEGATIVES)
        weights = items.weights(evaluation, n_replicates, seed)
        error = calibration_error(items.labels, items.take(values), weights)
        errors.append({"score": name, "radius": main, **interval_columns(ece=error)})
        table = reliability_table(items.labels, items.take(values), weights[0])
        table.insert(0, "score", name)
        tables.append(table)
    return PairHeadEvaluation(
        evaluation,
        pd.DataFrame(points, columns=None if points else _POINTS),
        pd.DataFrame(errors, columns=None if errors else _ERRORS),
        pd.concat(tables),
    )


@dataclasses.dataclass(frozen=True)
class _Items:
    """Positive and negative pairs of one comparison, as rows of the matched pairs."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    labels: NDArray[np.bool_]
    rows: list[tuple[str, NDArray[np.int64]]]

    def take(self, values: Mapping[str, NDArray[np.floating]]) -> NDArray[np.floating]:
        return np.concatenate([values[kind][rows] for kind, rows in self.rows])

    def weights(self, evaluation: CellPairEvaluation, n_replicates: int, seed: int) -> NDArray[np.float64]:
        """Return weightings x items; the first is the data as they are."""
        drawn = pair_weights(evaluation.tiles, self.left, self.right, n_replicates=n_replicates, seed=seed)
        return np.vstack([np.ones(self.labels.size), drawn])


def _items(pairs: MatchedPairs, radius: float, negatives: tuple[str, ...]) -> _Items:
    per_kind = {kind: pairs.rows(radius, kind) for kind in negatives}
    positive = np.unique(np.concatenate(list(per_kind.values())))
    left, right = [pairs.anchor[positive]], [pairs.neighbour[positive]]
    for kind, rows in per_kind.items():
        left.append(pairs.anchor[rows])
        right.append(pairs.partner(kind)[rows])
    joined = np.concatenate(left)
    labels = np.arange(joined.size) < positive.size
    return _Items(joined, np.concatenate(right), labels, [("neighbour", positive), *per_kind.items()])


@dataclasses.dataclass(frozen=True)
class _View:
    """What a model is given of judged cells: those in pairs, or their slides where it reads whole slides."""

    model: Model[Any, Any]
    counts: CellCounts
    place: NDArray[np.int64]  # (n_judged,), which of the counts each judged cell is; -1 for one that is not read

    @classmethod
    def of(cls, model: Model[Any, Any], cells: ReadCells, used: NDArray[np.int64]) -> _View:
        if model.reads_whole_slides:
            if cells.whole is not None and cells.place is not None:
                return cls(model, cells.whole, cells.place)
            used = np.arange(len(cells))
        place = np.full(len(cells), -1, dtype=np.int64)
        place[used] = np.arange(used.size)
        return cls(model, cells.counts.take(used), place)

    def states(self) -> NDArray[np.float32]:
        """Return the embeddings of the cells that are read."""
        return self.model.embed_counts(self.counts)[_WHOLE]

    def on_all(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return states of what is read as those of all judged cells, 0 for others."""
        whole = np.zeros((self.place.size, states.shape[1]), dtype=np.float32)
        read = self.place >= 0
        whole[read] = states[self.place[read]]
        return whole

    def pair_score(self, states: NDArray[np.float32] | None) -> PairScore:
        """Return the probability of the model's pair head, as a score of pairs of judged cells."""
        assert isinstance(self.model, ScoresPairs), "looked at before"
        return partial(_of_rows, self.model.pair_scorer(self.counts, states), self.place)


def pair_head_score(model: Model[Any, Any], cells: ReadCells, used: NDArray[np.int64]) -> PairScore:
    """Return the probability of a model's pair head as a score of pairs of some of the cells (`cells_in_pairs`)."""
    return _View.of(model, cells, used).pair_score(None)


def embedded(model: Model[Any, Any], cells: ReadCells, used: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the embeddings of some of the cells in rows of all, (n_cells, D)."""
    view = _View.of(model, cells, used)
    return view.on_all(view.states())


def _of_rows(
    score: PairScore, place: NDArray[np.int64], left: NDArray[np.integer], right: NDArray[np.integer]
) -> NDArray[np.floating]:
    return score(place[left], place[right])


def _calibrated(
    head: CalibratedCosine, cosine: PairScore, left: NDArray[np.integer], right: NDArray[np.integer]
) -> NDArray[np.float64]:
    return head.probability(cosine(left, right))
