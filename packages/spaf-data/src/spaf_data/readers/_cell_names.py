"""What the names of cells mean: numbers however they are written, and the words for "in no cell"."""

from __future__ import annotations

import re
from collections.abc import Collection

from spaf_data import keys
from spaf_data.errors import InputError

# In no cell, on any platform; compared without regard to case. No instrument names a cell so.
NO_CELL_WORDS = keys.NO_VALUE | {"unassigned", "nil"}

# -1 as signed and as unsigned integers of 32 and 64 bits hold it.
_NO_CELL_NUMBERS = frozenset({-1, 2**32 - 1, 2**64 - 1})

_WHOLE = re.compile(r"[+-]?\d+(\.0*)?")
_ROUNDED = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+|[+-]?\d+\.0*")
# Five or more decimals of a number whose last digits they do not reach, as formats like %e and %.6g cut it.
_CUT = re.compile(r"[+-]?\d\.(\d{5,})[eE]\+?(\d+)")
LARGEST_EXACT = 2**53  # above it, not every integer is a 64-bit float


def is_no_cell(name: str, also: Collection[str] = ()) -> bool:
    """Whether a name stands for no cell.

    Parameters
    ----------
    name
        As a table has it.
    also
        What else does on this platform, such as "0"; numbers are compared as numbers.

    Examples
    --------
    >>> [is_no_cell(name) for name in ("NaN", "-1.0", "4294967295", "0", "cell-1")]
    [True, True, True, False, False]
    >>> is_no_cell("0.0", also=["0"])
    True
    """
    text = name.strip()
    if text.casefold() in NO_CELL_WORDS or text in also:
        return True
    if _WHOLE.fullmatch(text) is None:
        return False
    number = int(text.partition(".")[0])
    named = {int(word.partition(".")[0]) for word in map(str.strip, also) if _WHOLE.fullmatch(word)}
    return number in _NO_CELL_NUMBERS or number in named


def cell_name(name: str, *, where: object, column: str) -> str:
    """Return the name of a cell in its only spelling: a number without the decimals that a float gave it.

    Raises
    ------
    InputError
        If it is a number that a float has rounded, so that several cells may have become one, or is negative.
    """
    text = name.strip()
    if _ROUNDED.fullmatch(text) is not None and abs(float(text)) >= LARGEST_EXACT:
        raise InputError(
            f"{where} has the {column} {text}, a number that went through a float, which holds no such number exactly: "
            "different cells may have become one; write the table anew with ids as integers or text"
        )
    cut = _CUT.fullmatch(text)
    if cut is not None and int(cut[2]) > len(cut[1]):
        raise InputError(
            f"{where} has the {column} {text}, a number that was written without its last digits: different cells may "
            "have become one; write the table anew with ids as integers or text"
        )
    if _WHOLE.fullmatch(text) is None:
        return name
    number = text.partition(".")[0]
    if number.startswith("-") and number.strip("-0"):
        raise InputError(f"{where} has the {column} {text}; a cell's number cannot be negative (-1 is no cell)")
    return number.lstrip("+") if "." in text or text.startswith("+") else text
