"""Linear probes of labels, whose penalty and weights of classes are chosen on folds of the cells they are fitted on.

The choice never sees a cell that is judged. Folds are pieces of tissue (whole groups, or strips of each slide) and
never small tiles: an embedding that was trained on the tissue knows the neighbours of a held-out cell.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from spaf_train.evaluation.bootstrap import Tiles, tile_draws
from spaf_train.evaluation.classification import classification_scores

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # half of it times the squared weights is added to the mean loss
N_FOLDS = 3
_VARIANCE = 20.0  # of all features of a block together
_ITERATIONS = 100
_CHOSEN_ON = 5_000  # cells that a choice is made on, at most
_REPLICATES = 200
_NEVER = 20.0  # nats by which a class that has no cell is less likely than the rarest


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """What of a probe is given; None is chosen on folds."""

    penalty: float | None = None
    balanced: bool | None = None  # whether rare classes count as much as frequent ones
    seed: int = 0  # of the 5,000 cells that stand for more


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Some features of all cells, which are scaled together: those of small variance stay small.

    Attributes
    ----------
    values
        (n_cells, n_features).
    weight
        Of the block beside others.
    """

    values: NDArray[np.float32]
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """Multinomial logistic regression on features that are centred and scaled.

    Attributes
    ----------
    mean, scale
        (n_features,), of the features: ``(x - mean) * scale`` is what the weights are for.
    weight, bias
        (n_classes, n_features) and (n_classes,). A class without a cell has no weights and a bias far below the others.
    penalty, balanced
        What it was fitted with.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    penalty: float
    balanced: bool

    def logits(self, blocks: Sequence[Block], rows: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the logits of the classes, (n_rows, n_classes)."""
        found = (_joined(blocks, rows) - self.mean) * self.scale @ self.weight.T + self.bias
        return np.asarray(found)

    def predict(self, blocks: Sequence[Block], rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the class of cells."""
        return np.asarray(self.logits(blocks, rows).argmax(axis=1), dtype=np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen on the folds.

    Attributes
    ----------
    penalty, balanced
        Of the probe.
    macro_f1
        Of the folds together, each predicted from the others.
    rows, predicted
        Those cells, and the class predicted of each.
    """

    penalty: float
    balanced: bool
    macro_f1: float
    rows: NDArray[np.int64]
    predicted: NDArray[np.int64]


def inner_folds(
    rows: NDArray[np.integer],
    *,
    coordinates: NDArray[np.floating] | None = None,
    slide: NDArray[np.generic] | None = None,
    groups: NDArray[np.generic] | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Divide cells into up to three folds, (n_rows,).

    Parameters
    ----------
    rows
        The cells to divide, as rows of the other arguments.
    coordinates
        Of all cells: each slide is cut into three strips of equally many cells across its longer extent. Where they are
        not known, whole slides are told, which differ as other slides will; the cells of one are divided at random.
    slide
        Of all cells; one slide if None.
    groups
        Of all cells, such as donors or slides, where whole ones are to be told: they go before strips if there are at
        least two.
    seed
        Of random folds.
    """
    placed = coordinates is not None and bool(np.isfinite(coordinates[rows]).all())
    if groups is None and not placed:
        groups = slide
    if groups is not None:
        names, code, size = np.unique(groups[rows], return_inverse=True, return_counts=True)
        if names.size > 1:
            fold_of, filled = np.zeros(names.size, dtype=np.int64), np.zeros(min(N_FOLDS, names.size))
            for group in np.argsort(-size, kind="stable"):  # the largest first, each to the emptiest fold
                fold_of[group] = filled.argmin()
                filled[fold_of[group]] += size[group]
            return fold_of[code.ravel()]
    if coordinates is None or not placed:
        return np.random.default_rng(seed).permutation(rows.size) % N_FOLDS
    folds = np.zeros(rows.size, dtype=np.int64)
    of_slide = np.zeros(rows.size, dtype=np.int64) if slide is None else np.unique(slide[rows], return_inverse=True)[1]
    for name in np.unique(of_slide):
        here = np.flatnonzero(of_slide == name)
        places = coordinates[rows[here], :2]
        along = places[:, int(np.ptp(places, axis=0).argmax())]
        order = np.argsort(along, kind="stable")
        folds[here[order]] = np.arange(here.size) * N_FOLDS // here.size
    return folds


def choose_probe(
    blocks: Sequence[Block],
    codes: NDArray[np.integer],
    rows: NDArray[np.integer],
    folds: NDArray[np.integer],
    settings: ProbeSettings = ProbeSettings(),
) -> Choice:
    """Choose penalty and weights of classes by macro-F1 on folds.

    Parameters
    ----------
    blocks
        Features of all cells.
    codes
        Classes of all cells; those of `rows` are looked at, and no others.
    rows, folds
        Cells to choose on, and the fold of each.
    settings
        What is given, and not chosen.
    """
    if rows.size > _CHOSEN_ON:
        some = np.sort(np.random.default_rng(settings.seed).permutation(rows.size)[:_CHOSEN_ON])
        rows, folds = rows[some], folds[some]
    n_classes = int(codes[rows].max(initial=0)) + 1
    penalties = PENALTIES if settings.penalty is None else (settings.penalty,)
    best: Choice | None = None
    for weighted in (False, True) if settings.balanced is None else (settings.balanced,):
        predicted = {one: np.zeros(rows.size, dtype=np.int64) for one in penalties}
        for fold in np.unique(folds):
            held, others = rows[folds == fold], rows[folds != fold]
            if others.size:
                for probe in _path(blocks, codes, others, n_classes, penalties, balanced=weighted):
                    predicted[probe.penalty][folds == fold] = probe.predict(blocks, held)
        for one, of_rows in predicted.items():
            score = macro_f1(codes[rows], of_rows, n_classes)
            if best is None or score > best.macro_f1:
                best = Choice(one, weighted, score, rows.astype(np.int64), of_rows)
    assert best is not None, "there is a penalty"
    return best


def fit_probe(
    blocks: Sequence[Block],
    codes: NDArray[np.integer],
    rows: NDArray[np.integer],
    n_classes: int,
    *,
    penalty: float,
    balanced: bool,
) -> Probe:
    """Fit a probe on some cells; whatever it learns, centres and scales included, is of them."""
    return next(_path(blocks, codes, rows, n_classes, (penalty,), balanced=balanced))


def macro_f1(labels: NDArray[np.integer], predicted: NDArray[np.integer], n_classes: int) -> float:
    """Return the mean F1 of the classes that occur."""
    n = max(n_classes, int(predicted.max(initial=0)) + 1)
    confusion = np.bincount(labels * n + predicted, minlength=n * n).reshape(n, n).astype(np.float64)
    return float(classification_scores(confusion).macro_f1)


def is_clearly_better(
    labels: NDArray[np.integer],
    one: NDArray[np.integer],
    other: NDArray[np.integer],
    tiles: Tiles,
    *,
    seed: int = 0,
) -> bool:
    """Tell whether one prediction has more macro-F1 than another by more than a standard error over tissue.

    For choices between what is simple and what is not: the better of two equals is the lucky one.
    """
    n = int(max(labels.max(initial=0), one.max(initial=0), other.max(initial=0))) + 1
    draws = np.vstack([np.ones(tiles.n), tile_draws(tiles, n_replicates=_REPLICATES, seed=seed)])
    scores = []
    for predicted in (one, other):
        of_tile = np.zeros((tiles.n, n * n))
        np.add.at(of_tile, (tiles.code, labels * n + predicted), 1.0)
        scores.append(classification_scores((draws @ of_tile).reshape(-1, n, n)).macro_f1)
    difference = scores[0] - scores[1]
    return bool(difference[0] > np.nanstd(difference[1:]))


def _joined(blocks: Sequence[Block], rows: NDArray[np.integer]) -> NDArray[np.float32]:
    return np.concatenate([block.values[rows] for block in blocks], axis=1)


def _path(
    blocks: Sequence[Block],
    codes: NDArray[np.integer],
    rows: NDArray[np.integer],
    n_classes: int,
    penalties: Sequence[float],
    *,
    balanced: bool,
) -> Iterator[Probe]:
    """Yield a probe for each penalty, the strongest first, each from where the one before ended."""
    features = _joined(blocks, rows)
    mean = features.mean(axis=0, dtype=np.float64)
    features -= mean.astype(np.float32)
    scale = np.empty(features.shape[1])
    first = 0
    for block in blocks:
        own = slice(first, first + block.values.shape[1])
        first = own.stop
        variance = float(np.square(features[:, own], dtype=np.float64).sum()) / rows.size
        scale[own] = block.weight * np.sqrt(_VARIANCE / variance) if variance > 0 else 0.0
    features *= scale.astype(np.float32)
    known, labels = np.unique(codes[rows], return_inverse=True)
    model = LogisticRegression(
        max_iter=_ITERATIONS, warm_start=True, class_weight="balanced" if balanced else None, solver="lbfgs"
    )
    for penalty in sorted(penalties, reverse=True):
        weight, bias = np.zeros((n_classes, scale.size)), np.full(n_classes, -_NEVER)
        if known.size == 1:
            bias[known] = 0.0
        else:
            model.set_params(C=1.0 / (penalty * rows.size))
            with warnings.catch_warnings():  # a weak penalty is stopped before its end, which is a penalty too
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(features, labels)
            found, constant = model.coef_, model.intercept_
            if known.size == 2:  # scikit-learn keeps the difference of the two
                found, constant = np.concatenate([-found, found]) / 2, np.concatenate([-constant, constant]) / 2
            weight[known], bias[known] = found, constant
            bias -= np.where(np.isin(np.arange(n_classes), known), 0.0, -constant.min())
        yield Probe(mean, scale, weight, bias, penalty, balanced)
