"""Imputed genes written block by block, for tables that do not fit into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from spaf_analysis.imputation.tool import ImputedTable

_CHUNK = (1024, 64)  # cells x genes that are read at once


def write_imputed(made: ImputedTable, out: Path) -> None:
    """Write an h5ad of which some genes are in memory at a time; the file is there whole or not at all.

    Parameters
    ----------
    made
        What `imputed_table` returned.
    out
        The file.
    """
    from spaf_model import replace_file

    def write(path: Path) -> None:
        shell = made.shell()
        shell.write_h5ad(path)
        with h5py.File(path, "r+") as file:
            if "X" in file:
                del file["X"]
            for genes, block in made.blocks():
                for name, values in block.items():
                    where = name if name == "X" else f"layers/{name}"
                    if where not in file:
                        _empty(file, where, shell.shape)
                    file[where][:, genes] = values

    replace_file(out, write)


def _empty(file: h5py.File, where: str, shape: tuple[int, int]) -> None:
    """Make an array as anndata's format has it."""
    chunks = tuple(max(min(size, most), 1) for size, most in zip(shape, _CHUNK, strict=True))
    array = file.create_dataset(where, shape, dtype=np.float32, chunks=chunks)
    array.attrs["encoding-type"] = "array"
    array.attrs["encoding-version"] = "0.2.0"
