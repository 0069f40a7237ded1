"""Places of cells, and the slides that they are of: what is checked before distances are asked for."""

import numpy as np
import numpy.typing as npt

from spaf_data.errors import InputError

Coordinates = npt.NDArray[np.floating]
Slides = npt.ArrayLike


def check_coordinates(coordinates: Coordinates) -> npt.NDArray[np.float64]:
    """Return coordinates as float64, or raise InputError if they are not finite values of shape (n_cells, 2)."""
    points = np.asarray(coordinates, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(f"coordinates must have the shape (n_cells, 2), not {points.shape}.")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        raise InputError(f"the coordinates of cell {bad[0]} are not finite: {tuple(points[bad[0]].tolist())}.")
    return points


def cells_by_slide(slide: Slides | None, n_cells: int) -> list[npt.NDArray[np.int64]]:
    """Return the indices of the cells of each slide, ascending, in order of the slides' names."""
    if slide is None:
        return [np.arange(n_cells)]
    names, codes = np.unique(np.asarray(slide).astype(str), return_inverse=True)
    if len(codes) != n_cells:
        raise InputError(f"slide names those of {len(codes)} cells, but there are {n_cells} cells.")
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.searchsorted(codes[order], np.arange(1, len(names))))
