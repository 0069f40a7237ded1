"""Expression matrices of every kind that an AnnData allows, as CSR in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from spaf_data.errors import InputError

_LARGEST_OF_HALF = 2048  # up to here float16 holds every integer
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


def counts_as_csr(matrix: Any, name: str = "X") -> sparse.csr_matrix:
    """Return a matrix of counts as CSR in memory, or say why its numbers are none as they are stored.

    Raises
    ------
    InputError
        If it says true and false, or has been rounded by a type of 16 bits.
    """
    dtype = np.dtype(matrix.dtype)
    if dtype.kind == "b":
        raise InputError(
            f"{name} says true and false, which genes are seen and not how often: name a layer with counts (layer, "
            "--layer) or, if no count is above 1, write it as integers"
        )
    found = as_csr(matrix)
    if dtype == np.float16 and found.nnz and found.data.max() > _LARGEST_OF_HALF:
        raise InputError(
            f"{name} is float16 and holds {found.data.max():.0f}, where that type has no odd numbers above "
            f"{_LARGEST_OF_HALF}, so counts were rounded: write them as integers or float32, or name another layer "
            "(layer, --layer)"
        )
    return found


def _in_memory(matrix: Any) -> sparse.csr_matrix:
    if not sparse.issparse(matrix):
        matrix = np.asarray(matrix)
    wanted = known_type(matrix.dtype)
    return sparse.csr_matrix(matrix if matrix.dtype == wanted else matrix.astype(wanted))


def known_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that scipy knows for the numbers of another.

    Raises
    ------
    InputError
        If it is none of numbers.
    """
    if dtype.kind not in "biuf":
        raise InputError(f"counts are numbers, and a matrix of {dtype} holds none")
    # float32 holds the integers of float16, which scipy does not know; nor does it know foreign orders of bytes.
    return np.dtype(np.float32) if dtype.kind == "f" and dtype.itemsize == 2 else dtype.newbyteorder("=")


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
