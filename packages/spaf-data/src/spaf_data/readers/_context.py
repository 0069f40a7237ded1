"""What the columns of a table of cells say of the slides that they are of."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from spaf_data import keys

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

# Columns of `obs` that a slide table has of its own.
OURS = frozenset({keys.SLIDE, *keys.CONTEXT, keys.AREA, keys.SPLIT, keys.N_TRANSCRIPTS, keys.NUCLEUS_FRACTION})


def context_of(
    obs: pd.DataFrame, of_cell: np.ndarray | None, where: str
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return what all cells are, and by cell what is not the same for all slides."""
    metadata: dict[str, str] = {}
    differing: dict[str, np.ndarray] = {}
    slides = np.array([keys.UNKNOWN]) if of_cell is None else np.unique(of_cell)
    if len(slides) > 1:
        assert of_cell is not None
        differing[keys.SLIDE] = of_cell
    elif slides[0] != keys.UNKNOWN:
        metadata[keys.SLIDE] = str(slides[0])
    for key in keys.CONTEXT:
        if key not in obs:
            continue
        rows = [np.flatnonzero(of_cell == slide) if len(slides) > 1 else np.arange(len(obs)) for slide in slides]
        values = [constant_of(obs[key].iloc[cells]) for cells in rows]
        for slide, cells, value in zip(slides, rows, values, strict=True):
            if value is None and obs[key].iloc[cells].notna().any():
                found = ", ".join(sorted(map(str, obs[key].iloc[cells].dropna().unique())))
                logger.warning(
                    "%s has several values in obs column %r for one slide%s: %s; its %s is unknown unless given (--%s)",
                    where, key, "" if slide == keys.UNKNOWN else f" ({slide})", found, key, key,
                )  # fmt: skip
        if len(set(values)) > 1:
            differing[key] = np.empty(len(obs), dtype=object)
            for cells, value in zip(rows, values, strict=True):
                differing[key][cells] = value or keys.UNKNOWN
        elif values[0] is not None:
            metadata[key] = values[0]
    return metadata, differing


def constant_of(column: pd.Series) -> str | None:
    """Return the one value of a column; None where it has none or several."""
    values = column.dropna().unique()
    return str(values[0]) if len(values) == 1 else None
