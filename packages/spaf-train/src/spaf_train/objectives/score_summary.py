"""Scores of two classes in bounded memory: what the area under their ROC curve needs of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_BUFFER = 1 << 20  # scores held as they are before they are summarised
_GROUPS = 1 << 17  # different scores kept of a summary: 2.6 MB


class ScoreSummary:
    """How many positives and negatives have which score, for any number of items.

    Up to `groups` different scores are exact. Beyond, scores that lie next to each other are taken together in groups
    that each hold a like share of all items, and count as tied.

    Parameters
    ----------
    buffer, groups
        What is held at once, and what is kept; both bound the memory.

    Notes
    -----
    A group holds about 1 / groups of all items, and only the order within groups is lost: the area is off by less than
    1 / (2 groups) for each time that items are taken together, and by some 1e-6 in all in trials, whatever the order in
    which scores come. O(n log buffer) time.
    """

    def __init__(self, *, buffer: int = _BUFFER, groups: int = _GROUPS) -> None:
        self._buffer = buffer
        self._groups = groups
        self._values: NDArray[np.float32] = np.zeros(0, dtype=np.float32)  # ascending, each once
        self._counts: NDArray[np.int64] = np.zeros((0, 2), dtype=np.int64)  # negatives and positives of each
        self._held: list[tuple[NDArray[np.float32], NDArray[np.bool_]]] = []
        self._n_held = 0

    def add(self, scores: NDArray[np.floating], labels: NDArray[np.generic]) -> None:
        """Add items: scores (n,), and labels (n,) that are above 0 for positives."""
        scores, positive = np.asarray(scores, dtype=np.float32), np.asarray(labels) > 0
        for start in range(0, scores.size, self._buffer):
            part = slice(start, start + self._buffer)
            self._held.append((scores[part].copy(), positive[part].copy()))
            self._n_held += self._held[-1][0].size
            if self._n_held >= self._buffer:
                self._summarise()

    def parts(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the scores that are kept, ascending, and their numbers of negatives and positives, (n, 2)."""
        self._summarise()
        return self._values, self._counts

    def _summarise(self) -> None:
        if not self._n_held:
            return
        scores, positive = (np.concatenate(pieces) for pieces in zip(*self._held, strict=True))
        self._held, self._n_held = [], 0
        new = np.stack([~positive, positive], axis=1).astype(np.int64)
        self._values, self._counts = _merged([(self._values, self._counts), (scores, new)])
        if self._values.size > self._groups:
            self._values, self._counts = _grouped(self._values, self._counts, self._groups)


def auroc_of(parts: Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]]) -> tuple[float, int, int]:
    """Return the area under the ROC curve of the items of several `ScoreSummary.parts`, NaN where a class is missing.

    Returns
    -------
    tuple
        The area, and the numbers of negatives and positives.
    """
    _, counts = _merged(list(parts))
    negatives, positives = (counts[:, side].astype(np.float64) for side in (0, 1))
    n_negative, n_positive = negatives.sum(), positives.sum()
    if n_negative == 0 or n_positive == 0:
        return float("nan"), int(n_negative), int(n_positive)
    below = np.cumsum(negatives) - negatives
    area = (positives * (below + negatives / 2.0)).sum() / (n_negative * n_positive)
    return float(area), int(n_negative), int(n_positive)


def _merged(
    parts: list[tuple[NDArray[np.float32], NDArray[np.int64]]],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return all scores of some parts, ascending and each once, with their numbers."""
    values = np.concatenate([part[0] for part in parts])
    counts = np.concatenate([part[1] for part in parts])
    if not values.size:
        return values, counts
    order = np.argsort(values, kind="stable")
    values = values[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    return values[starts], np.add.reduceat(counts[order], starts, axis=0)


def _grouped(
    values: NDArray[np.float32], counts: NDArray[np.int64], n_groups: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Take neighbouring scores together, so that about `n_groups` of like numbers are left, each at its mean."""
    mass = counts.sum(axis=1)
    before = np.cumsum(mass) - mass
    group = before * n_groups // int(mass.sum())
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    total = np.add.reduceat(mass, starts)
    mean = np.add.reduceat(values.astype(np.float64) * mass, starts) / total
    return mean.astype(np.float32), np.add.reduceat(counts, starts, axis=0)
