"""Encodings of the arrays inside a block: what is stored, under which name and version.

Every stored array is described by a small record (``encoding-type``, ``encoding-version``, shape and data types), and
:func:`decode_array` finds the reader by (type, version), so a later version is added beside the ones that exist.

``packed-array`` 0.1.0
    The values column by column (a two-dimensional array is transposed), in the narrowest unsigned type that holds
    them (floating-point values keep their type), little-endian, byte planes apart (all low bytes, then all next
    bytes ...), deflated with zlib.
``delta-array`` 0.1.0
    Non-negative integers as differences to the row before, modulo the width of the stored type; then as above. Made
    for sorted values: gene codes within a cell, row pointers, sorted pairs.
``string-array`` 0.1.0
    UTF-8 strings joined by NUL, deflated with zlib.
"""

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from spaf_data.errors import InputError

VERSION = "0.1.0"
# zlib's levels above 1 make blocks 4 % to 6 % smaller and take twice the time and more to write.
_LEVEL = 6
_UNSIGNED = ("<u1", "<u2", "<u4", "<u8")

Record = dict[str, Any]


def encode_array(values: npt.NDArray[Any], *, delta: bool = False) -> tuple[Record, bytes]:
    """Encode an array of numbers or strings.

    Parameters
    ----------
    values
        Floating-point numbers, non-negative integers or strings, of one or two dimensions (strings: one).
    delta
        Store integers as differences along the first axis.

    Returns
    -------
    The record that describes the array, and its bytes.
    """
    if values.dtype.kind in "UO":
        return _encode_strings(values)
    kind = "delta-array" if delta else "packed-array"
    stored = values
    if values.dtype.kind in "iu":
        assert values.size == 0 or values.min() >= 0, "only non-negative integers are stored"
        width = next(t for t in _UNSIGNED if values.size == 0 or values.max() <= np.iinfo(t).max)
        stored = values.astype(width)
        if delta:
            stored = np.diff(stored, axis=0, prepend=stored[:1] * 0)
    stored = np.ascontiguousarray(stored.astype(stored.dtype.newbyteorder("<"), copy=False).T)
    planes = stored.reshape(-1).view(np.uint8).reshape(-1, stored.dtype.itemsize).T
    payload = zlib.compress(planes.tobytes(), _LEVEL)
    record = {
        "encoding-type": kind,
        "encoding-version": VERSION,
        "shape": list(values.shape),
        "dtype": values.dtype.newbyteorder("<").str,
        "stored": stored.dtype.str,
        "nbytes": len(payload),
    }
    return record, payload


def decode_array(record: Record, payload: bytes | memoryview) -> npt.NDArray[Any]:
    """Decode what :func:`encode_array` returned.

    Raises
    ------
    InputError
        If the encoding is unknown or the bytes do not hold what the record says.
    """
    encoding = (record["encoding-type"], record["encoding-version"])
    if encoding not in _READERS:
        known = ", ".join(f"{name} {version}" for name, version in _READERS)
        raise InputError(f"array encoding {encoding[0]} {encoding[1]} is unknown to this version; it knows: {known}.")
    return _READERS[encoding](record, payload)


def _encode_strings(values: npt.NDArray[Any]) -> tuple[Record, bytes]:
    strings = [str(value) for value in values]
    if any("\0" in value for value in strings):
        raise InputError("a name contains the character NUL, which cannot be stored.")
    text = "\0".join(strings).encode()
    payload = zlib.compress(text, _LEVEL)
    record = {
        "encoding-type": "string-array",
        "encoding-version": VERSION,
        "shape": [len(strings)],
        "text_bytes": len(text),
        "nbytes": len(payload),
    }
    return record, payload


def _inflate(payload: bytes | memoryview, n_bytes: int) -> bytes:
    """Inflate to exactly ``n_bytes``, never to more: a record that lies cannot fill the memory."""
    inflater = zlib.decompressobj()
    try:
        # One byte more than expected, because zlib takes a limit of 0 as no limit.
        data = inflater.decompress(payload, n_bytes + 1)
    except zlib.error as error:
        raise InputError(f"compressed data is damaged ({error}).") from error
    if len(data) != n_bytes or not inflater.eof:
        raise InputError("compressed data does not have the length its record says.")
    return data


def _decode_packed(record: Record, payload: bytes | memoryview) -> npt.NDArray[Any]:
    shape = tuple(record["shape"])
    stored = np.dtype(record["stored"])
    planes = np.frombuffer(_inflate(payload, math.prod(shape) * stored.itemsize), np.uint8)
    flat = np.ascontiguousarray(planes.reshape(stored.itemsize, -1).T).reshape(-1).view(stored)
    return flat.reshape(shape[::-1])


def _read_packed(record: Record, payload: bytes | memoryview) -> npt.NDArray[Any]:
    return np.ascontiguousarray(_decode_packed(record, payload).T).astype(record["dtype"], copy=False)


def _read_delta(record: Record, payload: bytes | memoryview) -> npt.NDArray[Any]:
    differences = _decode_packed(record, payload)
    # Sums in the stored type wrap around exactly as the differences did.
    values = np.cumsum(differences, axis=-1, dtype=differences.dtype)
    return np.ascontiguousarray(values.T).astype(record["dtype"], copy=False)


def _read_strings(record: Record, payload: bytes | memoryview) -> npt.NDArray[Any]:
    (n_strings,) = record["shape"]
    text = _inflate(payload, record["text_bytes"]).decode()
    strings = text.split("\0") if n_strings else []
    if len(strings) != n_strings:
        raise InputError(f"{len(strings)} names are stored where {n_strings} were announced.")
    return np.array(strings, dtype=str)


_READERS: dict[tuple[str, str], Callable[[Record, bytes | memoryview], npt.NDArray[Any]]] = {
    ("packed-array", "0.1.0"): _read_packed,
    ("delta-array", "0.1.0"): _read_delta,
    ("string-array", "0.1.0"): _read_strings,
}
