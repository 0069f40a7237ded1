"""Columns of lists, as Arrow holds them, taken apart into lengths and values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spaf_data.errors import InputError

_LARGEST_OF_HALF = 2048  # up to here float16 holds every integer


def is_list(kind: pa.DataType) -> bool:
    """Whether values of a type are lists, of fixed or any length."""
    kind = getattr(kind, "storage_type", kind)
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def lists(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Return the length of each list, 0 where it is null, and the values of all behind each other.

    Raises
    ------
    TypeError
        If the column holds no lists.
    """
    column = _stored(column)
    if not is_list(column.type):
        raise TypeError(str(column.type))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths, _stored(column.flatten())


def row_lists(column: pa.Array, depth: int = 1) -> tuple[list[np.ndarray], pa.Array]:
    """Return the lengths of lists at each depth and the values; a list of a single such list counts as it.

    A row of a matrix is often kept as a matrix of one row: ``[[1, 0, 2]]``.

    Raises
    ------
    TypeError
        If the column holds no lists of this depth.

    Examples
    --------
    >>> lengths, values = row_lists(pa.array([[[1, 0, 2]], [[5]]]))
    >>> lengths[0].tolist(), values.to_pylist()
    ([3, 1], [1, 0, 2, 5])
    """
    found = []
    deepest = _depth(column.type)
    for _ in range(deepest - depth):
        lengths, column = lists(column)
        if (lengths != 1).any():
            raise TypeError(f"lists of {int(lengths[lengths != 1][0])} lists")
    for _ in range(depth):
        lengths, column = lists(column)
        found.append(lengths)
    return found, column


def _depth(kind: pa.DataType) -> int:
    depth = 0
    while is_list(kind):
        kind = getattr(kind, "storage_type", kind).value_type
        depth += 1
    return depth


def numbers_of(values: pa.Array) -> np.ndarray:
    """Return numbers as float64, NaN where null.

    Raises
    ------
    TypeError
        If they are none.
    InputError
        If float16 has rounded them.
    """
    if pa.types.is_null(values.type):
        return np.full(len(values), np.nan)
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise TypeError(str(kind))
    found = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
    if pa.types.is_float16(kind) and found.size and np.nanmax(found) > _LARGEST_OF_HALF:
        raise InputError(
            f"float16 holds no odd numbers above {_LARGEST_OF_HALF}, so a value of {np.nanmax(found):.0f} was rounded"
        )
    return found


def _stored(column: pa.Array) -> pa.Array:
    """Return a column without extension type and dictionary, which say nothing of its values."""
    column = getattr(column, "storage", column)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
