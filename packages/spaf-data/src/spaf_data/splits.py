"""Splits without leaks: whole slides, or regions of a slide with a gap between them."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from spaf_data import defaults, keys
from spaf_data.coordinates import cells_by_slide, check_coordinates
from spaf_data.errors import InputError


def split_regions(
    coordinates: npt.NDArray[np.floating],
    *,
    validation_fraction: float = defaults.VALIDATION_FRACTION,
    gap: float = defaults.GAP,
    axis: Literal["longer", "x", "y"] = "longer",
    side: Literal["high", "low"] = "high",
    tile_size: float | None = None,
    seed: int = 0,
    slide: npt.ArrayLike | None = None,
) -> npt.NDArray[np.str_]:
    """Divide the cells of each slide into a training and a validation region with a gap between them.

    Parameters
    ----------
    coordinates
        Array (n_cells, 2) in um.
    validation_fraction
        Share of the cells that are validation.
    gap
        No validation cell is within this distance, in um, of a training cell. It must be wider than the largest
        radius at which cells are taken as neighbours.
    axis
        Direction across which the slide is cut: that of its larger extent, or the one named.
    side
        End of the axis at which the validation region lies.
    tile_size
        Instead of one strip, take square tiles of this side, in um, drawn at random until they hold the share of cells.
        For slides much larger than the gap, where one strip may be one tissue domain.
    seed
        Of the draw of tiles.
    slide
        The slide of each cell (n_cells,): each slide is divided by itself, and the gap is between cells of one slide.
        One slide if not given.

    Returns
    -------
    Array (n_cells,) of ``"train"``, ``"validation"`` and ``"gap"``. Equal coordinates give equal splits whatever the
    order of cells.

    Raises
    ------
    InputError
        If coordinates are not finite, an option is out of range, or no cell of a slide is left for training.

    Notes
    -----
    Cells of the gap are those outside the validation region with a validation cell within ``gap``: as few as will do.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(0.0, 100.0, 10.0)
    >>> split_regions(np.stack([x, 0 * x], axis=1), validation_fraction=0.2, gap=25.0).tolist()[4:]
    ['train', 'train', 'gap', 'gap', 'validation', 'validation']
    """
    points = check_coordinates(coordinates)
    if not 0 <= validation_fraction < 1:
        raise InputError(f"validation_fraction must be at least 0 and below 1, not {validation_fraction}.")
    if not gap >= 0:
        raise InputError(f"gap must be at least 0 um, not {gap}.")
    split = np.empty(len(points), dtype=f"<U{max(map(len, (keys.TRAIN, keys.VALIDATION, keys.GAP)))}")
    for cells in cells_by_slide(slide, len(points)):
        split[cells] = _split_slide(points[cells], validation_fraction, gap, axis, side, tile_size, seed)
    return split


def _split_slide(
    points: npt.NDArray[np.float64],
    validation_fraction: float,
    gap: float,
    axis: str,
    side: str,
    tile_size: float | None,
    seed: int,
) -> npt.NDArray[np.str_]:
    wanted = round(validation_fraction * len(points))
    split = np.full(len(points), keys.TRAIN, dtype=f"<U{max(map(len, (keys.TRAIN, keys.VALIDATION, keys.GAP)))}")
    if wanted == 0:
        return split

    if tile_size is None:
        is_validation = _strip(points, wanted, axis, side)
    else:
        is_validation = _tiles(points, wanted, tile_size, seed)
    split[is_validation] = keys.VALIDATION
    others = np.flatnonzero(~is_validation)
    # Looking no further than a little over the gap spares the search for cells far away.
    distances, _ = cKDTree(points[is_validation]).query(points[others], distance_upper_bound=gap * (1 + 1e-9) + 1e-9)
    split[others[distances <= gap]] = keys.GAP
    if not (split == keys.TRAIN).any():
        raise InputError(
            f"no cell is left for training: {wanted} of {len(points)} cells are validation and the rest lies within "
            f"the gap of {gap:g} um; take a smaller gap (--gap) or validation_fraction (--validation-fraction)."
        )
    return split


def split_slides(
    slides: Sequence[str], *, validation_fraction: float = defaults.VALIDATION_FRACTION, seed: int = 0
) -> dict[str, str]:
    """Draw whole slides for validation.

    Parameters
    ----------
    slides
        Names of the slides; repeated names count once.
    validation_fraction
        Share of the slides that are validation, rounded; at least one slide if it is above 0.
    seed
        Of the draw, which does not depend on the order of the names.

    Returns
    -------
    For each slide ``"train"`` or ``"validation"``.

    Raises
    ------
    InputError
        If the fraction is out of range or no slide is left for training.
    """
    if not 0 <= validation_fraction < 1:
        raise InputError(f"validation_fraction must be at least 0 and below 1, not {validation_fraction}.")
    names = sorted(set(slides))
    n_validation = max(round(validation_fraction * len(names)), int(validation_fraction > 0))
    if n_validation >= len(names):
        raise InputError(f"no slide is left for training: {n_validation} of {len(names)} are validation.")
    drawn = {names[i] for i in np.random.default_rng(seed).permutation(len(names))[:n_validation]}
    return {name: keys.VALIDATION if name in drawn else keys.TRAIN for name in names}


def _strip(points: npt.NDArray[np.float64], wanted: int, axis: str, side: str) -> npt.NDArray[np.bool_]:
    """Return the outermost cells at one end of an axis, with all cells level with the innermost of them."""
    columns = {"longer": int(np.argmax(np.ptp(points, axis=0))), "x": 0, "y": 1}
    signs = {"high": 1.0, "low": -1.0}
    if axis not in columns:
        raise InputError(f"there is no axis {axis!r}; there are: {', '.join(columns)}.")
    if side not in signs:
        raise InputError(f"there is no side {side!r}; there are: {', '.join(signs)}.")
    along = points[:, columns[axis]] * signs[side]
    outermost: npt.NDArray[np.bool_] = along >= np.partition(along, -wanted)[-wanted]
    return outermost


def _tiles(points: npt.NDArray[np.float64], wanted: int, tile_size: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return the cells of random square tiles that hold about the wanted number of cells."""
    if not tile_size > 0:
        raise InputError(f"tile_size must be above 0 um, not {tile_size}.")
    squares = np.floor((points - points.min(axis=0)) / tile_size).astype(np.int64)
    _, tile, n_cells = np.unique(squares, axis=0, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(n_cells))
    # Tiles are taken while that brings the number nearer to the wanted one.
    reached = np.cumsum(n_cells[order])
    n_drawn = max(int(np.argmin(np.abs(reached - wanted))) + 1, 1)
    return np.isin(tile.reshape(-1), order[:n_drawn])
