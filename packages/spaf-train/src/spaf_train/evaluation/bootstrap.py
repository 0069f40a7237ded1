"""Bootstrap over tissue: intervals for statistics of pairs of cells.

Pairs that share a cell are not independent, and neither are neighbouring cells, so pairs must not be resampled one by
one: the interval would shrink with the number of pairs drawn and not with the amount of tissue seen. Here square tiles
of tissue are drawn with replacement, and a pair gets the number of times that it occurs in the tissue so assembled.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ENOUGH_TILES = 20  # below which an interval over them is rough, and no ground for a verdict


class Interval(NamedTuple):
    """A value with the bounds of its interval; all NaN where it could not be computed."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Tiles:
    """Square tiles of tissue.

    Attributes
    ----------
    code
        The tile of each cell, 0 ... n - 1; tiles without cells have no number.
    n
        Number of tiles that hold cells.
    side
        Side of a tile in um.
    """

    code: NDArray[np.int64]
    n: int
    side: float

    @property
    def are_few(self) -> bool:
        """Whether intervals over them are rough: fewer than 20."""
        return self.n < ENOUGH_TILES


def spatial_tiles(
    coordinates: NDArray[np.floating], slide: NDArray[np.generic] | None = None, *, side: float | None = None
) -> Tiles:
    """Assign cells to square tiles of each slide.

    Parameters
    ----------
    coordinates
        Cells x 2, in um.
    slide
        The slide of each cell; a tile never spans slides. One slide if None.
    side
        Side of a tile in um. If None: the larger of 50 um, so that most neighbours share a tile, and the side that cuts
        the area covered by the cells into about 100 tiles, so that tiles are as large and as independent as the number
        of replicates needs them to be.

    Returns
    -------
    Tiles
        Tile of each cell.
    """
    number = np.zeros(len(coordinates), dtype=np.int64)
    if slide is not None:
        number = np.unique(slide, return_inverse=True)[1].astype(np.int64)
    origin = np.zeros((int(number.max(initial=0)) + 1, 2))
    area = 0.0
    for index in range(len(origin)):
        of_slide = coordinates[number == index]
        if len(of_slide):
            origin[index] = of_slide.min(axis=0)
            area += float(np.prod(of_slide.max(axis=0) - of_slide.min(axis=0)))
    if side is None:
        side = max(50.0, float(np.sqrt(area / 100)))
    cell = np.floor((coordinates - origin[number]) / side).astype(np.int64)
    tiles, code = np.unique(np.column_stack([number, cell]), axis=0, return_inverse=True)
    return Tiles(code=code.ravel().astype(np.int64), n=len(tiles), side=side)


def tile_draws(tiles: Tiles, *, n_replicates: int, seed: int) -> NDArray[np.float64]:
    """How often each tile was drawn for each resampled tissue, replicates x tiles; each draws as many as there are."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(tiles.n, np.full(tiles.n, 1 / tiles.n), size=n_replicates).astype(np.float64)


def pair_weights(
    tiles: Tiles, left: NDArray[np.integer], right: NDArray[np.integer], *, n_replicates: int, seed: int
) -> NDArray[np.float64]:
    """How often each pair occurs in each resampled tissue.

    Parameters
    ----------
    tiles
        The tile of each cell.
    left, right
        The two cells of each pair.
    n_replicates
        Number of resampled tissues.
    seed
        Seed of the draws.

    Returns
    -------
    numpy.ndarray
        Replicates x pairs. With `w` the number of times a tile was drawn, a pair inside one tile occurs `w` times (each
        copy of the tile brings its own) and a pair across two tiles `w_left * w_right` times (each copy with each).

    Notes
    -----
    This is the vertex bootstrap for statistics of dyads (Snijders and Borgatti, Connections 22(2), 1999) with tiles as
    the vertices, as block bootstraps do for spatial data (Lahiri, Resampling Methods for Dependent Data, 2003).
    """
    drawn = tile_draws(tiles, n_replicates=n_replicates, seed=seed)
    tile_left, tile_right = tiles.code[left], tiles.code[right]
    weights = drawn[:, tile_left]
    across = tile_left != tile_right
    weights[:, across] *= drawn[:, tile_right[across]]
    return weights


def percentile_interval(value: float, replicates: NDArray[np.floating], *, level: float = 0.95) -> Interval:
    """Percentile interval of bootstrap replicates.

    Parameters
    ----------
    value
        The statistic on the data as they are.
    replicates
        The statistic on each resampled tissue; NaN where it was not defined (a class without weight).
    level
        Probability covered.

    Returns
    -------
    Interval
        The value and the two quantiles; the bounds are NaN when fewer than half of the replicates are defined.
    """
    defined = replicates[np.isfinite(replicates)]
    if 2 * len(defined) < len(replicates) or not len(defined):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def interval_columns(**measures: NDArray[np.floating]) -> dict[str, float]:
    """Return the columns `name, name_low, name_high` of measures whose first value is on the data as they are.

    The other values of each measure are its replicates.
    """
    columns: dict[str, float] = {}
    for name, values in measures.items():
        interval = percentile_interval(values[0], values[1:])
        columns |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return columns


def verdict(difference: Interval, n_tiles: int | None = None) -> str:
    """Say what an interval of a difference allows: "better", "worse" or "tied".

    "unknown" without an interval and, where the number of tiles behind it is told, with fewer than 20 of them.
    """
    if not np.isfinite(difference.low) or (n_tiles is not None and n_tiles < ENOUGH_TILES):
        return "unknown"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "tied"
