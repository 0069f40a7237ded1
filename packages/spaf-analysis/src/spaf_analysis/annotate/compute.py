"""Classes of cells of a query by labelled cells of a reference, with probabilities that were held to what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from spaf_analysis.annotate.estimators import LabelProbe, NearestLabels
from spaf_analysis.errors import InputError
from spaf_train.evaluation import macro_f1

COUNTS, PCA, NEAREST = "log counts", "PCA", "k-NN"
EMBEDDING, BOTH = "embedding", "embedding and log counts"
TUNED = "fine-tuned"
METHODS = (COUNTS, PCA, NEAREST, EMBEDDING, BOTH)  # and TUNED, where a model is trained
_IMPOSSIBLE = -20.0  # nats, of a class that no cell has to learn from
_TEMPERATURES = (-3.0, 3.0)  # natural logarithms
REJECTED = np.round(np.arange(0.0, 0.55, 0.05), 2)  # shares of the cells of the rejection curve

# A method: the features that it reads, and whether neighbours vote in place of a regression.
Features = Mapping[str, NDArray[np.float32]]
Given = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


@dataclass(frozen=True)
class Annotation:
    """Classes of the cells of a query.

    Attributes
    ----------
    classes
        Names, for the columns of `probabilities`.
    probabilities
        (n_query, n_classes), after scaling by the temperature that made held-out cells of the reference most likely.
    method
        That was used.
    threshold
        Of the largest probability, below which a cell is called unknown.
    judged
        `judge_methods`: a row a method, by macro-F1 on held-out parts of the reference, best first.
    reliability
        Ten bins of the largest probability of held-out cells: `low, high, n, probability, right`.
    rejection
        `rejected, threshold, accuracy`: what the rest of the held-out cells reaches when the least certain are left.
    per_class
        `class, n, precision, recall, f1` on held-out cells of the reference.
    confusion
        Classes x classes, held-out cells of the reference: rows are labels.
    """

    classes: list[str]
    probabilities: NDArray[np.float64]
    method: str
    threshold: float
    judged: pd.DataFrame
    reliability: pd.DataFrame
    rejection: pd.DataFrame
    per_class: pd.DataFrame
    confusion: pd.DataFrame

    @property
    def codes(self) -> NDArray[np.int64]:
        """Class of each cell, -1 for unknown, (n_query,)."""
        best = self.probabilities.argmax(axis=1)
        certain = self.probabilities.max(axis=1) >= self.threshold
        return np.where(certain, best, -1)


def annotate_arrays(
    features: Features,
    codes: NDArray[np.int64],
    classes: list[str],
    folds: NDArray[np.int64],
    *,
    method: str = "auto",
    unknown: float = 0.05,
    given: Given | None = None,
) -> Annotation:
    """Predict the classes of a query.

    Parameters
    ----------
    features
        What each method reads, (n_reference + n_query, n_features), the reference first; of `METHODS`.
    codes
        (n_reference,), classes of the reference; -1 for cells without one, which nothing is learnt from.
    classes
        Names of the codes.
    folds
        (n_reference,), parts of the reference, each predicted from the others: tiles, slides or donors.
    method
        One of the features, or "auto": the one with the most macro-F1 on the held-out parts.
    given
        Logits of methods that are not fitted here: of the labelled cells, each by what did not see its part, and of the
        query.
    unknown
        Share of the held-out cells of the reference that the threshold of "unknown" would call so.

    Raises
    ------
    InputError
        If there is no such method, or `unknown` is no share below 1.
    """
    given = given or {}
    if method != "auto" and method not in (*features, *given):
        raise InputError(
            f"there is no method {method!r} here; the methods are: auto, {', '.join((*features, *given))}."
        )
    if not 0.0 <= unknown < 1.0:
        raise InputError(f"the share of cells called unknown must be at least 0 and below 1, not {unknown:g}.")
    rows = np.flatnonzero(codes >= 0)
    judged, held = judge_methods(features, codes, folds, len(classes), given=given)
    chosen = str(judged["method"].iloc[0]) if method == "auto" else method
    logits = held[chosen]
    temperature = _temperature(logits, codes[rows])
    sure = softmax(logits / temperature, axis=1)
    threshold = float(np.quantile(sure.max(axis=1), unknown)) if unknown > 0.0 else 0.0
    if chosen in given:
        found = given[chosen][1]
    else:
        query = np.arange(codes.size, len(features[chosen]))
        found = _logits(chosen, features[chosen], codes, rows, query, len(classes), folds[rows])
    confusion = np.zeros((len(classes), len(classes)))
    np.add.at(confusion, (codes[rows], sure.argmax(axis=1)), 1.0)
    return Annotation(
        classes=classes,
        probabilities=softmax(found / temperature, axis=1),
        method=chosen,
        threshold=threshold,
        judged=judged,
        reliability=_reliability(sure, codes[rows]),
        rejection=_rejection(sure, codes[rows]),
        per_class=_per_class(confusion, classes),
        confusion=pd.DataFrame(confusion.astype(np.int64), index=pd.Index(classes, name="label"), columns=classes),
    )


def judge_methods(
    features: Features,
    codes: NDArray[np.int64],
    folds: NDArray[np.int64],
    n_classes: int,
    *,
    given: Given | None = None,
) -> tuple[pd.DataFrame, dict[str, NDArray[np.float64]]]:
    """Predict every part of the reference from the others by every method.

    Returns
    -------
    tuple
        A table `method, macro_f1, accuracy`, best first, and the logits of the labelled cells by method.
    """
    rows = np.flatnonzero(codes >= 0)
    held: dict[str, NDArray[np.float64]] = {}
    scores = []
    for method, values in features.items():
        logits = np.zeros((rows.size, n_classes))
        for fold in np.unique(folds[rows]):
            out = folds[rows] == fold
            logits[out] = _logits(method, values, codes, rows[~out], rows[out], n_classes, folds[rows[~out]])
        held[method] = logits
    for method, (of_reference, _) in (given or {}).items():
        held[method] = of_reference
    for method, logits in held.items():
        predicted = logits.argmax(axis=1)
        right = float((predicted == codes[rows]).mean())
        scores.append((method, macro_f1(codes[rows], predicted, n_classes), right))
    table = pd.DataFrame(scores, columns=["method", "macro_f1", "accuracy"])
    return table.sort_values("macro_f1", ascending=False, kind="stable", ignore_index=True), held


def _logits(
    method: str,
    values: NDArray[np.float32],
    codes: NDArray[np.int64],
    known: NDArray[np.int64],
    asked: NDArray[np.int64],
    n_classes: int,
    folds: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Learn from some cells and return logits of others; whatever is chosen is chosen on parts of the known ones."""
    model = NearestLabels() if method == NEAREST else LabelProbe()
    logits = np.full((asked.size, n_classes), _IMPOSSIBLE)
    if np.unique(codes[known]).size == 1:  # of a part of the reference that holds one class
        logits[:, codes[known][0]] = 0.0
        return logits
    given = {} if method == NEAREST else {"groups": folds}
    model.fit(values[known], codes[known], **given)
    if asked.size:
        found = model.logits(values[asked])
        # A class that none of the known cells has is less likely than any that some have.
        logits[:] = found.min(axis=1, keepdims=True) + _IMPOSSIBLE
        logits[:, model.classes_] = found
    return logits


