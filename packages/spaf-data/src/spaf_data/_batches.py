"""Cells in batches over threads: Numba kernels that release the lock, each batch returning arrays of its own size."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numba
import numpy as np

from spaf_data.errors import InputError

# Small enough that threads finish together, large enough that a batch takes milliseconds.
_TRANSCRIPTS_A_BATCH = 1 << 14

# Batches of each thread that are run before their results are wanted.
_BATCHES_AHEAD = 8

Result = TypeVar("Result")


def batch_bounds(n_transcripts: np.ndarray) -> np.ndarray:
    """Return where to cut a table of cells so that batches hold about equally many transcripts."""
    if len(n_transcripts) == 0:
        return np.zeros(1, np.int64)
    batch = (np.cumsum(n_transcripts) - n_transcripts) // _TRANSCRIPTS_A_BATCH
    return np.concatenate(([0], np.flatnonzero(np.diff(batch)) + 1, [len(n_transcripts)]))


def map_batches(
    kernel: Callable[[slice], Result],
    n_transcripts: np.ndarray,
    *,
    n_threads: int | None,
    done: Callable[[slice], None] | None = None,
) -> Iterator[Result]:
    """Yield ``kernel(cells)`` of every batch of cells, in the order of the cells, whatever thread ran it.

    `done` is called with the cells of each batch after its result was used.

    Threads rather than `numba.prange`: batches take what is free (a cell of 50,000 transcripts holds up one thread,
    not all), and each result is as long as it needs to be.
    """
    bounds = batch_bounds(n_transcripts)
    batches = [slice(int(a), int(b)) for a, b in itertools.pairwise(bounds)]
    n_threads = check_threads(n_threads)
    results = map(kernel, batches) if n_threads == 1 or len(batches) < 2 else _ahead(kernel, batches, n_threads)
    for batch, result in zip(batches, results, strict=True):
        yield result
        if done is not None:
            done(batch)


def _ahead(kernel: Callable[[slice], Result], batches: list[slice], n_threads: int) -> Iterator[Result]:
    with ThreadPoolExecutor(n_threads) as pool:
        # A slow consumer finds a few results waiting, not those of the whole slide.
        pending: deque[Future[Result]] = deque()
        for batch in batches:
            pending.append(pool.submit(kernel, batch))
            if len(pending) > _BATCHES_AHEAD * n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def check_threads(n_threads: int | None) -> int:
    """Return the number of threads to use: Numba's own where none is given."""
    if n_threads is None:
        of_numba: int = numba.get_num_threads()
        return min(of_numba, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else of_numba)
    if n_threads < 1:
        raise InputError(f"n_threads is {n_threads}; it must be at least 1")
    return n_threads
