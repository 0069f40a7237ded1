"""A small trained pair network on principal components: what pair training alone brings, without a transformer."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

import spaf_data
from spaf_data import Distances, split_regions
from spaf_data import InputError as DataError
from spaf_model import InputError
from spaf_train.evaluation.pairs import NEGATIVES, MatchedPairs, matched_pairs
from spaf_train.trainer.metrics import auroc

logger = logging.getLogger(__name__)

N_COMPONENTS = 50
_HIDDEN = (128, 64)
_DROPOUT = 0.2
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 0.01
_BATCH_PAIRS = 3072
_MAX_PAIRS = 60_000  # positive pairs of an epoch, drawn anew each time; as many hard and as many easy negatives
_JUDGED_PAIRS = 5_000  # positive pairs that the number of epochs is chosen on
_MAX_EPOCHS = 12
_STOPPING_FRACTION = 0.2  # of the training cells of each slide: a strip that the number of epochs is chosen on
_GAP = (
    spaf_data.defaults.GAP
)  # um, between that strip and the other cells, or twice the radius of neighbours if that is more


class PairNetwork:
    """A two-layer network on `|a - b|` and `a * b` of two cells' principal components: symmetric in the two cells.

    It is trained on neighbours against hard and easy negatives, drawn anew each epoch. How many epochs is found on a
    strip of each slide of the training cells, with a gap to the others; then it is trained anew on all of them.

    Parameters
    ----------
    embedding
        Cells x components; the first cells are the training cells, and the others are there to be scored.
    coordinates
        Of the training cells, in um.
    slide
        The slide of each training cell.
    radius
        Largest distance of neighbours in um.
    distances
        Of hard and easy negatives.
    seed
        Of weights, draws and dropout: equal input and seed give an equal network on an equal number of threads.

    Attributes
    ----------
    epochs
        For how many epochs it was trained.

    Raises
    ------
    InputError
        If no two training cells are neighbours with a negative.
    """

    def __init__(
        self,
        embedding: NDArray[np.floating],
        coordinates: NDArray[np.floating],
        slide: NDArray[np.generic],
        radius: float,
        *,
        distances: Distances = Distances(),
        seed: int = 0,
    ) -> None:
        scale = embedding[: len(coordinates)].std(axis=0) + 1e-9
        self._embedding = torch.from_numpy(np.asarray(embedding / scale, dtype=np.float32))
        values = self._embedding[: len(coordinates)]
        stopping = _stopping_strips(coordinates, slide, max(_GAP, 2.0 * radius))
        looked_at = np.flatnonzero(stopping == "validation")
        judged = matched_pairs(
            coordinates[looked_at],
            slide[looked_at],
            radii=(radius,),
            distances=distances,
            max_pairs=_JUDGED_PAIRS,
            seed=seed,
        )
        kinds = [kind for kind in NEGATIVES if len(judged.rows(radius, kind))]
        with torch.random.fork_rng(devices=[]):
            self.epochs = _MAX_EPOCHS
            if kinds:
                some = np.flatnonzero(stopping == "train")
                found: dict[int, float] = {}
                for epoch, network in _epochs(
                    values[some], coordinates[some], slide[some], radius, distances, seed, _MAX_EPOCHS
                ):
                    scores = [_auroc(network, values[looked_at], judged, radius, kind) for kind in kinds]
                    found[epoch] = float(np.mean(scores))
                self.epochs = max(found, key=found.__getitem__) if found else _MAX_EPOCHS
                aurocs = np.round(list(found.values()), 4)
                logger.info("pair network: %d of %d epochs, by AUROC %s", self.epochs, _MAX_EPOCHS, aurocs)
            trained = None
            for _, network in _epochs(values, coordinates, slide, radius, distances, seed, self.epochs):
                trained = network
        if trained is None:
            raise InputError(
                f"A pair network cannot be trained: no two training cells lie within {radius:g} um of each other with "
                "a third cell of their slide further away to tell them from."
            )
        self._network = trained

    def score(self, left: NDArray[np.integer], right: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the log odds that the two cells of each pair are neighbours."""
        return _logits(self._network, self._embedding, left, right)


def _stopping_strips(
    coordinates: NDArray[np.floating], slide: NDArray[np.generic], gap: float = _GAP
) -> NDArray[np.str_]:
    """Divide the cells of each slide into "train", "gap" and "validation"; slides too small for a gap are "train"."""
    parts = np.full(len(slide), "train", dtype="<U10")
    for name in np.unique(slide):
        cells = np.flatnonzero(slide == name)
        try:
            parts[cells] = split_regions(coordinates[cells], validation_fraction=_STOPPING_FRACTION, gap=gap)
        except DataError:
            logger.info("Slide %s is too small to keep a strip of it for the number of epochs.", name)
    return parts


def _epochs(
    values: torch.Tensor,
    coordinates: NDArray[np.floating],
    slide: NDArray[np.generic],
    radius: float,
    distances: Distances,
    seed: int,
    n_epochs: int,
) -> Iterator[tuple[int, nn.Module]]:
    """Yield the number of each epoch, from 1, and the network after it; nothing before there were pairs to train on.

    Where few cells have others far away, an epoch may draw neighbours alone, of which there is nothing to learn.
    """
    torch.manual_seed(seed)
    wide, narrow = _HIDDEN
    network = nn.Sequential(
        nn.Linear(2 * values.shape[1], wide), nn.ReLU(), nn.Dropout(_DROPOUT), nn.Linear(wide, narrow), nn.ReLU(),
        nn.Linear(narrow, 1),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    trained = False
    for epoch in range(n_epochs):
        pairs = matched_pairs(
            coordinates, slide, radii=(radius,), distances=distances, max_pairs=_MAX_PAIRS,
            seed=seed * (_MAX_EPOCHS + 1) + epoch + 1,
        )  # fmt: skip
        left, right, label = pairs.labelled(radius)
        if label.any() and not label.all():
            trained = True
            # As heavy as the negatives together, however many of them there are.
            weight = torch.tensor(float((~label).sum() / label.sum()))
            target = torch.from_numpy(label.astype(np.float32))
            network.train()
            for rows in torch.randperm(label.size).split(_BATCH_PAIRS):
                logits = network(_features(values, left[rows.numpy()], right[rows.numpy()])).squeeze(1)
                loss = functional.binary_cross_entropy_with_logits(logits, target[rows], pos_weight=weight)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        if trained:
            yield epoch + 1, network


def _features(values: torch.Tensor, left: NDArray[np.integer], right: NDArray[np.integer]) -> torch.Tensor:
    a, b = values[torch.from_numpy(left)], values[torch.from_numpy(right)]
    return torch.cat([(a - b).abs(), a * b], dim=1)


def _logits(
    network: nn.Module, values: torch.Tensor, left: NDArray[np.integer], right: NDArray[np.integer]
) -> NDArray[np.float64]:
    network.eval()
    with torch.inference_mode():
        logits: NDArray[np.float64] = network(_features(values, left, right)).squeeze(1).double().numpy()
    return logits


def _auroc(network: nn.Module, values: torch.Tensor, pairs: MatchedPairs, radius: float, kind: str) -> float:
    rows = pairs.rows(radius, kind)
    left = np.concatenate([pairs.anchor[rows]] * 2)
    right = np.concatenate([pairs.neighbour[rows], pairs.partner(kind)[rows]])
    return auroc(_logits(network, values, left, right), (np.arange(right.size) < rows.size).astype(np.int64))
