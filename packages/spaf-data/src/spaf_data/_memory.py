"""Columns that lie in temporary files, and memory that is given back to the system as soon as it can be.

The system counts the pages of a mapped file as memory of the process until somebody else needs it. Whoever goes through
a long column once gives them back on the way, so that memory stays that of a part of the column. Allocators likewise
keep what was freed for the next time.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tempfile

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike

# Transcripts that are worked on between two calls of `release`.
TRANSCRIPTS_AT_A_TIME = 1 << 20


class _TemporaryMap(mmap.mmap):
    """A mapping of ours: shared with its file, so that pages that are given back can be read again."""


def mapped_array(n: int, kind: DTypeLike) -> np.ndarray:
    """Return an array of zeros in a temporary file that goes with the array.

    Raises
    ------
    OSError
        If the disk is too small for it.
    """
    n_bytes = max(1, n * np.dtype(kind).itemsize)
    with tempfile.TemporaryFile(prefix="spaf-data-") as file:
        file.truncate(n_bytes)
        if hasattr(os, "posix_fallocate"):
            # A disk that is full shows here; when pages are written it would end the process.
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        # The mapping outlives the name of the file.
        return np.ndarray(n, kind, buffer=_TemporaryMap(file.fileno(), n_bytes))


def release(*arrays: np.ndarray) -> None:
    """Give back the memory of arrays of `mapped_array`, of which nothing is lost, and leave others alone."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    for array in arrays:
        owner: object = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, _TemporaryMap):
            owner.madvise(mmap.MADV_DONTNEED)


def return_freed() -> None:
    """Make the allocators of Arrow and, on Linux with glibc, of C give back what is free; else do nothing."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
