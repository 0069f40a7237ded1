"""Rows and columns of compressed sparse arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def csr_rows(indptr: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the entries of some rows, row after row, and the number of entries of each."""
    counts = indptr[rows + 1] - indptr[rows]
    ends = np.cumsum(counts)
    total = int(ends[-1]) if ends.size else 0
    return np.arange(total) + np.repeat(indptr[rows] - (ends - counts), counts), counts


def tokens_of_genes(counts: sparse.csr_matrix, token_of_gene: NDArray[np.int64], n_tokens: int) -> sparse.csr_array:
    """Return counts of genes, (n_cells, n_genes), as float32 counts of tokens; genes without a token are left out."""
    known = np.flatnonzero(token_of_gene >= 0)
    ones = np.ones(known.size, dtype=np.float32)
    to_tokens = sparse.csr_array((ones, (known, token_of_gene[known])), shape=(token_of_gene.size, n_tokens))
    return sparse.csr_array(sparse.csr_array(counts).astype(np.float32) @ to_tokens)
