"""The one judge of cell pairs: a corpus, an AnnData, a report and a benchmark that ask the same get the same figures.

Who asks brings what is to be judged as functions of pairs (the head of a model, the cosine of any embedding); the judge
draws the pairs, fits the baselines on other cells, and resamples the tissue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

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

if TYPE_CHECKING:
    from spaf_train.evaluation.options import EvaluationOptions

logger = logging.getLogger(__name__)

MODEL, EMBEDDING = "model", "embedding cosine"
PCA, PEARSON, LOGISTIC, NETWORK = "PCA cosine", "Pearson residual PCA cosine", "PCA logistic", "PCA pair network"
BASELINES = (PCA, PEARSON, LOGISTIC, NETWORK)
# Positive pairs that the logistic model learns from: it is cheap, so it gets more than are judged.
_FITTED_PAIRS = 20_000
_CENTRING_CELLS = 2_000
_TILE = 300.0  # um, of the tissue that is drawn where there are more cells than are asked for


class HasPlaces(Protocol):
    """Counts of cells and where they are."""

    @property
    def counts(self) -> sparse.csr_matrix:
        """Cells x genes."""

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """(n_cells, 2), um."""

    @property
    def slide(self) -> NDArray[np.str_]:
        """(n_cells,)."""


@dataclass(frozen=True)
class PlacedCells:
    """Cells with counts and places, in the form in which a corpus has them too.

    Attributes
    ----------
    counts
        Cells x genes.
    coordinates
        (n_cells, 2), um. Of single precision, as a corpus holds them: the same cells are the same wherever they are
        read.
    slide
        (n_cells,).
    """

    counts: sparse.csr_matrix
    coordinates: NDArray[np.float64]
    slide: NDArray[np.str_]

    @classmethod
    def of(cls, counts: Any, coordinates: NDArray[np.floating], slide: NDArray[np.str_] | None = None) -> PlacedCells:
        """Return cells from arrays, on one slide if None is named."""
        matrix = sparse.csr_matrix(counts)
        if not matrix.has_sorted_indices:
            matrix = matrix.sorted_indices()
        places = np.asarray(coordinates, dtype=np.float32)[:, :2].astype(np.float64)
        return cls(matrix, places, np.full(len(places), "") if slide is None else np.asarray(slide, dtype=str))

    def __len__(self) -> int:
        return len(self.slide)

    def take(self, rows: NDArray[np.integer]) -> PlacedCells:
        """Return some of the cells."""
        return PlacedCells(sparse.csr_matrix(self.counts[rows]), self.coordinates[rows], self.slide[rows])


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
    """Judge scores of cell pairs beside baselines that are fitted on other cells.

    The baselines are always the same: the cosine of principal components of log-normalised counts, the cosine of those
    of analytic Pearson residuals, and on the first a logistic regression and a small network that are trained to tell
    neighbours. Which of them is the strongest depends on the tissue. One that there is nothing to train on is left out,
    with a warning.

    Parameters
    ----------
    pairs
        What `judged_pairs` draws from `judged`, with a negative for some of them (`can_be_judged`).
    judged
        Cells to judge on.
    fitted
        Training cells, of the same genes: baselines are fitted on these and no others.
    scores
        What is judged: for each name a function of the two cells of each pair, as rows of `judged`. The first is
        compared with every other one, the others with the baselines.
    options
        Number of replicates and seed.
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
    beside = {name: partial(_of_places, score, place) for name, score in baselines.items()}
    first = next(iter(scores))
    compared = {name: tuple(beside) for name in scores}
    compared[first] = (*(name for name in scores if name not in (first, EMBEDDING)), *beside)
    return evaluate_cell_pairs(
        pairs, known.coordinates, {**scores, **beside}, comparisons=compared, slide=known.slide,
        n_replicates=options.n_replicates, seed=options.seed,
    )  # fmt: skip


def centred_cosine(embedding: NDArray[np.floating], centre: NDArray[np.floating]) -> PairScore:
    """Return a score of pairs: the cosine of two rows of an embedding, seen from its centre."""
    return partial(cosine, np.asarray(embedding, dtype=np.float64) - centre)


def centring_cells(fitted: HasPlaces, usable: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """Return the training cells (rows of `fitted`) whose mean embedding is the centre: some 2,000 usable ones."""
    order = in_one_order(fitted)
    readable = order[usable[order]]
    return np.sort(np.random.default_rng(seed).permutation(readable)[:_CENTRING_CELLS])


def drawn_tissue(
    coordinates: NDArray[np.floating],
    slide: NDArray[np.str_],
    *,
    max_cells: int,
    distances: Distances = Distances(),
    seed: int = 0,
) -> NDArray[np.int64]:
    """Return the rows of about as many cells as are asked for, whole tiles of tissue so that neighbours stay together.

    Parameters
    ----------
    coordinates
        (n_cells, 2), um.
    slide
        The slide of each cell.
    max_cells
        All rows where there are no more; else tiles by chance until so many are reached.
    distances
        Tiles are 300 um wide, or ten radii of neighbours where that is more.
    seed
        Of the draw, which does not depend on the order of the cells.
    """
    if len(slide) <= max_cells:
        return np.arange(len(slide))
    side = max(_TILE, 10.0 * distances.positive)
    cell = np.floor(np.asarray(coordinates, dtype=np.float32).astype(np.float64)[:, :2] / side).astype(np.int64)
    code = np.unique(slide, return_inverse=True)[1].ravel()
    _, tile, size = np.unique(np.column_stack([code, cell]), axis=0, return_inverse=True, return_counts=True)
    order = np.random.default_rng([seed, len(size)]).permutation(len(size))
    before = np.cumsum(size[order]) - size[order]
    return np.flatnonzero(np.isin(tile.ravel(), order[before < max_cells]))


def in_one_order(cells: HasPlaces) -> NDArray[np.int64]:
    """Return the cells by slide and place: what is fitted in this order is the same wherever cells come from."""
    return np.lexsort((cells.coordinates[:, 1], cells.coordinates[:, 0], cells.slide)).astype(np.int64)


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
        PCA: partial(cosine, pca[n_fitted:]),
        PEARSON: partial(cosine, pearson[n_fitted:]),
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
