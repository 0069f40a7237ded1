"""Rows and columns of compressed sparse arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def csr_rows(indptr: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the entries of some rows, row after row, and the number of entries of each."""
    counts = indptr[rows + 1] - indptr[rows]
    ends = np.cumsum(counts)
    total = int(ends[-1]) if ends.size else 0
    return np.arange(total) + np.repeat(indptr[rows] - (ends - counts), counts), counts
