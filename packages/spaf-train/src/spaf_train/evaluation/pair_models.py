"""Cell pairs: how well a model tells neighbours, beside what principal components say."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse

from spaf_data import Distances
from spaf_model import InputError, SpatialFormer, embed_cell_pairs, embed_cells
from spaf_train.evaluation.baselines import N_COMPONENTS, LogisticPairs, cosine, pca_embedding
from spaf_train.evaluation.bootstrap import interval_columns, pair_weights
from spaf_train.evaluation.calibration import calibration_error, operating_point, reliability_table
from spaf_train.evaluation.cell_pairs import CellPairEvaluation, PairScore, evaluate_cell_pairs
from spaf_train.evaluation.cells import CorpusCells, TokenCells
from spaf_train.evaluation.encoding import inference
from spaf_train.evaluation.options import EvaluationOptions
from spaf_train.evaluation.pair_network import N_COMPONENTS as NETWORK_COMPONENTS
from spaf_train.evaluation.pair_network import PairNetwork
from spaf_train.evaluation.pairs import NEGATIVES, MatchedPairs, can_be_judged, matched_pairs

logger = logging.getLogger(__name__)

MODEL, EMBEDDING = "model", "embedding cosine"
PCA, LOGISTIC, NETWORK = "PCA cosine", "PCA logistic", "PCA pair network"
# Positive pairs that the logistic model learns from: it is cheap, so it gets more than are judged.
_FITTED_PAIRS = 20_000
_CENTRING_CELLS = 2_000


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
    fitted_tokens: TokenCells,
    options: EvaluationOptions,
    distances: Distances = Distances(),
) -> PairHeadEvaluation | None:
    """Judge the pair head and the embedding of models, beside the cosine of PCA and trained models on it.

    Parameters
    ----------
    models
        By name, all with one vocabulary; the first is compared with the baselines and with the other models.
    tokens
        The judged cells as the models read them; each cell has a gene.
    judged
        Cells to judge on.
    fitted
        Training cells: PCA, the models on it and the centre of the embedding are fitted on these and no others.
    fitted_tokens
        The same as the models read them.
    options
        Radii, numbers of pairs and replicates, threshold, seed.
    distances
        Of the corpus: of negatives, and the radius that trained baselines are fitted for and calibration is judged at.

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
    # Only cells that are in a pair are read; tiles are those of all.
    named = np.unique(np.concatenate([pairs.anchor, pairs.neighbour, pairs.hard, pairs.easy]))
    used = named[named >= 0]
    place = np.full(len(judged), -1, dtype=np.int64)
    place[used] = np.arange(used.size)
    tokens = tokens.take(used)
    first = next(iter(models))
    scores: dict[str, PairScore] = {}
    embeddings: dict[str, NDArray[np.float32]] = {}
    for name, model in models.items():
        if name == first or model.config.pair_input == "separate":
            embeddings[name] = embed_cells(model.network, model.vocabulary, tokens.ranked, tokens.context)
        if model.config.pair_input == "separate":
            scores[name] = partial(_compared, model, embeddings[name])
        else:
            scores[name] = partial(_read_together, model, tokens)
    centre = _centre(models[first], fitted_tokens, seed)
    scores[EMBEDDING] = partial(cosine, embeddings[first] - centre)
    scores |= _baselines(judged.take(used), fitted, distances, seed)
    others = tuple(name for name in scores if name not in (first, EMBEDDING))
    comparisons = {first: others, EMBEDDING: (PCA,)}
    evaluation = evaluate_cell_pairs(
        pairs, judged.coordinates, scores, comparisons=comparisons, library=judged.slide, cells=place,
        n_replicates=n_replicates, seed=seed,
    )  # fmt: skip
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


def judged_pairs(cells: CorpusCells, options: EvaluationOptions, distances: Distances) -> MatchedPairs:
    """Return the pairs that models are judged on; none where no cells are neighbours."""
    radii = options.following(distances).radii
    assert radii is not None, "given by `following`"
    return matched_pairs(
        cells.coordinates, cells.slide, radii=radii, distances=distances, max_pairs=options.max_pairs, seed=options.seed
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


def _compared(
    model: SpatialFormer, states: NDArray[np.float32], left: NDArray[np.integer], right: NDArray[np.integer]
) -> NDArray[np.float64]:
    with inference(model.network) as device:
        one, other = (torch.from_numpy(states[side]).to(device) for side in (left, right))
        logits = model.network.pair_logits_of_cells(one, other)
        return np.asarray(logits.float().softmax(dim=-1)[:, 1].cpu().numpy(), dtype=np.float64)


def _read_together(
    model: SpatialFormer, tokens: TokenCells, left: NDArray[np.integer], right: NDArray[np.integer]
) -> NDArray[np.float64]:
    both = embed_cell_pairs(
        model.network, model.vocabulary, tokens.ranked, tokens.context, left.astype(np.int64), right.astype(np.int64)
    )
    return both.probabilities.astype(np.float64)


def _baselines(judged: CorpusCells, fitted: CorpusCells, distances: Distances, seed: int) -> dict[str, PairScore]:
    """Return what principal components say of pairs of the judged cells; everything is fitted on the other cells."""
    n_fitted = len(fitted)
    counts = sparse.vstack([fitted.counts, judged.counts], format="csr")
    wide = pca_embedding(counts, np.arange(n_fitted), n_components=NETWORK_COMPONENTS).coordinates
    pca = wide[:, :N_COMPONENTS]
    scores: dict[str, PairScore] = {PCA: partial(cosine, pca[n_fitted:])}
    radius = distances.positive
    to_fit = matched_pairs(
        fitted.coordinates, fitted.slide, radii=(radius,), distances=distances, max_pairs=_FITTED_PAIRS, seed=seed
    )
    if not can_be_judged(to_fit):
        logger.warning("The training cells have no neighbours with negatives; there is no trained model to beat.")
        return scores
    logistic = LogisticPairs(pca, to_fit, radius)
    scores[LOGISTIC] = partial(_shifted, logistic, n_fitted)
    try:
        network = PairNetwork(wide, fitted.coordinates, fitted.slide, radius, distances=distances, seed=seed)
    except InputError as error:  # what negatives there are, its draws may miss
        logger.warning("%s It is left out.", error)
        return scores
    scores[NETWORK] = partial(_shifted, network, n_fitted)
    return scores


def _shifted(
    trained: LogisticPairs | PairNetwork, offset: int, left: NDArray[np.integer], right: NDArray[np.integer]
) -> NDArray[np.float64]:
    return trained.score(left + offset, right + offset)


def _centre(model: SpatialFormer, fitted: TokenCells, seed: int) -> NDArray[np.float64]:
    """Return the mean embedding of some training cells."""
    readable = np.flatnonzero(fitted.ranked.n_genes)
    drawn = np.random.default_rng(seed).permutation(readable)[:_CENTRING_CELLS]
    some = fitted.take(np.sort(drawn))
    embeddings = embed_cells(model.network, model.vocabulary, some.ranked, some.context)
    return np.asarray(embeddings.astype(np.float64).mean(axis=0))
