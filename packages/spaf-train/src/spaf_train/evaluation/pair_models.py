"""Cell pairs: how well a model tells neighbours, beside what principal components say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from spaf_data import Distances
from spaf_model import SpatialFormer, centred_by_slide, embed_cell_pairs, embed_cells
from spaf_train.evaluation.bootstrap import interval_columns, pair_weights
from spaf_train.evaluation.calibration import calibration_error, operating_point, reliability_table
from spaf_train.evaluation.cell_pairs import CellPairEvaluation, PairScore
from spaf_train.evaluation.encoding import inference
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
    from spaf_train.evaluation.cells import CorpusCells, TokenCells
    from spaf_train.evaluation.options import EvaluationOptions

__all__ = ["PairHeadEvaluation", "evaluate_pair_models", "judged_pairs"]


@dataclasses.dataclass(frozen=True)
class PairHeadEvaluation:
    """Cell pairs judged, and what the probabilities of the model are worth.

    Attributes
    ----------
    evaluation
        AUROC and AUPRC of all scores, and their differences.
    operating_points
        A row per model, radius and kind of negatives: `score, radius, negatives, threshold, sensitivity, specificity`
        with their bounds.
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
    models: Mapping[str, SpatialFormer],
    tokens: TokenCells,
    judged: CorpusCells,
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
        By name, all with one vocabulary; the first is compared with the baselines and with the other models.
    tokens
        The judged cells as the models read them; each cell has a gene.
    judged
        Cells to judge on.
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
    seed, n_replicates = options.seed, options.n_replicates
    pairs = judged_pairs(judged, options, distances)
    radii = pairs.radii
    if not can_be_judged(pairs):
        return None
    # Only cells that are in a pair are read.
    used = cells_in_pairs(pairs)
    place = np.full(len(judged), -1, dtype=np.int64)
    place[used] = np.arange(used.size)
    tokens = tokens.take(used)
    first = next(iter(models))
    scores: dict[str, PairScore] = {}
    embeddings: dict[str, NDArray[np.float32]] = {}
    for name, model in models.items():
        if name == first or name in (heads or {}) or model.config.pair_input == "separate":
            embeddings[name] = embed_cells(model.network, model.vocabulary, tokens.ranked, tokens.context)
        scores[name] = pair_head_score(model, tokens, place, embeddings.get(name))
    cosines = {
        name: centred_cosine(_on(judged, used, states), judged.slide, used) for name, states in embeddings.items()
    }
    for name, head in (heads or {}).items():
        scores[name] = partial(_calibrated, head, cosines[name])
    scores[EMBEDDING] = cosines[first]
    twin = random_twin(models[first], seed)
    random = embed_cells(twin.network, twin.vocabulary, tokens.ranked, tokens.context)
    scores[RANDOM] = centred_cosine(_on(judged, used, random), judged.slide, used)
    evaluation = judge_cell_pairs(pairs, judged, fitted, scores, options=options, distances=distances)
    points: list[dict[str, object]] = []
    errors: list[dict[str, object]] = []
    tables: list[pd.DataFrame] = []
    for name in models:
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
    return PairHeadEvaluation(evaluation, pd.DataFrame(points), pd.DataFrame(errors), pd.concat(tables))


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


def pair_head_score(
    model: SpatialFormer,
    tokens: TokenCells,
    place: NDArray[np.int64],
    states: NDArray[np.float32] | None = None,
) -> PairScore:
    """Return the probability of a model's pair head as a score of pairs.

    Parameters
    ----------
    model
        Of either kind of `pair_input`.
    tokens
        Cells as it reads them.
    place
        Which of those each cell that a pair may name is.
    states
        Their embeddings, where they are known.
    """
    if model.config.pair_input != "separate":
        return partial(_read_together, model, tokens, place)
    if states is None:
        states = embed_cells(model.network, model.vocabulary, tokens.ranked, tokens.context)
    if model.config.pair_comparison == "cosine":
        states = centred_by_slide(states, tokens.slide)
    return partial(_compared, model, states, place)


def _on(cells: CorpusCells, used: NDArray[np.int64], states: NDArray[np.float32]) -> NDArray[np.float32]:
    whole = np.zeros((len(cells), states.shape[1]), dtype=np.float32)
    whole[used] = states
    return whole


def _calibrated(
    head: CalibratedCosine, cosine: PairScore, left: NDArray[np.integer], right: NDArray[np.integer]
) -> NDArray[np.float64]:
    return head.probability(cosine(left, right))


def _compared(
    model: SpatialFormer,
    states: NDArray[np.float32],
    place: NDArray[np.int64],
    left: NDArray[np.integer],
    right: NDArray[np.integer],
) -> NDArray[np.float64]:
    with inference(model.network) as device:
        one, other = (torch.from_numpy(states[place[side]]).to(device) for side in (left, right))
        logits = model.network.pair_logits_of_cells(one, other)
        return np.asarray(logits.float().softmax(dim=-1)[:, 1].cpu().numpy(), dtype=np.float64)


def _read_together(
    model: SpatialFormer,
    tokens: TokenCells,
    place: NDArray[np.int64],
    left: NDArray[np.integer],
    right: NDArray[np.integer],
) -> NDArray[np.float64]:
    both = embed_cell_pairs(
        model.network, model.vocabulary, tokens.ranked, tokens.context, place[left], place[right]
    )  # fmt: skip
    return both.probabilities.astype(np.float64)
