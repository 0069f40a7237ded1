"""The classifiers behind annotation, in the manner of scikit-learn: they pass its `check_estimator`."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from spaf_train.evaluation import Block, ProbeSettings, choose_probe, fit_probe

N_NEIGHBORS = 15
_SMOOTHED = 0.5  # of a neighbour, that every class has in the votes
_N_FOLDS = 3


class _Classifier(ClassifierMixin, BaseEstimator):
    """What both have in common: names of classes, and everything that follows from the logits."""

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the logits, (n_cells, n_classes); of two classes the second less the first, as scikit-learn has it."""
        logits = self.logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class, (n_cells, n_classes)."""
        return np.asarray(softmax(self.logits(X), axis=1))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class of each cell."""
        best = self.logits(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def logits(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the logits of all classes, (n_cells, n_classes)."""
        raise NotImplementedError

    def _read(self, X: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        features, labels = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"the labels hold one class, {self.classes_[0]!r}; at least 2 are needed.")
        return features, codes.ravel().astype(np.int64)

    def _asked(self, X: ArrayLike) -> NDArray[np.float32]:
        check_is_fitted(self)
        found: NDArray[np.float32] = validate_data(self, X, dtype=np.float32, reset=False)
        return found


class LabelProbe(_Classifier):
    """Multinomial logistic regression whose penalty and weights of classes are chosen on parts of what it is given.

    Parameters
    ----------
    penalty
        Half of it times the squared weights is added to the mean loss; None chooses.
    balanced
        Whether rare classes count as much as frequent ones; None chooses.
    random_state
        Seed of the parts, where `fit` is given none, and of the cells that stand for more.

    Attributes
    ----------
    classes_
        Names of the classes, sorted.
    probe_
        The fitted `spaf_train.evaluation.Probe`.

    Examples
    --------
    >>> import numpy as np
    >>> from spaf_analysis.annotate import LabelProbe
    >>> rng = np.random.default_rng(0)
    >>> features = np.concatenate([rng.normal(0, 1, (20, 3)), rng.normal(4, 1, (20, 3))])
    >>> LabelProbe().fit(features, ["a"] * 20 + ["b"] * 20).score(features, ["a"] * 20 + ["b"] * 20)
    1.0
    """

    def __init__(
        self, penalty: float | None = None, balanced: bool | None = None, random_state: int | None = 0
    ) -> None:
        self.penalty = penalty
        self.balanced = balanced
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Choose, then fit.

        Parameters
        ----------
        X
            Cells x features, finite.
        y
            Their classes.
        groups
            Parts of the cells, such as tiles or donors, on which penalty and weights are chosen: each is predicted from
            the others. None, or one part alone: parts drawn at random.
        """
        features, codes = self._read(X, y)
        rows, blocks = np.arange(codes.size), [Block(features)]
        seed = 0 if self.random_state is None else int(self.random_state)
        parts = np.zeros(codes.size, dtype=np.int64)
        if groups is not None:
            parts = np.unique(np.asarray(groups), return_inverse=True)[1].ravel().astype(np.int64)
        if np.unique(parts).size < 2:
            # In an order that the rows do not change but by their values.
            parts = np.random.default_rng(seed).permutation(codes.size) % min(_N_FOLDS, codes.size)
        penalty, balanced = self.penalty, self.balanced
        if penalty is None or balanced is None:
            given = ProbeSettings(penalty=penalty, balanced=balanced, seed=seed)
            chosen = choose_probe(blocks, codes, rows, parts, given)
            penalty, balanced = chosen.penalty, chosen.balanced
        self.probe_ = fit_probe(blocks, codes, rows, len(self.classes_), penalty=penalty, balanced=balanced)
        return self

    def logits(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the logits of all classes, (n_cells, n_classes)."""
        features = self._asked(X)
        return self.probe_.logits([Block(features)], np.arange(len(features)))


class NearestLabels(_Classifier):
    """The votes of the nearest cells, smoothed so that no class is impossible.

    Parameters
    ----------
    n_neighbors
        Cells that vote; all where there are fewer.
    """

    def __init__(self, n_neighbors: int = N_NEIGHBORS) -> None:
        self.n_neighbors = n_neighbors

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Keep the cells."""
        features, codes = self._read(X, y)
        self.neighbors_ = KNeighborsClassifier(min(self.n_neighbors, codes.size)).fit(features, codes)
        return self

    def logits(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the logarithms of the shares of votes, (n_cells, n_classes)."""
        shares = self.neighbors_probabilities(X)
        votes = self.n_neighbors * shares + _SMOOTHED / len(self.classes_)
        return np.asarray(np.log(votes / votes.sum(axis=1, keepdims=True)))

    def neighbors_probabilities(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the plain shares of votes, (n_cells, n_classes)."""
        asked = self._asked(X)
        return np.asarray(self.neighbors_.predict_proba(asked), dtype=np.float64)
