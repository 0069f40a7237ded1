"""Context, slide and place of cells, from arguments or from the AnnData."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_model.errors import InputError
from spaf_model.vocabulary import CONTEXT_KINDS, UNKNOWN, Vocabulary

if TYPE_CHECKING:
    import anndata

SLIDE_COLUMNS = ("slide", "slide_id", "library_id", "sample", "sample_id", "section")  # the first that is there
SPATIAL = "spatial"


def context_ids(
    vocabulary: Vocabulary,
    obs: pd.DataFrame,
    given: Mapping[str, str | None] | None = None,
    *,
    needed: Collection[str] = CONTEXT_KINDS,
) -> NDArray[np.int64]:
    """Return the ids of condition, tissue, species and assay of each cell, (n_cells, 4).

    A model whose vocabulary knows no context reads none: its cells have -1.

    Parameters
    ----------
    vocabulary
        Knows the names.
    obs
        Table of cells; its columns ``condition``, ``tissue``, ``species`` and ``assay`` are used where present.
    given
        A name for all cells, by kind; goes before the column.
    needed
        Kinds that must be known. The others are -1 where nothing says them, or a column says what the model does not
        know.

    Raises
    ------
    InputError
        If a needed kind is neither given nor a column, a cell has no value, or a name is not in the vocabulary.
    """
    given = given or {}
    if not any(vocabulary.context.values()):
        return np.full((len(obs), len(CONTEXT_KINDS)), -1, dtype=np.int64)
    missing = [kind for kind in CONTEXT_KINDS if kind in needed and given.get(kind) is None and kind not in obs.columns]
    if len(missing) > 1:
        raise InputError(_several_missing(vocabulary, missing))
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
            if empty.size and kind in needed:
                raise InputError(f"obs[{kind!r}] has no value for cell {obs.index[empty[0]]!r}.")
            of_names = [_id_or_none(vocabulary, kind, str(name), needed=kind in needed) for name in names]
            ids[:, column] = np.array([*of_names, -1], dtype=np.int64)[codes]  # a code of -1 is the last
        elif kind not in needed:
            ids[:, column] = -1
        else:
            raise InputError(
                f"The {kind} of the cells is not known: obs has no column {kind!r}; give {kind}=, "
                f"one of: {', '.join(vocabulary.context[kind])}{_or_unknown(vocabulary, kind)}."
            )
    return ids


def _id_or_none(vocabulary: Vocabulary, kind: str, name: str, *, needed: bool) -> int:
    """Return the id of a name; -1 for one that is not known and not needed."""
    try:
        return vocabulary.context_id(kind, name)
    except InputError:
        if needed:
            raise
        return -1


def slides_of(obs: pd.DataFrame, key: str | None = None) -> tuple[NDArray[np.int64], list[str]]:
    """Return the number of the slide of each cell, (n_cells,), and the names of the slides in the order they come.

    Parameters
    ----------
    obs
        Table of cells.
    key
        Column that says the slide; None takes ``slide`` or another usual one (`SLIDE_COLUMNS`) where it is there, and
        else all cells are of one slide, named "".

    Raises
    ------
    InputError
        If there is no such column, or a cell has no value in it.
    """
    if key is not None and key not in obs.columns:
        raise InputError(
            f"obs has no column {key!r} (slide_key); it has: {', '.join(map(str, obs.columns)) or 'none'}."
        )
    column = next((name for name in SLIDE_COLUMNS if name in obs.columns), None) if key is None else key
    if column is None:
        return np.zeros(len(obs), dtype=np.int64), [""]
    codes, names = pd.factorize(obs[column])
    empty = np.flatnonzero(codes < 0)
    if empty.size:
        raise InputError(f"obs[{column!r}] has no slide for cell {obs.index[empty[0]]!r}.")
    return codes.astype(np.int64), [str(name) for name in names]


def places_of(adata: anndata.AnnData) -> NDArray[np.float64] | None:
    """Return the coordinates of the cells, (n_cells, 2 or 3); None where there is no ``obsm["spatial"]``.

    Raises
    ------
    InputError
        If they are no numbers, or of another shape. Some may be NaN: what a family makes of that is its own affair.
    """
    if SPATIAL not in adata.obsm:
        return None
    try:
        places = np.asarray(adata.obsm[SPATIAL], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"obsm[{SPATIAL!r}] does not hold numbers: {error}.") from error
    if places.ndim != 2 or places.shape[1] not in (2, 3):
        raise InputError(f"obsm[{SPATIAL!r}] must have 2 or 3 coordinates a cell, not the shape {places.shape}.")
    return places


def _several_missing(vocabulary: Vocabulary, kinds: list[str]) -> str:
    """Say what to give where several kinds of context are not known."""
    choices = [f"{kind}= (one of: {', '.join(vocabulary.context[kind])})" for kind in kinds]
    unknown = all(UNKNOWN in vocabulary.context[kind] for kind in kinds)
    return (
        f"The {_and(kinds)} of the cells are not known: obs has no columns of these names; give {_and(choices)}, on "
        f"the command line {_and([f'--{kind}' for kind in kinds])}"
        + (f" ('{UNKNOWN}' says that one is not known)." if unknown else ".")
    )


def _and(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _or_unknown(vocabulary: Vocabulary, kind: str) -> str:
    return f" ('{UNKNOWN}' says that it is not known)" if UNKNOWN in vocabulary.context[kind] else ""
