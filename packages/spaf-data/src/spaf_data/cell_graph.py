"""The graph of neighbouring cells, under squidpy's keys."""

import math
from typing import Literal

import anndata as ad
import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.spatial import Delaunay, QhullError, cKDTree

from spaf_data import defaults, keys
from spaf_data._names import check_key
from spaf_data.coordinates import cells_by_slide, check_coordinates
from spaf_data.errors import InputError
from spaf_data.pairs import positive_pairs, sorted_pairs
from spaf_data.places import check_assay, check_reach, check_spacing
from spaf_data.slides import check_slides_apart, slide_column, slides_of_cells

Edges = npt.NDArray[np.int64]

_EDGES_AT_A_TIME = 1 << 18


def spatial_neighbors(
    adata: ad.AnnData,
    *,
    method: Literal["radius", "knn", "delaunay"] = "radius",
    radius: float = defaults.RADIUS,
    n_neighbors: int = defaults.N_NEIGHBORS,
    max_distance: float | None = None,
    slide_key: str | None = None,
    check_units: bool = True,
    key_added: str = "spatial",
) -> None:
    """Build the graph of neighbouring cells from the centroids in ``obsm["spatial"]``.

    Parameters
    ----------
    adata
        Cells with centroids in um.
    method
        ``"radius"``: cells at most ``radius`` apart; ``"knn"``: each cell to its ``n_neighbors`` nearest ones, which
        is not symmetric; ``"delaunay"``: edges of the Delaunay triangulation.
    radius
        In um, for ``method="radius"``.
    n_neighbors
        For ``method="knn"``.
    max_distance
        Longest edge in um for ``"knn"`` and ``"delaunay"``; any length if not given.
    slide_key
        Column of ``obs`` with the slide of each cell; cells of two slides are never neighbours. If None, ``"slide"`` or
        another usual name of such a column (`slide_column`), where there is one.
    check_units
        Ask instead of going on where coordinates are probably no um in one frame: the median distance to the nearest
        cell is below 1 or above 120, or is not what the assay has; for ``method="radius"`` half of the cells have no
        neighbour, nor one within 30 um, and nothing says that the unit is um; or no column says the slides, and cells
        lie between each other as only those of several slides can.
    key_added
        Start of the keys that are written.

    Returns
    -------
    Nothing. Writes ``obsp["{key_added}_connectivities"]`` (1 where two cells are neighbours; float32 CSR),
    ``obsp["{key_added}_distances"]`` (um; float32 CSR of the same pattern) and ``uns["{key_added}_neighbors"]`` (keys
    and parameters), as squidpy does.

    Raises
    ------
    InputError
        If coordinates are missing, not finite or probably no um, slides cannot be told, or an option cannot be used.

    Examples
    --------
    >>> import anndata as ad, numpy as np
    >>> adata = ad.AnnData(np.ones((3, 1)), obsm={"spatial": np.array([[0.0, 0.0], [10.0, 0.0], [60.0, 0.0]])})
    >>> spatial_neighbors(adata, radius=30.0)
    >>> adata.obsp["spatial_distances"].toarray()[0].tolist()
    [0.0, 10.0, 0.0]
    """
    check_key(key_added)
    if keys.SPATIAL not in adata.obsm:
        raise InputError(f"the AnnData has no obsm {keys.SPATIAL!r} with the coordinates of its cells in um.")
    points = check_coordinates(adata.obsm[keys.SPATIAL])
    if slide_key is not None and slide_key not in adata.obs:
        raise InputError(f"the AnnData has no obs column {slide_key!r}; it has: {', '.join(adata.obs.columns)}.")
    asked = slide_key is not None
    slide_key = slide_column(adata.obs) if slide_key is None else slide_key
    slide = None if slide_key is None else slides_of_cells(adata.obs, slide_key)
    spacing = math.nan
    if check_units:
        spacing = check_spacing(points, slide, adata)
        check_assay(spacing, adata)
        if slide is None:
            check_slides_apart(points, None, adata.obs, where="the AnnData")

    match method:
        case "radius":
            pairs = positive_pairs(points, radius, slide=slide)
            check_reach(spacing, radius, len(points) - len(np.unique(pairs)), adata)
            edges = sorted_pairs([pairs, pairs[:, ::-1]])
        case "knn":
            edges = nearest_neighbors(points, n_neighbors, slide=slide)
        case "delaunay":
            pairs = delaunay_pairs(points, slide=slide)
            edges = sorted_pairs([pairs, pairs[:, ::-1]])
        case _:
            raise InputError(f"there is no method {method!r} of cell graphs; there are: radius, knn, delaunay.")
    distances = _lengths(points, edges)
    if method != "radius" and max_distance is not None:
        near = distances <= max_distance
        edges, distances = edges[near], distances[near]

    connectivities_key, distances_key = f"{key_added}_connectivities", f"{key_added}_distances"
    adata.obsp[connectivities_key] = _matrix(np.ones_like(distances), edges, len(points))
    adata.obsp[distances_key] = _matrix(distances, edges, len(points))
    chosen: dict[str, str | int | float] = {"method": method}
    if method == "radius":
        chosen["radius"] = float(radius)
    if method == "knn":
        chosen["n_neighbors"] = int(n_neighbors)
    if method != "radius" and max_distance is not None:
        chosen["max_distance"] = float(max_distance)
    if slide is not None and slide_key is not None and (asked or len(np.unique(slide)) > 1):
        chosen["slide_key"] = slide_key
    adata.uns[f"{key_added}_neighbors"] = {
        "connectivities_key": connectivities_key,
        "distances_key": distances_key,
        "params": chosen,
    }


