"""Rows of compressed sparse arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spaf_model import RankedCells


def csr_rows(indptr: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the entries of some rows, row after row, and the number of entries of each."""
    counts = indptr[rows + 1] - indptr[rows]
    ends = np.cumsum(counts)
    total = int(ends[-1]) if ends.size else 0
    return np.arange(total) + np.repeat(indptr[rows] - (ends - counts), counts), counts


def take_ranked(ranked: RankedCells, rows: NDArray[np.int64]) -> RankedCells:
    """Return some of the cells."""
    index, n_genes = csr_rows(ranked.indptr, rows)
    return RankedCells(np.concatenate([[0], np.cumsum(n_genes)]), ranked.tokens[index])
