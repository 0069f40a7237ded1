"""Spots of an array: what their places in it say of the size of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from spaf_data.errors import InputError

# Of the array of Visium spots, in um: half the distance of two spots of a row, which is one column of the array, and
# the distance of two rows.
COLUMN, ROW = 50.0, 50.0 * 3**0.5
_LEAST_SPOTS = 3
_TOLERANCE = 0.05  # of the two measures of a lattice against each other
_ARRAY = ("array_row", "array_col")


def lattice_pixel_size(positions: pd.DataFrame, *, column: float, row: float, where: object) -> float:
    """Return um a pixel from the places of a lattice in the array and in the image.

    Parameters
    ----------
    positions
        ``array_row``, ``array_col``, ``pxl_row_in_fullres`` and ``pxl_col_in_fullres`` of each spot.
    column, row
        Distances of neighbouring columns and rows of the array, in um.
    where
        For messages.

    Raises
    ------
    InputError
        If there are too few spots to measure, or they lie on no such lattice.

    Notes
    -----
    An affine map from the array to the image by least squares, so that the slide may be turned or mirrored; its
    determinant is the area of a cell of the lattice in square pixels.
    """
    advice = "give pixel_size (--pixel-size) in um"
    array = positions[["array_row", "array_col"]].to_numpy(dtype=np.float64)
    image = positions[["pxl_row_in_fullres", "pxl_col_in_fullres"]].to_numpy(dtype=np.float64)
    known = np.isfinite(array).all(axis=1) & np.isfinite(image).all(axis=1)
    design = np.column_stack([array[known], np.ones(known.sum())])
    if known.sum() < _LEAST_SPOTS or np.linalg.matrix_rank(design) < 3:
        raise InputError(f"{where} has too few spots to measure the lattice that tells the size of pixels; {advice}")
    steps, *_ = np.linalg.lstsq(design, image[known], rcond=None)
    left = np.sqrt(np.square(design @ steps - image[known]).sum(axis=1).mean())
    by_row, by_column = np.linalg.norm(steps[:2], axis=1)
    if min(by_row, by_column) < 1e-6:  # pixels
        raise InputError(f"{where} has all spots at one place of the image, so the size of pixels is unknown; {advice}")
    sizes = np.array([row / by_row, column / by_column])
    if np.ptp(sizes) > _TOLERANCE * sizes.mean() or left * sizes.mean() > column:
        raise InputError(
            f"the spots of {where} lie on no lattice of {column:g} and {row:.4g} um: a pixel would be {sizes[0]:.4g} "
            f"um by rows and {sizes[1]:.4g} um by columns; {advice}"
        )
    return float(np.sqrt(row * column / abs(np.linalg.det(steps[:2]))))


def table_pixel_size(obs: pd.DataFrame, places: np.ndarray, uns: Mapping[str, Any], *, where: str) -> float | None:
    """Return um a pixel of a table of spots that says their places in the array; None where it says none.

    Parameters
    ----------
    obs
        Of one slide. Visium has ``array_row`` and ``array_col``, both even or both odd in every spot; in other grids
        every row has all columns.
    places
        Of the spots, in pixels (or um, of which a pixel is one then).
    uns
        Of the AnnData; squidpy and scanpy keep ``scalefactors`` of the run in ``spatial``, which say the side of the
        bins of Visium HD.
    where
        For messages.

    Raises
    ------
    InputError
        If the places are no lattice as the array is one, or too few to measure.
    """
    if not set(_ARRAY) <= set(obs.columns):
        return None
    array = obs[list(_ARRAY)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    known = np.isfinite(array).all(axis=1)
    if not known.any():
        return None
    column, row = COLUMN, ROW
    if ((array[known].sum(axis=1) % 2) != 0).any():
        side = _bin_side(uns)
        if side is None:
            return None
        column = row = side
    positions = pd.DataFrame(array, columns=_ARRAY)
    positions["pxl_row_in_fullres"], positions["pxl_col_in_fullres"] = places[:, 1], places[:, 0]
    return lattice_pixel_size(positions, column=column, row=row, where=where)


def _bin_side(uns: Mapping[str, Any]) -> float | None:
    """Return the side of the bins of Visium HD in um, as far as all libraries say the same."""
    libraries = uns.get("spatial")
    said = set()
    for library in libraries.values() if isinstance(libraries, Mapping) else ():
        factors = library.get("scalefactors") if isinstance(library, Mapping) else None
        side = factors.get("bin_size_um") if isinstance(factors, Mapping) else None
        if side is not None:
            said.add(float(side))
    return said.pop() if len(said) == 1 and min(said) > 0 else None
