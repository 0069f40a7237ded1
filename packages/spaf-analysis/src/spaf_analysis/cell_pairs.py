"""Do neighbouring cells look like neighbours to the model? Judged in the held-out region, beside baselines."""

from dataclasses import dataclass
from functools import partial

import anndata as ad
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spaf_analysis.clusters import embedded_cells
from spaf_analysis.errors import InputError
from spaf_analysis.keys import EMBEDDING, SPATIAL, SPLIT, TRAIN, VALIDATION
from spaf_analysis.metrics import (
    CellPairEvaluation,
    EvaluationOptions,
    LogisticPairs,
    PairScore,
    can_be_judged,
    cosine,
    evaluate_cell_pairs,
    matched_pairs,
    pca_embedding,
    radii_of,
)
from spaf_data import Distances, slides_of_cells
from spaf_model import SpatialFormer

# As `spaf-train evaluate` judges, so that a report and an evaluation of the same cells give the same figures.
MAX_PAIRS = EvaluationOptions().max_pairs
SCORES = {
    "model": "SpatialFormer, pair head",
    "embedding": "SpatialFormer, cosine of embeddings",
    "pca": "PCA, cosine",
    "logistic": "PCA, logistic regression on pairs",
}
# Positive pairs that the baseline learns from: it is cheap, so it gets more than are judged.
_FITTED_PAIRS = 20_000
_COMPARISONS = {"model": ("pca", "logistic"), "embedding": ("pca",)}


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
        Cells of both regions that have an embedding.
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


def benchmark_cell_pairs(
    adata: ad.AnnData,
    model: SpatialFormer,
    *,
    key: str = EMBEDDING,
    radii: tuple[float, ...] | None = None,
    distances: Distances = Distances(),
    max_pairs: int = MAX_PAIRS,
    n_replicates: int = 1_000,
    seed: int = 0,
) -> CellPairBenchmark:
    """Judge a model's cell-pair scores in the validation region, beside PCA.

    Four scores are judged on the same pairs (`matched_pairs`, as `spaf_train.evaluate` draws them): the model's
    probability that two cells are neighbours, the cosine of its embeddings, the cosine of principal components, and a
    logistic regression on pairs of principal components. Whatever is fitted (centre, components, regression) is fitted
    on cells of the training region.

    Parameters
    ----------
    adata
        Cells x genes with counts in `X`, `obsm["spatial"]` in um, `obs["split"]` and an embedding.
    model
        The model that made the embedding; the context (tissue, ...) is taken from `obs`.
    key
        The embedding in `obsm`.
    radii
        Largest distances of neighbours in um; those of `radii_of` for the distances if None.
    distances
        Of neighbours and negatives; those of the corpus that the model was trained on.
    max_pairs
        Largest number of positive pairs at each radius.
    n_replicates
        Number of resampled tissues behind each interval.
    seed
        Seed of pairs and resampling.

    Returns
    -------
    CellPairBenchmark
        Without an evaluation when one of the regions has too few cells. Without the logistic regression when the
        training region has no neighbours to learn from, and without the kinds of negatives that no held-out cell has.

    Raises
    ------
    InputError
        If `obs["split"]` or the embedding is missing, or the model refuses the cells.
    """
    if SPLIT not in adata.obs:
        raise InputError(
            f"obs has no column {SPLIT!r} that says which cells were held out; it has: {', '.join(adata.obs)}."
        )
    _, embedded = embedded_cells(adata, key)
    split = adata.obs[SPLIT].astype(str).to_numpy()[embedded]
    train, validation = embedded[split == TRAIN], embedded[split == VALIDATION]
    slides = slides_of_cells(adata.obs)
    library = np.full(adata.n_obs, "") if slides is None else slides
    xy = np.asarray(adata.obsm[SPATIAL], dtype=np.float64)[:, :2]
    sizes = (len(train), len(validation), _separation(xy, library, train, validation), distances)
    radii = radii_of(distances) if radii is None else radii
    main_radius = distances.positive
    if len(validation) < 3:
        return CellPairBenchmark(None, f"only {len(validation)} cells were held out for validation", *sizes)
    if len(train) < 3:
        return CellPairBenchmark(None, f"only {len(train)} cells belong to the training region", *sizes)

    judged = matched_pairs(
        xy[validation], library[validation], radii=radii, distances=distances, max_pairs=max_pairs, seed=seed
    )
    fitted = matched_pairs(
        xy[train], library[train], radii=(main_radius,), distances=distances, max_pairs=_FITTED_PAIRS, seed=seed
    )
    if not len(judged):
        return CellPairBenchmark(None, "the validation region has no neighbouring cells", *sizes)
    if not can_be_judged(judged):
        far = f"{distances.hard_min:g} µm apart"
        return CellPairBenchmark(None, f"the validation region is too small to hold cells {far}", *sizes)

    pca = pca_embedding(adata.X, train).coordinates
    embedding = np.asarray(adata.obsm[key], dtype=np.float64)
    # Cells without an embedding are in no pair; their rows are zero because the cosine takes no NaN.
    embedding = np.nan_to_num(embedding - embedding[train].mean(axis=0))
    scores: dict[str, PairScore] = {
        "model": lambda left, right: np.asarray(model.embed_pairs(adata, left, right).probabilities, dtype=np.float64),
        "embedding": partial(cosine, embedding),
        "pca": partial(cosine, pca),
    }
    if can_be_judged(fitted):  # else the training region is too small to learn from
        scores["logistic"] = LogisticPairs(pca, fitted, main_radius, cells=train).score
    comparisons = {name: tuple(each for each in others if each in scores) for name, others in _COMPARISONS.items()}
    evaluation = evaluate_cell_pairs(
        judged, xy[validation], scores, comparisons=comparisons, library=library[validation], cells=validation,
        n_replicates=n_replicates, seed=seed,
    )  # fmt: skip
    return CellPairBenchmark(evaluation, "", *sizes)


def _separation(
    xy: NDArray[np.float64], library: NDArray[np.str_], train: NDArray[np.int64], validation: NDArray[np.int64]
) -> float:
    nearest = [np.inf]
    for slide in np.unique(library):
        here, there = train[library[train] == slide], validation[library[validation] == slide]
        if len(here) and len(there):
            nearest.append(float(np.min(cKDTree(xy[here]).query(xy[there])[0])))
    return min(nearest) if np.isfinite(min(nearest)) else float("nan")