def nearest_neighbors(
    coordinates: npt.NDArray[np.floating],
    n_neighbors: int = defaults.N_NEIGHBORS,
    *,
    slide: npt.ArrayLike | None = None,
) -> Edges:
    """Find the nearest cells of each cell.

    Parameters
    ----------
    coordinates
        Array (n_cells, 2) in um.
    n_neighbors
        Neighbours of each cell; all others of its slide where there are fewer.
    slide
        The slide of each cell.

    Returns
    -------
    Array (n_edges, 2) of cell and neighbour, sorted.

    Raises
    ------
    InputError
        If coordinates are not finite or of the wrong shape, or there are no neighbours to find.
    """
    points = check_coordinates(coordinates)
    if n_neighbors < 1:
        raise InputError(f"n_neighbors must be at least 1, not {n_neighbors}.")
    found = []
    for cells in cells_by_slide(slide, len(points)):
        # One more than wanted, because a cell finds itself, if not behind others at its very place.
        n_found = min(n_neighbors + 1, len(cells))
        if n_found < 2:
            continue
        nearest = np.asarray(cKDTree(points[cells]).query(points[cells], k=n_found)[1])
        others = nearest != np.arange(len(cells))[:, None]
        others[others.all(axis=1), -1] = False
        rows = np.repeat(cells, n_found - 1)
        found.append(np.stack([rows, cells[nearest[others]]], axis=1))
    return sorted_pairs(found)


def delaunay_pairs(coordinates: npt.NDArray[np.floating], *, slide: npt.ArrayLike | None = None) -> Edges:
    """Find the edges of the Delaunay triangulation of each slide.

    Parameters
    ----------
    coordinates
        Array (n_cells, 2) in um.
    slide
        The slide of each cell.

    Returns
    -------
    Array (n_edges, 2) of cells i < j, sorted.

    Raises
    ------
    InputError
        If coordinates are not finite or of the wrong shape, or a slide has fewer than three cells or all on a line.
    """
    points = check_coordinates(coordinates)
    found = []
    for cells in cells_by_slide(slide, len(points)):
        try:
            triangles = Delaunay(points[cells]).simplices
        except (QhullError, ValueError) as error:
            raise InputError(
                f"a Delaunay triangulation needs three cells that are not on one line, but a slide of {len(cells)} "
                "cells has none."
            ) from error
        sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
        found.append(np.unique(np.sort(cells[sides], axis=1), axis=0))
    return sorted_pairs(found)


def _lengths(points: npt.NDArray[np.float64], edges: Edges) -> npt.NDArray[np.float32]:
    # Some edges at a time: their coordinates are several times as large as what is wanted.
    lengths = np.empty(len(edges), np.float32)
    for start in range(0, len(edges), _EDGES_AT_A_TIME):
        part = edges[start : start + _EDGES_AT_A_TIME]
        lengths[start : start + len(part)] = np.linalg.norm(points[part[:, 0]] - points[part[:, 1]], axis=1)
    return lengths


def _matrix(values: npt.NDArray[np.float32], edges: Edges, n_cells: int) -> sparse.csr_matrix:
    # Made from sorted edges, so that two cells at one place keep their edge although its length is 0.
    indptr = np.searchsorted(edges[:, 0], np.arange(n_cells + 1))
    return sparse.csr_matrix((values, edges[:, 1], indptr), shape=(n_cells, n_cells))
