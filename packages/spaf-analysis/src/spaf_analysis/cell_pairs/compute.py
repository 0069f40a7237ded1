"""Do neighbouring cells look like neighbours? Judged on held-out cells, beside baselines, on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spaf_analysis.metrics import (
    EMBEDDING,
    LOGISTIC,
    MODEL,
    NEIGHBOURS,
    NETWORK,
    OWN_PCA,
    PCA,
    PEARSON,
    RANDOM,
    TOWER,
    Z_PCA,
    CalibratedCosine,
    CellPairEvaluation,
    EvaluationOptions,
    PairScore,
    PlacedCells,
    can_be_judged,
    cells_in_pairs,
    centred_cosine,
    judge_cell_pairs,
    judged_pairs,
)
from spaf_data import Distances

SCORES = {
    MODEL: "the model, pair head",
    EMBEDDING: "the model, cosine of embeddings",
    PCA: "PCA, cosine",
    PEARSON: "Pearson residual PCA, cosine",
    OWN_PCA: "PCA of the judged slide, cosine",
    Z_PCA: "z-scored PCA of the judged slide, cosine",
    NEIGHBOURS: "neighbours in closed form, cosine",
    LOGISTIC: "PCA, logistic regression on pairs",
    NETWORK: "PCA, pair network",
    TOWER: "tower, cosine",
    RANDOM: "random encoder, cosine",
}


@dataclass(frozen=True)
class CellPairBenchmark:
    """The judgement, or why there is none.

    Attributes
    ----------
    evaluation
        None when the pairs could not be judged.
    reason
        Why there is no evaluation, as the end of a sentence; empty when there is one.
    n_train, n_validation
        Cells that baselines are fitted on, and cells judged.
    separation
        Smallest distance in um between a cell of training and a cell of validation on one slide; NaN if there is none.
    distances
        At what distances cells are neighbours, hard negatives and easy negatives.
    """

    evaluation: CellPairEvaluation | None
    reason: str
    n_train: int
    n_validation: int
    separation: float
    distances: Distances = Distances()

    @property
    def main_radius(self) -> float:
        """Radius of the neighbours that models are trained on, in um."""
        return self.distances.positive

    @property
    def first(self) -> str:
        """Name of the score that is compared with all others: the model's head, or where there is none its cosine."""
        scores = () if self.evaluation is None else tuple(self.evaluation.scores["score"])
        return MODEL if MODEL in scores or EMBEDDING not in scores else EMBEDDING

    def stored(self) -> dict[str, Any]:
        """Return the same in the form that an h5ad holds."""
        content = {
            "reason": self.reason,
            "n_train": self.n_train,
            "n_validation": self.n_validation,
            "separation": self.separation,
            "distances": asdict(self.distances),
        }
        if self.evaluation is not None:
            content |= {
                "scores": self.evaluation.scores,
                "differences": self.evaluation.differences,
                "n_pairs": self.evaluation.n_pairs,
                "n_tiles": self.evaluation.tiles.n,
                "tile_um": self.evaluation.tiles.side,
            }
        return content


def judge(
    judged: PlacedCells,
    fitted: PlacedCells,
    scores: Mapping[str, PairScore],
    embeddings: Mapping[str, NDArray[np.floating]],
    *,
    head: CalibratedCosine | None = None,
    options: EvaluationOptions = EvaluationOptions(),
    distances: Distances = Distances(),
) -> CellPairBenchmark:
    """Judge scores of cell pairs beside the baselines, or say why they cannot be.

    Parameters
    ----------
    judged
        Held-out cells.
    fitted
        Cells that baselines are fitted on, of the same genes.
    scores
        Functions of the two cells of each pair, rows of `judged`; see `judge_cell_pairs`.
    embeddings
        Of the judged cells: their cosine is judged, seen from the centre of each slide, behind the scores.
    head
        Of a model whose pairs are told by the cosine of its embeddings: judged as the model.
    options
        Radii, numbers of pairs and replicates, seed.
    distances
        Of neighbours and negatives.

    Returns
    -------
    CellPairBenchmark
        Without an evaluation when either kind has too few cells. Without trained baselines when the training cells have
        no neighbours to learn from, and without the kinds of negatives that no held-out cell has.
    """
    sizes = (len(fitted), len(judged), separation(judged, fitted), distances)
    if len(judged) < 3:
        return CellPairBenchmark(None, f"only {len(judged)} cells were held out for validation", *sizes)
    if len(fitted) < 3:
        return CellPairBenchmark(None, f"only {len(fitted)} cells belong to the training region", *sizes)
    pairs = judged_pairs(judged, options, distances)
    if not len(pairs):
        return CellPairBenchmark(None, "the validation region has no neighbouring cells", *sizes)
    if not can_be_judged(pairs):
        far = f"{distances.hard_min:g} µm apart"
        return CellPairBenchmark(None, f"the validation region is too small to hold cells {far}", *sizes)
    used = cells_in_pairs(pairs)
    cosines = {name: centred_cosine(states, judged.slide, used) for name, states in embeddings.items()}
    if head is not None:
        scores = {MODEL: partial(_calibrated, head, cosines[EMBEDDING]), **scores}
    evaluation = judge_cell_pairs(pairs, judged, fitted, {**scores, **cosines}, options=options, distances=distances)
    return CellPairBenchmark(evaluation, "", *sizes)


def _calibrated(
    head: CalibratedCosine, cosine: PairScore, left: NDArray[np.integer], right: NDArray[np.integer]
) -> NDArray[np.float64]:
    return head.probability(cosine(left, right))


def separation(judged: PlacedCells, fitted: PlacedCells) -> float:
    """Return the smallest distance in um between a judged and a fitted cell of one slide; NaN where there is none."""
    nearest = [np.inf]
    for slide in np.unique(judged.slide):
        here, there = _on(fitted, slide), _on(judged, slide)
        if len(here) and len(there):
            nearest.append(float(np.min(cKDTree(here).query(there)[0])))
    return min(nearest) if np.isfinite(min(nearest)) else float("nan")


def _on(cells: PlacedCells, slide: str) -> NDArray[np.float64]:
    coordinates: NDArray[np.float64] = cells.coordinates[cells.slide == slide]
    return coordinates
