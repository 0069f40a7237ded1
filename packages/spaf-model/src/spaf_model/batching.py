"""Batches of sequences of similar length under a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spaf_model.errors import InputError


def token_budget_batches(lengths: NDArray[np.integer] | Sequence[int], budget: int) -> list[NDArray[np.int64]]:
    """Group sequences by length into batches of at most `budget` tokens, padding included.

    Parameters
    ----------
    lengths
        Tokens of each sequence.
    budget
        Most tokens of a padded batch; a longer sequence is a batch of its own.

    Returns
    -------
    list of arrays
        Positions of the sequences of each batch, shortest sequences first; each sequence is in exactly one batch.

    Examples
    --------
    >>> token_budget_batches([5, 2, 5, 3], budget=10)
    [array([1, 3]), array([0, 2])]
    """
    if budget < 1:
        raise InputError(f"The token budget must be at least 1, not {budget}.")
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order].tolist()
    batches: list[NDArray[np.int64]] = []
    start = 0
    for stop in range(1, len(ordered) + 1):
        # Sorted lengths: the next sequence would be the longest of the batch.
        if stop == len(ordered) or (stop + 1 - start) * ordered[stop] > budget:
            batches.append(order[start:stop])
            start = stop
    return batches
