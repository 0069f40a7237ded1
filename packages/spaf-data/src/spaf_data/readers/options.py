"""What a reader can be told beside where the run is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spaf_data.errors import InputError

Progress = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options of readers; each platform uses those that concern it, and what is None is found out."""

    pixel_size: float | None = None  # um a pixel, where positions are pixels (CosMx, SpatialData, AnnData)
    plane_spacing: float | None = None  # um between z planes, where z counts planes (MERSCOPE, CosMx)
    flip_polygons: bool = False  # the y axis of the polygons points against that of the transcripts (MERSCOPE)
    bin_size: int = 8  # side of the bins in um (Visium HD)
    points_key: str | None = None  # element of transcripts (SpatialData)
    table_key: str | None = None  # table of counts (SpatialData)
    layer: str | None = None  # layer that holds counts, when X does not (AnnData, SpatialData)

    def __post_init__(self) -> None:
        for name in ("pixel_size", "plane_spacing"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} must be above 0 um, not {value:g}")
