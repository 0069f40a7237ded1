"""Which slide a cell is of, where one object holds the cells of several."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

from spaf_data import keys
from spaf_data.corpus.tiling import tile_cells
from spaf_data.errors import InputError

SLIDE_COLUMNS = (
    keys.SLIDE,
    "slide_id",
    "slide_name",
    "library_id",
    "sample",
    "sample_id",
    "sample_name",
    "section",
    "section_id",
    "slice",
    "slice_id",
)
"""Columns that say the slide of a cell, as they are usually called; capitals, spaces and dashes do not matter.

A field of view (``fov``) is none: fields of one slide share a frame, and cells beside a border between two of them
are neighbours. Neither are ``batch``, ``donor`` and ``patient``, which may have several slides, or one several of them.
"""

# Two cells of one slide are hardly ever nearer than a tenth of the usual distance to the sixth nearest cell. On 38 real
# slides (Xenium, MERSCOPE, CosMx, VeraFISH, Molecular Cartography, STARmap, Visium, Spatial Transcriptomics) at most
# .44 % of the cells are, and on all but three none; of two to four slides in one frame .8 to 5.5 %, of 16 slides 9 %.
_NEAR = 0.1
_LEAST_SHARE_NEAR = 0.01
# Few cells are no evidence: of cells scattered at random some 6 % are so near.
_LEAST_NEAR = 20
# Spots of several slides may lie on one and the same grid. (Some cells at the very place of another are cells that were
# segmented twice: 16 % of published osmFISH cells.)
_LEAST_SHARE_ON_ANOTHER = 0.5
_RANK = 6
# Where two slides overlap at a corner, few cells of all are near those of another, but many of those in the corner: a
# tile of 64 to 127 cells with three such cells belongs to it. On these slides few tiles have more than two, at most
# five cells of one; those of osmFISH, whose cells are doubled, have up to 16, but everywhere.
_TILE_CELLS = 64
_LEAST_NEAR_IN_TILE = 3
_LEAST_NEAR_IN_TILES = 10
_MOST_SHARE_ELSEWHERE = 0.01  # of cells so near, or it is no matter of a corner
_LEAST_CELLS_ELSEWHERE = 200
_TIMES_CHANCE = 3  # what tiles of these hold by chance, with as many near cells as elsewhere
_NO_SLIDE = keys.NO_VALUE | {keys.UNKNOWN}  # in a column of names
_MOST_SLIDES = 200  # that a column is taken for in a question


def slide_column(obs: pd.DataFrame, key: str | None = None, *, where: str = "the AnnData") -> str | None:
    """Return the column of a table of cells that says which slide each cell is of.

    Parameters
    ----------
    obs
        Table of cells.
    key
        The column, where it is known; it goes before what is usual.
    where
        For messages.

    Returns
    -------
    The column: ``key``; else ``"slide"`` unless all it says is ``"unknown"``; else the first of `SLIDE_COLUMNS` that
    has several values, or else that is there. None if there is none. Columns of fractions, and those in which more
    than half of the cells have a value of their own, are passed over.

    Raises
    ------
    InputError
        If there is no column ``key``, or the column has no value for some cells, or a word for none such as ``"nan"``
        beside names of slides.

    Examples
    --------
    >>> slide_column(pd.DataFrame({"fov": [1, 2, 1, 2], "Sample ID": ["a", "a", "b", "b"]}))
    'Sample ID'
    """
    if key is not None:
        if key not in obs:
            raise InputError(
                f"{where} has no obs column {key!r} (slide_key, --slide-key); it has: "
                f"{', '.join(map(str, obs.columns)) or 'nothing'}"
            )
        found: str | None = key
    else:
        found = _usual_column(obs)
    missing = np.zeros(len(obs), bool) if found is None else without_slide(obs[found])
    if missing.any():
        n_empty = int(missing.sum())
        raise InputError(
            f"{where} has no slide in obs column {found!r} for {n_empty} of its {len(obs)} cells, the first is "
            f"{str(obs.index[int(np.argmax(missing))])!r}; name another column (slide_key, --slide-key), or "
            "say that all cells are of one slide (one_slide, --one-slide)"
        )
    return found


def without_slide(column: pd.Series) -> npt.NDArray[np.bool_]:
    """Whether each cell has no slide: no value, or a word for none beside slides that have names."""
    empty = column.isna().to_numpy(dtype=bool)
    words = {value for value in column[~empty].unique() if str(value).strip().casefold() in _NO_SLIDE}
    said = column.isin(list(words)).to_numpy(dtype=bool)
    return empty if (empty | said).all() else empty | said


def _usual_column(obs: pd.DataFrame) -> str | None:
    if keys.SLIDE in obs and not _says_unknown(obs[keys.SLIDE]):
        return keys.SLIDE
    rank = {name: place for place, name in enumerate(SLIDE_COLUMNS)}
    there = sorted(
        (rank[_plain(name)], place, name)
        for place, name in enumerate(obs.columns)
        if isinstance(name, str) and _plain(name) in rank and name != keys.SLIDE and _names_groups(obs[name])
    )
    usual = [name for _, _, name in there]
    return next((name for name in usual if obs[name].nunique() > 1), usual[0] if usual else None)


def _plain(name: str) -> str:
    return name.casefold().replace(" ", "_").replace("-", "_").replace(".", "_")


def _says_unknown(column: pd.Series) -> bool:
    return {str(value) for value in column.unique()} <= {keys.UNKNOWN}


def _names_groups(column: pd.Series) -> bool:
    if pd.api.types.is_float_dtype(column.dtype) and not (column.dropna() % 1 == 0).all():
        return False
    return column.nunique() <= max(1, len(column) // 2)


def slides_of_cells(
    obs: pd.DataFrame, key: str | None = None, *, where: str = "the AnnData"
) -> npt.NDArray[np.str_] | None:
    """Return the slide of each cell by `slide_column`; None where no column says it.

    Examples
    --------
    >>> slides_of_cells(pd.DataFrame({"sample": [1.0, 1.0, 2.0, 2.0]})).tolist()
    ['1', '1', '2', '2']
    """
    column = slide_column(obs, key, where=where)
    if column is None:
        return None
    values = obs[column]
    if pd.api.types.is_float_dtype(values.dtype) and (values % 1 == 0).all():  # numbers that once had a gap
        values = values.astype(np.int64)
    return np.char.strip(values.astype(str).to_numpy(dtype=str))


def check_slides_apart(
    points: npt.NDArray[np.float64], slide: npt.NDArray[np.str_] | None, obs: pd.DataFrame, *, where: str
) -> None:
    """Ask which slide the cells are of, where those of one slide cannot all be of it.

    Parameters
    ----------
    points
        Places of cells, (n_cells, 2).
    slide
        The slide of each cell as far as known.
    obs
        Table of cells, whose columns the question names.
    where
        For messages.

    Raises
    ------
    InputError
        If the cells of a slide lie between each other as only those of several slides can.
    """
    groups = [np.arange(len(points))] if slide is None else [np.flatnonzero(slide == v) for v in np.unique(slide)]
    for cells in groups:
        n_near = n_impossible(points[cells])
        if n_near:
            whose = "" if slide is None else f" of slide {str(slide[cells[0]])!r}"
            raise InputError(
                f"{n_near} of the {len(cells)} cells{whose} in {where} lie on or almost on another one: are these "
                f"several slides? Name the obs column that says the slide of each cell with slide_key (--slide-key)"
                f"{_columns_that_part(points[cells], obs.iloc[cells])}, or say that they are one slide with "
                "one_slide=True (--one-slide)"
            )


def n_impossible(points: npt.NDArray[np.float64]) -> int:
    """Return how many cells lie nearer to another than those of one slide do; 0 where one slide can be so."""
    if len(points) <= _RANK:
        return 0
    distances = np.asarray(cKDTree(points).query(points, k=_RANK + 1)[0])
    n_on_another = int((distances[:, 1] == 0).sum())
    if n_on_another >= max(_LEAST_NEAR, _LEAST_SHARE_ON_ANOTHER * len(points)):
        return n_on_another
    is_near = distances[:, 1] < _NEAR * np.median(distances[:, _RANK])
    n_near = int(is_near.sum())
    # Slides in one frame have many cells near those of another and few at their very place; doubled cells the reverse.
    if n_on_another > n_near // 2:
        return 0
    if n_near - n_on_another >= max(_LEAST_NEAR, _LEAST_SHARE_NEAR * len(points)):
        return n_near
    return _n_near_in_corner(points, is_near & (distances[:, 1] > 0))


def _n_near_in_corner(points: npt.NDArray[np.float64], is_near: npt.NDArray[np.bool_]) -> int:
    """Return how many cells of a part of the slide lie so near, where hardly any do elsewhere; else 0."""
    if is_near.sum() < _LEAST_NEAR_IN_TILES:
        return 0
    tiles = tile_cells(points, 2 * _TILE_CELLS - 1)
    size, near = np.bincount(tiles), np.bincount(tiles, weights=is_near)
    corner = near >= _LEAST_NEAR_IN_TILE
    n_elsewhere, n_near = int(size[~corner].sum()), int(near[corner].sum())
    if n_elsewhere < _LEAST_CELLS_ELSEWHERE or near[~corner].sum() > _MOST_SHARE_ELSEWHERE * n_elsewhere:
        return 0
    # Near cells come in pairs: a tile needs two of them, whose number is Poisson's elsewhere.
    pairs = near[~corner].sum() / 2 / n_elsewhere * size
    by_chance = float((2 * pairs * -np.expm1(-pairs)).sum())
    return n_near if n_near >= _LEAST_NEAR_IN_TILES + _TIMES_CHANCE * by_chance else 0


def _columns_that_part(points: npt.NDArray[np.float64], obs: pd.DataFrame) -> str:
    """Name the columns whose values part the cells into slides that can be."""
    good = [
        str(name)
        for name in obs
        if 1 < obs[name].nunique() <= _MOST_SLIDES
        and not obs[name].isna().any()
        and not any(n_impossible(points[obs[name] == value]) for value in obs[name].unique())
    ]
    return f" (such as {', '.join(map(repr, good[:5]))})" if good else ""
