"""The published table of gene medians, a pickle, read without running anything that is in it."""

from __future__ import annotations

import io
import math
import pickle
import struct
from typing import Any

from spaf_model.errors import InputError

_FORMATS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i"}  # numpy's names of number types -> those of struct
# What a damaged pickle makes the unpickler raise.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    IndexError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    ImportError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
)


class _Refused(Exception):
    """Raised for what a pickle of numbers does not need; says what it is."""


class _Dtype:
    """Stands for ``numpy.dtype`` of a number."""

    def __init__(self, name: str, *_: object) -> None:
        if name not in _FORMATS:
            raise _Refused(f"numbers of the numpy type {name!r}")
        self.format = _FORMATS[name]
        self.byte_order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">"):
            raise _Refused(f"numbers of the byte order {state[1]!r}")
        self.byte_order = state[1]


class _Scalar(float):
    """Stands for the function with which numpy pickles one number."""

    def __new__(cls, dtype: _Dtype, data: bytes) -> _Scalar:
        return super().__new__(cls, struct.unpack(dtype.byte_order + dtype.format, data)[0])

    def __setstate__(self, state: object) -> None:
        raise _Refused("a number with a state")


# Classes with a __setstate__ of their own, so that a pickle cannot set their attributes either.
_ALLOWED: dict[tuple[str, str], type] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy._core.multiarray", "scalar"): _Scalar,
}


class _NumbersOnly(pickle.Unpickler):
    """Unpickler of plain containers and numbers; numpy's numbers are made by the stand-ins above."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"{module}.{name}")
        return _ALLOWED[module, name]


def read_gene_medians(content: bytes, *, source: str) -> dict[str, float]:
    """Read the pickled dictionary gene -> median.

    Python and numpy numbers are understood. Anything else that the pickle asks for is refused before it is looked up,
    so nothing in it can run.

    Parameters
    ----------
    content
        The pickle.
    source
        Its name, for messages.

    Raises
    ------
    InputError
        If the pickle is damaged, asks for anything but numbers, or does not hold a dictionary of genes and finite
        numbers above 0.
    """
    try:
        medians = _NumbersOnly(io.BytesIO(content)).load()
    except _Refused as error:
        raise InputError(
            f"{source} asks for {error} and was not loaded: it must be a dictionary of numbers."
        ) from error
    except _DAMAGE as error:
        raise InputError(f"{source} is not a readable pickle: {error or type(error).__name__}.") from error
    if not isinstance(medians, dict) or not medians:
        raise InputError(f"{source} must hold a dictionary of genes and their medians.")
    for gene, median in medians.items():
        if not isinstance(gene, str):
            raise InputError(f"{source} has the key {gene!r} where a gene is expected.")
        if isinstance(median, bool) or not isinstance(median, (int, float)):
            raise InputError(f"{source} has a {type(median).__name__} where the median of {gene!r} is expected.")
        if not 0 < median < math.inf:
            raise InputError(f"{source} gives the gene {gene!r} the median {median}; it must be above 0 and finite.")
    return {gene: float(median) for gene, median in medians.items()}
