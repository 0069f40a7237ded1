"""The one judge of cell pairs: a corpus, an AnnData, a report and a benchmark that ask the same get the same figures.

Who asks brings what is to be judged as functions of pairs (the head of a model, the cosine of any embedding); the judge
draws the pairs, fits the baselines on other cells, and resamples the tissue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_data import Distances
from spaf_model import InputError
from spaf_train.evaluation.baselines import N_COMPONENTS, LogisticPairs, cosine, pca_embedding, pearson_embedding
from spaf_train.evaluation.cell_pairs import CellPairEvaluation, PairScore, evaluate_cell_pairs
from spaf_train.evaluation.pair_network import N_COMPONENTS as NETWORK_COMPONENTS
from spaf_train.evaluation.pair_network import PairNetwork
from spaf_train.evaluation.pairs import MatchedPairs, can_be_judged, matched_pairs
from spaf_train.evaluation.placed_cells import HasPlaces, PlacedCells, in_one_order
from spaf_train.evaluation.slide_baselines import NEIGHBOURS, OWN_PCA, TOWER, Z_PCA, slide_embeddings

if TYPE_CHECKING:
    from spaf_train.evaluation.options import EvaluationOptions

logger = logging.getLogger(__name__)

MODEL, EMBEDDING = "model", "embedding cosine"
PCA, PEARSON, LOGISTIC, NETWORK = "PCA cosine", "Pearson residual PCA cosine", "PCA logistic", "PCA pair network"
RANDOM = "random encoder"
BASELINES = (PCA, PEARSON, OWN_PCA, Z_PCA, NEIGHBOURS, LOGISTIC, NETWORK)
FURTHER_BASELINES = (TOWER, RANDOM)  # with enough training cells, and of a model
# Positive pairs that the logistic model learns from: it is cheap, so it gets more than are judged.
_FITTED_PAIRS = 20_000


def judged_pairs(cells: HasPlaces, options: EvaluationOptions, distances: Distances) -> MatchedPairs:
    """Return the pairs that everything is judged on; none where no cells are neighbours."""
    radii = options.following(distances).radii
    assert radii is not None, "given by `following`"
    return matched_pairs(
        cells.coordinates, cells.slide, radii=radii, distances=distances, max_pairs=options.max_pairs, seed=options.seed
    )


def cells_in_pairs(pairs: MatchedPairs) -> NDArray[np.int64]:
    """Return the cells that are in a pair, each once and ascending: no others need be read."""
    named = np.unique(np.concatenate([pairs.anchor, pairs.neighbour, pairs.hard, pairs.easy]))
    return named[named >= 0]


def judge_cell_pairs(
    pairs: MatchedPairs,
    judged: HasPlaces,
    fitted: HasPlaces,
    scores: Mapping[str, PairScore],
    *,
    options: EvaluationOptions,
    distances: Distances = Distances(),
) -> CellPairEvaluation:
    """Judge scores of cell pairs beside baselines.

    The baselines are always the same (`BASELINES`): the cosine of principal components of log-normalised counts, and of
    analytic Pearson residuals, fitted on the training cells; on the first a logistic regression and a small network
    that are trained to tell neighbours; the cosine of principal components of the judged slide itself, plain and
    z-scored; of what training cells share with their neighbours in closed form; and, with enough training cells, of a
    multilayer perceptron trained by contrast of neighbours (`TOWER`). Every cosine is seen from the centre of the
    judged slide. Which of them is the strongest depends on the tissue. One that there is nothing to train on is left
    out, with a warning.

    Parameters
    ----------
    pairs
        What `judged_pairs` draws from `judged`, with a negative for some of them (`can_be_judged`).
    judged
        Cells to judge on. Principal components of the judged slide are of all of these.
    fitted
        Training cells, of the same genes: whatever learns of places is fitted on these and no others.
    scores
        What is judged: for each name a function of the two cells of each pair, as rows of `judged`. The first is
        compared with every other one, the others with the baselines; `RANDOM` is a baseline itself.
    options
        Number of replicates, seed, and whether there is to be a tower.
    distances
        Of negatives, and the radius that trained baselines are fitted for.

    Returns
    -------
    CellPairEvaluation
        The same whatever the order of the cells.
    """
    used = cells_in_pairs(pairs)
    place = np.full(len(judged.slide), -1, dtype=np.int64)
    place[used] = np.arange(used.size)
    known = PlacedCells.of(judged.counts, judged.coordinates, judged.slide)
    training = PlacedCells.of(fitted.counts, fitted.coordinates, fitted.slide)
    training = training.take(in_one_order(training))
    baselines = _baselines(known.take(used), training, distances, options.seed)
    beside: dict[str, PairScore] = {name: partial(_of_places, score, place) for name, score in baselines.items()}
    order = in_one_order(known)
    for name, states in slide_embeddings(
        known.take(order), training, distances, seed=options.seed, tower=options.tower
    ).items():
        embedding = np.empty_like(states)
        embedding[order] = states
        beside[name] = centred_cosine(embedding, known.slide, used)
    first = next(iter(scores))
    own = [name for name in scores if name != RANDOM]
    beyond = (*beside, *(name for name in scores if name == RANDOM))
    compared = dict.fromkeys(own, beyond)
    compared[first] = (*(name for name in own if name not in (first, EMBEDDING)), *beyond)
    return evaluate_cell_pairs(
        pairs, known.coordinates, {**scores, **beside}, comparisons=compared, slide=known.slide,
        n_replicates=options.n_replicates, seed=options.seed,
    )  # fmt: skip


def centred_cosine(
    embedding: NDArray[np.floating], slide: NDArray[np.generic], cells: NDArray[np.integer] | None = None
) -> PairScore:
    """Return a score of pairs: the cosine of two rows of an embedding, each seen from the centre of its slide.

    Parameters
    ----------
    embedding
        (n_cells, n_dimensions).
    slide
        The slide of each cell.
    cells
        Those whose mean is the centre, such as `cells_in_pairs`; all if None.
    """
    values = np.array(embedding, dtype=np.float64)
    of_centre = np.zeros(len(values), dtype=bool)
    of_centre[slice(None) if cells is None else cells] = True
    for name in np.unique(slide):
        here = slide == name
        if (here & of_centre).any():
            values[here] -= values[here & of_centre].mean(axis=0)
    return partial(cosine, values)


def _of_places(
    score: PairScore, place: NDArray[np.int64], left: NDArray[np.integer], right: NDArray[np.integer]
) -> NDArray[np.floating]:
    return score(place[left], place[right])


def _baselines(judged: PlacedCells, fitted: PlacedCells, distances: Distances, seed: int) -> dict[str, PairScore]:
    """Return what principal components say of pairs of the judged cells; everything is fitted on the other cells."""
    n_fitted = len(fitted)
    counts = sparse.vstack([fitted.counts, judged.counts], format="csr")
    training = np.arange(n_fitted)
    wide = pca_embedding(counts, training, n_components=NETWORK_COMPONENTS).coordinates
    pca = wide[:, :N_COMPONENTS]
    pearson = pearson_embedding(counts, np.concatenate([fitted.slide, judged.slide]), training).coordinates
    scores: dict[str, PairScore] = {
        PCA: centred_cosine(pca[n_fitted:], judged.slide),
        PEARSON: centred_cosine(pearson[n_fitted:], judged.slide),
    }
    radius = distances.positive
    to_fit = matched_pairs(
        fitted.coordinates, fitted.slide, radii=(radius,), distances=distances, max_pairs=_FITTED_PAIRS, seed=seed
    )
    if not can_be_judged(to_fit):
        logger.warning("The training cells have no neighbours with negatives; there is no trained model to beat.")
        return scores
    scores[LOGISTIC] = partial(_shifted, LogisticPairs(pca, to_fit, radius).score, n_fitted)
    try:
        network = PairNetwork(wide, fitted.coordinates, fitted.slide, radius, distances=distances, seed=seed)
    except InputError as error:  # what negatives there are, its draws may miss
        logger.warning("%s It is left out.", error)
        return scores
    scores[NETWORK] = partial(_shifted, network.score, n_fitted)
    return scores


def _shifted(
    score: Callable[[NDArray[np.integer], NDArray[np.integer]], NDArray[np.float64]],
    offset: int,
    left: NDArray[np.integer],
    right: NDArray[np.integer],
) -> NDArray[np.float64]:
    return score(left + offset, right + offset)
