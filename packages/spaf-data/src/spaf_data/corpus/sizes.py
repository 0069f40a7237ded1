"""How large the arrays of a block may be: checked before anything is inflated, for a record can lie.

A kilobyte inflates to as much as a megabyte, and a header may claim anything. What the manifest knows of a block (its
cells and pairs, and the genes of the corpus) bounds every array of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_NAME_BYTES = 1024  # of a cell's name in UTF-8
_MOST_BYTES = 1 << 30  # of a block of which nothing is known


@dataclass(frozen=True, kw_only=True)
class BlockSize:
    """What a manifest says of a block."""

    n_cells: int  # halo included
    n_pairs: int
    n_genes: int  # of the corpus


def size_problem(arrays: Mapping[str, Mapping[str, Any]], size: BlockSize | None) -> str | None:
    """Say what is wrong with the sizes that the records of a block claim; None if they can be.

    Parameters
    ----------
    arrays
        The records of the arrays, by name.
    size
        Of the manifest; without it, as for a stream, the arrays have to fit each other and 1 GiB.

    Raises
    ------
    KeyError, TypeError, ValueError
        If a record lacks something or has something of another kind.
    """
    shapes = {name: tuple(record["shape"]) for name, record in arrays.items()}
    for name, shape in shapes.items():
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            return f"array {name} has the shape {list(shape)}"
    for name, record in arrays.items():
        if record["encoding-type"] != "string-array" and not all(
            np.dtype(record[key]).kind in "iuf" and np.dtype(record[key]).itemsize <= 8 for key in ("stored", "dtype")
        ):
            return f"array {name} is of no kind of number"
    n_cells = shapes["cell_ids"][0] if size is None else size.n_cells
    n_entries = shapes["genes"][0]
    exact = {
        "cell_ids": (n_cells,),
        "coordinates": (n_cells, 2),
        "indptr": (n_cells + 1,),
        "counts": (n_entries,),
        "colocalized_indptr": (n_cells + 1,),
        "colocalized_genes": (-(-n_entries // 8),),
    }
    most = {}
    if size is not None:
        exact["positive_pairs"] = (size.n_pairs, 2)
        most["genes"] = n_cells * size.n_genes
        most["colocalized"] = n_cells * size.n_genes * (size.n_genes - 1)  # two genes a pair
        most["colocalized_bits"] = -(-n_entries * max(size.n_genes - 1, 0) // 16)
    for name, shape in shapes.items():
        if name in exact and shape != exact[name]:
            return f"array {name} claims the shape {list(shape)} instead of {list(exact[name])}"
        if math.prod(shape) > most.get(name, math.prod(shape)):
            return f"array {name} claims {math.prod(shape)} values, and {most[name]} is the most there can be"
    if arrays["cell_ids"]["text_bytes"] > (MAX_NAME_BYTES + 1) * n_cells:
        return f"array cell_ids claims {arrays['cell_ids']['text_bytes']} bytes for {n_cells} names"
    if size is None and sum(_n_bytes(record) for record in arrays.values()) > _MOST_BYTES:
        return f"it claims more than {_MOST_BYTES >> 20} MB"
    return None


def _n_bytes(record: Mapping[str, Any]) -> int:
    if record["encoding-type"] == "string-array":
        return int(record["text_bytes"])
    widest = max(np.dtype(record[key]).itemsize for key in ("stored", "dtype"))
    return int(math.prod(record["shape"]) * widest)
