"""Which pair head is kept: the calibrated cosine of embeddings, or another that beats it on held-out training tissue.

The training tissue of each slide is cut: a strip at one end is held out, one half of which tells when training stops
and the other half what is kept. The cells that are judged have no part in it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from spaf_data import Corpus, split_regions, write_corpus
from spaf_data import InputError as DataError
from spaf_model import CosinePairs, EmbeddingSettings, SpatialFormer, inference
from spaf_train.evaluation.bootstrap import pair_weights, spatial_tiles
from spaf_train.evaluation.calibrated_cosine import CalibratedCosine
from spaf_train.evaluation.cells import CorpusCells, ReadCells, with_counts
from spaf_train.evaluation.discrimination import discrimination
from spaf_train.evaluation.judging import cells_in_pairs, centred_cosine
from spaf_train.evaluation.pair_models import embedded, pair_head_score
from spaf_train.evaluation.pairs import NEGATIVES, MatchedPairs, can_be_judged, matched_pairs

if TYPE_CHECKING:
    from spaf_data import Distances
    from spaf_train.evaluation.cell_pairs import PairScore
    from spaf_train.evaluation.options import EvaluationOptions
    from spaf_train.finetuning.config import FinetuneConfig

TRAIN, STOP, DECIDE = "train", "validation", "decide"
_HELD = 0.3  # of the training cells of each slide
_FITTED_PAIRS = 5_000
_REPLICATES = 200


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingTissue:
    """The training cells, divided.

    Attributes
    ----------
    read
        Cells with a gene of the model.
    part
        Of each cell: ``train``, ``validation``, ``decide`` or ``gap``.
    pairs
        Of the cells that decide; as rows of `cells`.
    """

    read: ReadCells
    part: NDArray[np.str_]
    pairs: MatchedPairs | None

    @classmethod
    def of(cls, cells: CorpusCells, corpus: Corpus, model: SpatialFormer, options: EvaluationOptions) -> TrainingTissue:
        """Divide training cells; `pairs` is None where what is held out is too small to decide by."""
        read = with_counts(cells, corpus, model)
        read = read.take(np.flatnonzero(read.counts.n_genes))
        part = _divided(read.cells, corpus.distances)
        decide = np.flatnonzero(part == DECIDE)
        pairs = _pairs_of(read.cells, decide, corpus.distances, options.max_pairs, options.seed)
        return cls(read, part, pairs)

    @property
    def cells(self) -> CorpusCells:
        """The cells as the corpus has them."""
        return self.read.cells

    def write(self, corpus: Corpus, folder: Path) -> Corpus:
        """Write a corpus of the cells to train on and those to stop by."""
        slides = []
        ids = corpus.gene_ids
        for name in np.unique(self.cells.slide):
            rows = np.flatnonzero((self.cells.slide == name) & np.isin(self.part, (TRAIN, STOP)))
            if not rows.size:
                continue
            obs = pd.DataFrame({"slide": name, "split": self.part[rows]}, index=[f"{name}-{row}" for row in rows])
            for kind, value in corpus.slides[name].items():
                obs[kind] = value
            var = pd.DataFrame({} if ids is None else {"gene_ids": ids}, index=pd.Index(corpus.genes, dtype=object))
            slide = anndata.AnnData(self.cells.counts[rows].astype(np.int32), obs=obs, var=var)
            slide.obsm["spatial"] = self.cells.coordinates[rows]
            slides.append(slide)
        return write_corpus(slides, folder, distances=corpus.distances, colocalization_key=None)


def calibrated(
    model: SpatialFormer, tissue: TrainingTissue, parts: tuple[str, ...], distances: Distances, seed: int
) -> CalibratedCosine | None:
    """Fit the calibrated cosine on pairs of some parts of the training tissue; None where they have no pairs."""
    rows = np.flatnonzero(np.isin(tissue.part, parts))
    pairs = _pairs_of(tissue.cells, rows, distances, _FITTED_PAIRS, seed)
    if pairs is None:
        return None
    return CalibratedCosine.fit(_cosine(model, tissue, pairs), pairs, distances.positive, pooling="cls")


def refit_apart(
    model: SpatialFormer, tissue: TrainingTissue, parts: tuple[str, ...], distances: Distances, config: FinetuneConfig
) -> bool:
    """Fit the weights and the offset of a head that compares two states, in place; False where there are no pairs.

    The head is linear in the products of the projected states, so that this is a logistic regression.
    """
    rows = np.flatnonzero(np.isin(tissue.part, parts))
    pairs = _pairs_of(tissue.cells, rows, distances, _FITTED_PAIRS, config.seed)
    if pairs is None:
        return False
    left, right, labels = pairs.labelled(distances.positive)
    head = model.network.pair_head
    if isinstance(head, CosinePairs):
        products = np.asarray(_cosine(model, tissue, pairs)(left, right), dtype=np.float64)[:, None]
    else:
        states = _states(model, tissue, pairs)
        with inference(model.network, EmbeddingSettings()) as (device, _):
            projected = head.project(torch.from_numpy(states).to(device)).double().cpu().numpy()  # type: ignore[operator]
        products = projected[left] * projected[right]
    scale = products.std(axis=0) + 1e-12
    fitted = LogisticRegression(C=1.0 / (config.regularisation or 10.0), class_weight="balanced", max_iter=2_000).fit(
        products / scale, labels
    )
    weight = fitted.coef_[0] / scale
    with torch.no_grad():
        if isinstance(head, CosinePairs):
            head.slope.fill_(float(weight[0]))
        else:
            head.weight.copy_(torch.from_numpy(weight))  # type: ignore[operator]
            head.slope.fill_(1.0)  # type: ignore[operator]
        head.offset.fill_(float(fitted.intercept_[0]))  # type: ignore[operator]
    return True


@dataclasses.dataclass(frozen=True)
class Comparison:
    """AUROC of the other head and of the cosine where it was decided, mean over kinds of negatives."""

    other: float
    cosine: float
    better: bool  # by more than a standard error over tissue


def compare(
    before: SpatialFormer, other: SpatialFormer, tissue: TrainingTissue, distances: Distances, seed: int
) -> Comparison:
    """Compare the pair head of a model with the centred cosine of another, on the cells that decide."""
    pairs = tissue.pairs
    assert pairs is not None, "asked for by who has them"
    used = cells_in_pairs(pairs)
    scores = (pair_head_score(other, tissue.read, used), _cosine(before, tissue, pairs))
    tiles = spatial_tiles(tissue.cells.coordinates, tissue.cells.slide)
    found: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = [], []
    for kind in NEGATIVES:
        rows = pairs.rows(distances.positive, kind)
        if not rows.size:
            continue
        left = np.concatenate([pairs.anchor[rows]] * 2)
        right = np.concatenate([pairs.neighbour[rows], pairs.partner(kind)[rows]])
        drawn = pair_weights(tiles, left, right, n_replicates=_REPLICATES, seed=seed)
        weights = np.vstack([np.ones(left.size), drawn])
        for score, aurocs in zip(scores, found, strict=True):
            aurocs.append(discrimination(np.arange(left.size) < rows.size, score(left, right), weights).auroc)
    mine, theirs = (np.mean(aurocs, axis=0) for aurocs in found)
    difference = mine - theirs
    return Comparison(float(mine[0]), float(theirs[0]), bool(difference[0] > np.nanstd(difference[1:])))


def _divided(cells: CorpusCells, distances: Distances) -> NDArray[np.str_]:
    """Hold out a strip of each slide, and halve it across; slides too small for that are trained on."""
    part = np.full(len(cells), TRAIN, dtype="<U10")
    for name in np.unique(cells.slide):
        here = np.flatnonzero(cells.slide == name)
        places = cells.coordinates[here]
        try:
            own = split_regions(places, validation_fraction=_HELD, gap=2.0 * distances.positive)
        except DataError:
            continue
        held = own == "validation"
        if held.any():
            across = places[:, int(np.ptp(places, axis=0).argmin())]
            own = np.where(held & (across > np.median(across[held])), DECIDE, own)
        part[here] = own
    return part


def _pairs_of(
    cells: CorpusCells, rows: NDArray[np.int64], distances: Distances, max_pairs: int, seed: int
) -> MatchedPairs | None:
    """Return pairs of some cells as rows of all, or None where there are none with negatives."""
    if rows.size < 3:
        return None
    pairs = matched_pairs(
        cells.coordinates[rows], cells.slide[rows], radii=(distances.positive,), distances=distances,
        max_pairs=max_pairs, seed=seed,
    )  # fmt: skip
    if not can_be_judged(pairs):
        return None

    def whole(index: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(index >= 0, rows[index], -1)

    return dataclasses.replace(
        pairs, anchor=whole(pairs.anchor), neighbour=whole(pairs.neighbour), hard=whole(pairs.hard),
        easy=whole(pairs.easy),
    )  # fmt: skip


def _states(model: SpatialFormer, tissue: TrainingTissue, pairs: MatchedPairs) -> NDArray[np.float32]:
    """Return the embeddings of the cells of pairs, in rows of all cells."""
    used = cells_in_pairs(pairs)
    return embedded(model, tissue.read, used)


def _cosine(model: SpatialFormer, tissue: TrainingTissue, pairs: MatchedPairs) -> PairScore:
    return centred_cosine(_states(model, tissue, pairs), tissue.cells.slide, cells_in_pairs(pairs))
