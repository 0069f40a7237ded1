"""Reading an h5ad without loading it, and writing a copy with more in it."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
from anndata.io import write_elem

from spaf_model._files import replace_file
from spaf_model.errors import InputError


@contextlib.contextmanager
def backed_h5ad(path: Path) -> Iterator[anndata.AnnData]:
    """Open an h5ad whose expression stays in the file, and close it.

    Raises
    ------
    InputError
        If there is no such file, or it is not an h5ad.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file.")
    try:
        with warnings.catch_warnings():
            # Where names have to be unique, they are checked, and the sentence says which one is not.
            warnings.filterwarnings("ignore", message="(Variable|Observation) names are not unique")
            adata = anndata.read_h5ad(path, backed="r")
    except PermissionError:
        raise
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read as an h5ad: {str(error).splitlines()[0]}") from error
    try:
        yield adata
    finally:
        adata.file.close()


def refuse_overwriting(source: Path, *outputs: Path | None) -> None:
    """Refuse to write over the input.

    Raises
    ------
    InputError
        If an output is the file that is read.
    """
    for output in outputs:
        if output is not None and output.exists() and source.exists() and output.samefile(source):
            raise InputError(f"The output would overwrite the input {source}; name another file.")


def write_copy(source: Path, output: Path, added: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a copy of an h5ad with elements added or replaced, whole or not at all.

    Parameters
    ----------
    source
        The h5ad to copy, as a file: everything else in it stays as it was, and nothing of it is loaded.
    output
        The h5ad to write.
    added
        Group (``"obsm"``, ``"uns"``, ..) -> key -> value.
    """
    output.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        shutil.copyfile(source, temporary)
        with h5py.File(temporary, "r+") as file:
            for group, elements in added.items():
                _make_group(file, group)
                for key, value in elements.items():
                    write_elem(file[group], key, value)

    replace_file(output, write)


def _make_group(file: h5py.File, name: str) -> None:
    """Make a group where there is none, or of the one table that files of before anndata 0.7 have in its place."""
    table = file.get(name)
    if isinstance(table, h5py.Dataset):
        values = table[()]
        del file[name]
        write_elem(file, name, {field: np.asarray(values[field]) for field in values.dtype.names or ()})
    elif table is None:
        write_elem(file, name, {})
