"""Tables and arrays as files: read with names left as they are, written whole or not at all."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_model._files import replace_file
from spaf_model.errors import InputError

_SEPARATORS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
_PARQUET = ".parquet"


def read_table(path: Path) -> pd.DataFrame:
    """Read a table, whose values stay text in a text file.

    Parameters
    ----------
    path
        ``.csv``, ``.tsv`` (either may end in ``.gz``) or ``.parquet``.

    Raises
    ------
    InputError
        If it is another kind of file, or cannot be read.
    FileNotFoundError
        If there is no such file.
    """
    kind = table_kind(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file.")
    try:
        # Names such as 0012, 1e5 or NA are names, not numbers or missing values.
        table = (
            pd.read_parquet(path).reset_index(drop=True)
            if kind == _PARQUET
            else pd.read_csv(path, sep=_SEPARATORS[kind], dtype=str, keep_default_na=False)
        )
    except PermissionError:
        raise
    except (OSError, ValueError) as error:  # pandas' and Arrow's errors of parsing are ValueErrors
        raise InputError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes surplus values of a row for its name
        raise InputError(f"{path} has rows with more values than there are columns.")
    return table


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table whole or not at all, in the format of the file's name (see `read_table`)."""
    kind = table_kind(path)

    def write(temporary: Path) -> None:
        if kind == _PARQUET:
            table.to_parquet(temporary, index=False)
        else:
            # The temporary file has another suffix, so compression has to be said.
            zipped = kind.endswith(".gz")
            table.to_csv(temporary, sep=_SEPARATORS[kind], index=False, compression="gzip" if zipped else None)

    _replace(path, write)


def write_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write an array as ``.npy``, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # by name, numpy would add its own suffix
            np.save(file, array)

    _replace(path, write)


def table_kind(path: Path) -> str:
    """Return the suffix that tells how a table is written.

    Raises
    ------
    InputError
        If it is not one of those known, or needs a library that is not installed.
    """
    for suffix in (*_SEPARATORS, _PARQUET):
        if path.name.lower().endswith(suffix):
            if suffix == _PARQUET and importlib.util.find_spec("pyarrow") is None:
                raise InputError(f"{path} needs the library pyarrow: pip install pyarrow, or use a .csv file.")
            return suffix
    raise InputError(f"{path} must end in one of {', '.join((*_SEPARATORS, _PARQUET))}.")


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, write)
