"""Context tokens of cells: condition, tissue, species and assay, from arguments or from ``obs``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_model.errors import InputError
from spaf_model.vocabulary import CONTEXT_KINDS, UNKNOWN, Vocabulary


def context_ids(
    vocabulary: Vocabulary, obs: pd.DataFrame, given: Mapping[str, str | None] | None = None
) -> NDArray[np.int64]:
    """Return the ids of condition, tissue, species and assay of each cell, (n_cells, 4).

    Parameters
    ----------
    vocabulary
        Knows the names.
    obs
        Table of cells; its columns ``condition``, ``tissue``, ``species`` and ``assay`` are used where present.
    given
        A name for all cells, by kind; goes before the column.

    Raises
    ------
    InputError
        If a kind is neither given nor a column, a cell has no value, or a name is not in the vocabulary.
    """
    given = given or {}
    ids = np.empty((len(obs), len(CONTEXT_KINDS)), dtype=np.int64)
    for column, kind in enumerate(CONTEXT_KINDS):
        name = given.get(kind)
        if name is not None and not isinstance(name, str):
            raise InputError(
                f"{kind} is one word for all cells, not {name!r}; where cells differ, put it into obs[{kind!r}] and "
                f"leave {kind} out."
            )
        if name is not None:
            ids[:, column] = vocabulary.context_id(kind, name)
        elif kind in obs.columns:
            codes, names = pd.factorize(obs[kind])
            empty = np.flatnonzero(codes < 0)
            if empty.size:
                raise InputError(f"obs[{kind!r}] has no value for cell {obs.index[empty[0]]!r}.")
            ids[:, column] = np.array([vocabulary.context_id(kind, str(name)) for name in names], dtype=np.int64)[codes]
        else:
            raise InputError(
                f"The {kind} of the cells is not known: obs has no column {kind!r}; give {kind}=, "
                f"one of: {', '.join(vocabulary.context[kind])}{_or_unknown(vocabulary, kind)}."
            )
    return ids


def _or_unknown(vocabulary: Vocabulary, kind: str) -> str:
    return f" ('{UNKNOWN}' says that it is not known)" if UNKNOWN in vocabulary.context[kind] else ""
