"""Whether the places of cells are um in one frame, as everything that looks at neighbours takes them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from spaf_data import keys
from spaf_data.coordinates import cells_by_slide
from spaf_data.errors import InputError

if TYPE_CHECKING:
    import anndata as ad

# Cells of a tissue are 5 to 50 um apart, spots of a Visium array 100 um, bins of Visium HD 2 um.
LEAST_SPACING, LARGEST_SPACING = 1.0, 120.0

# On real slides in um 0 to 8 % of the cells have no neighbour within this distance (8 % where two thirds of the cells
# were left out); in pixels of 0.1 to 0.2 um 84 to 100 %.
_USUAL_REACH = 30.0

# um a pixel of the images of an instrument, by what its assay is called.
_PIXELS = {
    "cosmx": "a pixel of CosMx is 0.12028 um (0.18 um of its prototype of 2022)",
    "xenium": "a pixel of the images of Xenium is 0.2125 um",
    "merscope": "a pixel of the images of MERSCOPE is 0.108 um",
    "merfish": "a pixel of the images of MERSCOPE is 0.108 um",
}

# Median distance of a cell to the nearest one by what its assay is called: least and largest in um, and in words.
_CELLS = (3.0, 30.0, "5 to 30 um")
_SPACINGS = {
    "visium": (95.0, 105.0, "100 um"),
    "cosmx": _CELLS,
    "xenium": _CELLS,
    "merscope": _CELLS,
    "merfish": _CELLS,
}

_LATTICE = 1000.0  # um between cells that are laid apart


def check_spacing(points: npt.NDArray[np.float64], slide: npt.ArrayLike | None, adata: ad.AnnData) -> float:
    """Return the median distance of a cell to the nearest one, or ask where it cannot be um.

    NaN where no slide has two cells.

    Raises
    ------
    InputError
        If it is below 1 or above 120 um.
    """
    nearest = [
        np.asarray(cKDTree(points[cells]).query(points[cells], k=2)[0])[:, 1]
        for cells in cells_by_slide(slide, len(points))
        if len(cells) > 1
    ]
    if not nearest:
        return math.nan
    spacing = float(np.median(np.concatenate(nearest)))
    is_answered = spacing > LARGEST_SPACING and _has_pixel_size(adata)
    if not (LEAST_SPACING <= spacing <= LARGEST_SPACING or is_answered):
        raise InputError(
            f"the median distance of a cell to the nearest one is {spacing:.4g}, which is no tissue in um: are the "
            f"coordinates pixels or mm{_pixel(adata)}? Give the size of a pixel in um (pixel_size, --pixel-size), "
            "which is 1 if they are um, as for the spots of Spatial Transcriptomics that lie 200 um apart; for cells "
            "that each have a frame of their own, say so (own_frames, --own-frames); or accept the places as "
            "they are with check_units=False (--no-check-units)."
        )
    return spacing


def check_assay(spacing: float, adata: ad.AnnData) -> None:
    """Ask whether places are um where cells of a known assay lie as they cannot, whatever the radius.

    Raises
    ------
    InputError
        If neither the reader nor a size of pixels that was given vouches for the unit, and spots of Visium do not lie
        100 um apart, or segmented cells less than 3 or more than 30 um.
    """
    assay = _assay(adata)
    usual = next((of for name, of in _SPACINGS.items() if name in assay and "hd" not in assay), None)
    if usual is None or math.isnan(spacing) or usual[0] <= spacing <= usual[1] or _is_vouched_for(adata):
        return
    raise InputError(
        f"the median distance of a cell to the nearest one is {spacing:.3g}, where that of {assay} is {usual[2]}: are "
        f"the coordinates pixels{_pixel(adata)}? Give the size of a pixel in um (pixel_size, --pixel-size), which is 1 "
        "if they are um; or accept the places as they are with check_units=False (--no-check-units)."
    )


def check_reach(spacing: float, radius: float, n_alone: int, adata: ad.AnnData) -> None:
    """Ask whether places are um where most cells have no neighbour and nothing says that they are.

    Raises
    ------
    InputError
        If half of the cells have no other within the radius, nor within 30 um, and neither the reader nor a size of
        pixels that was given vouches for the unit.
    """
    if not spacing > max(radius, _USUAL_REACH) or _is_vouched_for(adata):
        return
    raise InputError(
        f"{n_alone} of the {adata.n_obs} cells have no neighbour within {radius:g} um, and the median distance to the "
        f"nearest is {spacing:.3g}: are the coordinates pixels{_pixel(adata)}? Give the size of a pixel in um "
        "(pixel_size, --pixel-size), which is 1 if they are um; if these are spots (those of Visium lie 100 um apart), "
        "take a larger radius (--radius); or accept the places as they are with check_units=False (--no-check-units)."
    )


def _is_vouched_for(adata: ad.AnnData) -> bool:
    said: dict[str, Any] = dict(adata.uns.get(keys.SPAF, {}).get("parameters", {}))
    # Here, for whoever joins cells of an AnnData needs no reader but in doubt.
    from spaf_data.readers import knows_unit

    return _has_pixel_size(adata) or knows_unit(str(said.get("platform")))


def _has_pixel_size(adata: ad.AnnData) -> bool:
    """Whether the user gave the size of a pixel, be it 1."""
    return not isinstance(adata.uns.get(keys.SPAF, {}).get("parameters", {}).get("pixel_size", ""), str)


def _pixel(adata: ad.AnnData) -> str:
    """Say how large a pixel is where the assay is known."""
    return next((f" ({sentence})" for name, sentence in _PIXELS.items() if name in _assay(adata)), "")


def _assay(adata: ad.AnnData) -> str:
    return str(adata.obs[keys.ASSAY].iloc[0]).casefold() if keys.ASSAY in adata.obs and adata.n_obs else ""


def lay_apart(adata: ad.AnnData) -> None:
    """Lay out cells that each have a frame of their own, so far apart that none are neighbours.

    Centroids in frames of their own say nothing of who lies beside whom. They move to a square lattice of 1 mm in the
    order of the cells, and stay as they were in ``obsm["spatial_own_frame"]``.
    """
    adata.obsm[keys.OWN_FRAME] = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)
    side = math.ceil(math.sqrt(adata.n_obs))
    row, column = np.divmod(np.arange(adata.n_obs), max(side, 1))
    adata.obsm[keys.SPATIAL] = np.column_stack([column, row]) * _LATTICE
    adata.uns[keys.SPAF]["parameters"]["own_frames"] = True