def _temperature(logits: NDArray[np.float64], codes: NDArray[np.int64]) -> float:
    """Return the temperature under which labels are most likely (Guo et al. 2017, section 4.2)."""
    rows = np.arange(codes.size)
    loss = lambda log: -float(log_softmax(logits / np.exp(log), axis=1)[rows, codes].mean())  # noqa: E731
    found = minimize_scalar(loss, bounds=_TEMPERATURES, method="bounded")
    return float(np.exp(found.x))


def _reliability(probabilities: NDArray[np.float64], codes: NDArray[np.int64]) -> pd.DataFrame:
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == codes
    edges = np.linspace(0.0, 1.0, 11)
    place = np.clip(np.searchsorted(edges, sure, side="right") - 1, 0, 9)
    n = np.bincount(place, minlength=10)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, weights=sure, minlength=10) / n
        observed = np.bincount(place, weights=right, minlength=10) / n
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "n": n, "probability": mean, "right": observed})


def _rejection(probabilities: NDArray[np.float64], codes: NDArray[np.int64]) -> pd.DataFrame:
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == codes
    thresholds = np.quantile(sure, REJECTED)
    kept = [sure >= threshold for threshold in thresholds]
    return pd.DataFrame(
        {"rejected": REJECTED, "threshold": thresholds, "accuracy": [float(right[one].mean()) for one in kept]}
    )


def _per_class(confusion: NDArray[np.float64], classes: list[str]) -> pd.DataFrame:
    right, of_label, of_prediction = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(
            {
                "class": classes,
                "n": of_label.astype(np.int64),
                "precision": right / of_prediction,
                "recall": right / of_label,
                "f1": 2.0 * right / (of_label + of_prediction),
            }
        )
