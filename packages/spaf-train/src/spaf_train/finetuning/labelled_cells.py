"""Cells with a label, divided into those to learn from and those to be judged on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

import spaf_data
from spaf_data import InputError as DataInputError
from spaf_data import slides_of_cells, split_regions
from spaf_model import InputError

if TYPE_CHECKING:
    import anndata

logger = logging.getLogger(__name__)

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = (TRAIN, VALIDATION, TEST)
_SPLIT, _SPATIAL = "split", "spatial"


@dataclasses.dataclass(frozen=True)
class LabelledCells:
    """Labels and parts of cells."""

    label: str  # the obs column
    classes: tuple[str, ...]  # sorted
    codes: NDArray[np.int64]  # (n_cells,), -1 without a label or of a class that was left out
    part: NDArray[np.str_]  # (n_cells,): train, validation, test, or empty
    divided_by: str  # how, in words
    left_out: dict[str, int]  # classes with too few training cells, and how many cells of all parts they had
    n_gap: int = 0  # training cells left out because they lie within the gap of a held-out cell
    n_near: int = 0  # training cells that lie as near to a cell that is judged, and are used all the same

    def cells(self, part: str) -> NDArray[np.int64]:
        """Return the labelled cells of a part."""
        return np.flatnonzero((self.part == part) & (self.codes >= 0))

    @property
    def judged(self) -> list[str]:
        """Parts to judge on."""
        return [part for part in (VALIDATION, TEST) if self.cells(part).size]


def labelled_cells(
    adata: anndata.AnnData,
    label: str,
    *,
    split: str | None = None,
    hold_out: tuple[str, Sequence[str]] | None = None,
    validation_fraction: float = 0.3,
    gap: float = spaf_data.defaults.GAP,
    min_cells: int = 0,
    readable: NDArray[np.bool_] | None = None,
) -> LabelledCells:
    """Read labels and divide the cells.

    Parameters
    ----------
    adata
        Cells with ``obs[label]``.
    label
        Column of ``obs``; cells without a value are not used.
    split
        Column of ``obs`` that says ``train``, ``validation`` or ``test``; other values are not used. If None, the
        column ``split`` where there is one with training and validation, else regions of each slide
        (`spaf_data.split_regions`) by ``obsm["spatial"]``.
    hold_out
        A column of ``obs`` and those of its values that are validation, such as slides; all others are training, but
        for those within `gap` of a validation cell of their slide (`spaf_data.slide_column`, else all are of one).
    validation_fraction
        Of `split_regions`.
    gap
        In um, between training and validation cells where `obsm["spatial"]` says where they are; 0 for none. Of a
        `split` that is given all cells are used, and a warning says how many are nearer.
    min_cells
        Classes with fewer training cells are left out of all parts. With 0 a class that is judged must be among the
        training cells.
    readable
        Which cells a model can read, (n_cells,): the others have no gene of the model, and count as if they were not
        there. None: all.

    Raises
    ------
    InputError
        If a column is not there, a part is empty, there is only one class, or a class to be judged has no training
        cell, or none that can be read.
    """
    values = _column(adata, label, "label")
    is_word = values.astype(object).astype(str).str.strip().str.casefold().isin(spaf_data.keys.NO_VALUE)
    has_label = (values.notna() & ~is_word).to_numpy()
    if not has_label.any():
        raise InputError(f"obs[{label!r}] has no value for any cell.")
    if split is not None and hold_out is not None:
        raise InputError("Give either split or hold_out, not both.")
    if not gap >= 0.0:
        raise InputError(f"gap must be at least 0 um, not {gap}.")
    part, divided_by = _divide(adata, split, hold_out, validation_fraction, gap)
    near = _near_judged(adata, part, gap)
    n_near = int(near.sum())
    if n_near and hold_out is not None:
        part = np.where(near, "", part)
        divided_by += f", {n_near} training cells within {gap:g} um of them left out"
    elif n_near:
        divided_by += f", {n_near} training cells within {gap:g} um of cells to be judged on"
        logger.warning(
            "%d training cells lie within %g um of cells to be judged on (%s), so that scores lean to the good side.",
            n_near,
            gap,
            "obs['split']" if split is None else f"obs[{split!r}]",
        )
    names = values.astype(str).to_numpy()
    used = np.isin(part, PARTS) & has_label
    found = sorted(set(names[used]))
    in_training = pd.Series(names[used & (part == TRAIN)]).value_counts()
    if readable is not None:
        has_label &= readable
    known = "" if readable is None else " and a gene of the model"
    for needed in (TRAIN, VALIDATION):
        if not (has_label & (part == needed)).any():
            raise InputError(f"No cell with a label{known} is in the part {needed!r} ({divided_by}).")
    training = pd.Series(names[has_label & (part == TRAIN)]).value_counts()
    rare = [name for name in found if training.get(name, 0) < min_cells]
    left_out = {name: int((used & (names == name)).sum()) for name in rare}
    classes = tuple(name for name in found if name not in left_out)
    unseen = [name for name in classes if name not in training.index]
    unread = [f"{name!r} ({in_training[name]} cells)" for name in unseen if name in in_training.index]
    if unread:
        raise InputError(
            f"No training cell of {', '.join(unread)} has a gene of the model, so that there is nothing to learn such "
            "cells by; choose a model that knows the genes of the panel, or leave such classes out with min_cells= "
            "(--min-cells)."
        )
    if unseen:
        raise InputError(
            f"The training part ({divided_by}) has no cell of {', '.join(map(repr, unseen))}, which the cells to judge "
            f"on have; divide the cells otherwise, or leave rare classes out with min_cells= (--min-cells)."
        )
    if len(classes) < 2:
        only = f"only {classes[0]!r}" if classes else "no class"
        raise InputError(f"obs[{label!r}] must have at least two classes to tell apart; there is {only}.")
    codes = pd.Index(classes).get_indexer(pd.Index(names)).astype(np.int64)
    codes[~has_label] = -1
    nearer = {"n_near": n_near} if hold_out is None else {"n_gap": n_near}
    return LabelledCells(label, classes, codes, part, divided_by, left_out, **nearer)


def _divide(
    adata: anndata.AnnData,
    split: str | None,
    hold_out: tuple[str, Sequence[str]] | None,
    validation_fraction: float,
    gap: float,
) -> tuple[NDArray[np.str_], str]:
    if hold_out is not None:
        column, held = hold_out
        values = _column(adata, column, "hold_out").astype(str)
        absent = [name for name in held if name not in set(values)]
        if absent:
            raise InputError(
                f"obs[{column!r}] has no value {absent[0]!r}; it has: {', '.join(sorted(set(values))[:20])}."
            )
        return np.where(values.isin(list(held)), VALIDATION, TRAIN), f"{column} {', '.join(held)} held out"
    if split is not None:
        return _parts(_column(adata, split, "split"), split)
    if _SPLIT in adata.obs.columns and {TRAIN, VALIDATION} <= set(adata.obs[_SPLIT].astype(str)):
        return _parts(adata.obs[_SPLIT], _SPLIT)
    if _SPATIAL not in adata.obsm:
        raise InputError(
            f"The cells cannot be divided: obs has no column {_SPLIT!r} and obsm no {_SPATIAL!r}; name a column with "
            "split= (--split) or hold out slides with hold_out= (--hold-out)."
        )
    coordinates, slides = _places(adata)
    part = np.full(adata.n_obs, "", dtype="<U10")
    try:
        for slide in np.unique(slides):
            rows = slides == slide
            part[rows] = split_regions(coordinates[rows], validation_fraction=validation_fraction, gap=gap)
    except DataInputError as error:
        raise InputError(str(error)) from error
    return part, f"regions of each slide with a gap of {gap:g} um"


def _places(adata: anndata.AnnData) -> tuple[NDArray[np.float64], NDArray[np.generic]]:
    """Return coordinates (n_cells, 2) in um and the slide of each cell."""
    slides = slides_of_cells(adata.obs)
    slides = np.zeros(adata.n_obs, np.int64) if slides is None else slides
    return np.asarray(adata.obsm[_SPATIAL], dtype=np.float64)[:, :2], slides


def _near_judged(adata: anndata.AnnData, part: NDArray[np.str_], gap: float) -> NDArray[np.bool_]:
    """Say which training cells lie within the gap of a cell of their slide that is judged."""
    near = np.zeros(adata.n_obs, bool)
    if _SPATIAL not in adata.obsm or not gap > 0.0:
        return near
    coordinates, slides = _places(adata)
    placed = np.isfinite(coordinates).all(axis=1)
    for slide in np.unique(slides):
        here = (slides == slide) & placed
        train = np.flatnonzero(here & (part == TRAIN))
        judged = here & np.isin(part, (VALIDATION, TEST))
        if train.size and judged.any():
            distances, _ = cKDTree(coordinates[judged]).query(coordinates[train])
            near[train] = distances <= gap
    return near


def _parts(values: pd.Series, column: str) -> tuple[NDArray[np.str_], str]:
    names = values.astype(str).to_numpy()
    return np.where(np.isin(names, PARTS), names, "").astype(str), f"obs[{column!r}]"


def _column(adata: anndata.AnnData, name: str, option: str) -> pd.Series:
    if name not in adata.obs.columns:
        raise InputError(f"obs has no column {name!r} ({option}); it has: {', '.join(map(str, adata.obs.columns))}.")
    column: pd.Series = adata.obs[name]
    return column
