"""Expression matrices of every kind that an AnnData allows, as CSR in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

_ROWS_AT_A_TIME = 1 << 13  # of dense matrices, whose zeros never lie in memory all at once


def as_csr(matrix: Any) -> sparse.csr_matrix:
    """Return a matrix of an AnnData as CSR in memory.

    Parameters
    ----------
    matrix
        Dense or sparse of any format, of dask with chunks of either, or in the file of a backed AnnData. Data that are
        CSR in memory are not copied.

    Examples
    --------
    >>> as_csr(np.array([[0, 2]], np.float16)).dtype
    dtype('float32')
    """
    if hasattr(matrix, "dask"):
        return _of_blocks(matrix)
    if hasattr(matrix, "to_memory"):  # CSR or CSC of a backed file
        matrix = matrix.to_memory()
    elif not sparse.issparse(matrix) and hasattr(matrix, "chunks"):  # dense of a file
        return _stacked([_in_memory(matrix[i : i + _ROWS_AT_A_TIME]) for i in range(0, len(matrix), _ROWS_AT_A_TIME)])
    return _in_memory(matrix)


def _in_memory(matrix: Any) -> sparse.csr_matrix:
    if not sparse.issparse(matrix):
        matrix = np.asarray(matrix)
    if matrix.dtype == np.float16:  # which scipy does not know; float32 holds its integers
        matrix = matrix.astype(np.float32)
    return sparse.csr_matrix(matrix)


def _of_blocks(matrix: Any) -> sparse.csr_matrix:
    # Each block by itself: what dask makes of blocks of CSR side by side differs between its versions.
    n_rows, n_columns = matrix.numblocks
    return _stacked(
        [
            sparse.csr_matrix(
                sparse.hstack([_in_memory(matrix.blocks[row, column].compute()) for column in range(n_columns)])
            )
            for row in range(n_rows)
        ]
    )


def _stacked(parts: list[sparse.csr_matrix]) -> sparse.csr_matrix:
    return parts[0] if len(parts) == 1 else sparse.csr_matrix(sparse.vstack(parts))
