import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spaf_data import InputError
from spaf_data.cell_graph import delaunay_pairs, nearest_neighbors, spatial_neighbors


def cells(n_cells: int = 200, seed: int = 0, n_slides: int = 1, *, same_place: bool = True) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    coordinates = rng.random((n_cells, 2)) * 200.0
    if same_place:
        coordinates[1] = coordinates[0]
    obs = pd.DataFrame({"slide": rng.choice([f"s{i}" for i in range(n_slides)], n_cells)})
    obs.index = obs.index.astype(str)
    return ad.AnnData(np.ones((n_cells, 1), np.float32), obs=obs, obsm={"spatial": coordinates})


def all_distances(adata: ad.AnnData) -> np.ndarray:
    points = adata.obsm["spatial"]
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    library = adata.obs["slide"].to_numpy()
    distances[library[:, None] != library[None]] = np.inf
    np.fill_diagonal(distances, np.inf)
    return distances


def edges(adata: ad.AnnData, key: str = "spatial") -> set[tuple[int, int]]:
    connectivities, distances = adata.obsp[f"{key}_connectivities"], adata.obsp[f"{key}_distances"]
    np.testing.assert_array_equal(connectivities.indptr, distances.indptr)
    np.testing.assert_array_equal(connectivities.indices, distances.indices)
    assert (connectivities.data == 1).all()
    rows = np.repeat(np.arange(adata.n_obs), np.diff(distances.indptr))
    expected = all_distances(adata)[rows, distances.indices]
    np.testing.assert_allclose(distances.data, expected, rtol=1e-6)
    return set(zip(rows.tolist(), distances.indices.tolist(), strict=True))


@pytest.mark.parametrize("n_slides", [1, 3])
def test_radius_graph(n_slides: int) -> None:
    adata = cells(n_slides=n_slides)
    spatial_neighbors(adata, radius=25.0, slide_key="slide")
    assert edges(adata) == set(map(tuple, np.argwhere(all_distances(adata) <= 25.0).tolist()))
    assert adata.uns["spatial_neighbors"] == {
        "connectivities_key": "spatial_connectivities",
        "distances_key": "spatial_distances",
        "params": {"method": "radius", "radius": 25.0, "slide_key": "slide"},
    }


@pytest.mark.parametrize("n_slides", [1, 3])
def test_knn_graph(n_slides: int) -> None:
    # Without cells at one place, because which of two equally near cells is taken is nobody's business.
    adata = cells(n_slides=n_slides, same_place=False)
    spatial_neighbors(adata, method="knn", n_neighbors=5, slide_key="slide", key_added="near")
    nearest = np.argsort(all_distances(adata), axis=1, kind="stable")[:, :5]
    assert edges(adata, "near") == {(i, int(j)) for i, row in enumerate(nearest) for j in row}
    spatial_neighbors(adata, method="knn", n_neighbors=5, slide_key="slide", max_distance=10.0)
    near = all_distances(adata) <= 10.0
    assert edges(adata) == {(i, j) for i, j in edges(adata, "near") if near[i, j]}


def test_few_cells_have_fewer_neighbours() -> None:
    points = np.array([[0.0, 0.0], [5.0, 0.0], [9.0, 0.0], [50.0, 0.0]])
    found = nearest_neighbors(points, 6, slide=["a", "a", "a", "b"])
    assert found.tolist() == [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]


def test_many_cells_at_one_place_are_not_their_own_neighbours() -> None:
    found = nearest_neighbors(np.zeros((10, 2)), 3)
    assert len(found) == 30
    assert (found[:, 0] != found[:, 1]).all()
    assert len(np.unique(found, axis=0)) == 30


def test_delaunay_graph() -> None:
    adata = cells(n_cells=60, n_slides=2)
    spatial_neighbors(adata, method="delaunay", slide_key="slide")
    found = edges(adata)
    assert found == {(j, i) for i, j in found}
    # Any pair of which some circle through both is empty is an edge: check the circle with the pair as diameter.
    points, distances = adata.obsm["spatial"], all_distances(adata)
    # Of two cells at one place only one can be in a triangulation.
    for i, j in np.argwhere(np.isfinite(np.triu(distances, 1)) & (np.triu(distances, 1) > 0)).tolist():
        if {i, j} & {0, 1}:
            continue
        centre = (points[i] + points[j]) / 2
        inside = (np.linalg.norm(points - centre, axis=1) < distances[i, j] / 2 - 1e-9) & np.isfinite(distances[i])
        if not inside.any():
            assert (i, j) in found
    # Planar: at most 3 n - 6 edges a slide.
    assert len(found) / 2 <= 3 * 60 - 12


def test_delaunay_needs_a_triangle() -> None:
    for points in (np.zeros((2, 2)), np.stack([np.arange(5.0), np.arange(5.0)], axis=1)):
        with pytest.raises(InputError, match="three cells that are not on one line"):
            delaunay_pairs(points)


@pytest.mark.parametrize("scale", [1e-3, 100.0])
def test_coordinates_that_are_no_um_are_refused(scale: float) -> None:
    adata = cells()
    adata.obsm["spatial"] = adata.obsm["spatial"] * scale
    with pytest.raises(InputError, match="pixels.*check_units=False"):
        spatial_neighbors(adata)
    assert not adata.obsp.keys()
    spatial_neighbors(adata, check_units=False)
    assert "spatial_distances" in adata.obsp


def test_one_cell_has_no_neighbours() -> None:
    adata = cells()[:1].copy()
    for method in ("radius", "knn"):
        spatial_neighbors(adata, method=method)
        assert adata.obsp["spatial_connectivities"].shape == (1, 1)
        assert adata.obsp["spatial_connectivities"].nnz == 0


def test_bad_input_is_named() -> None:
    adata = cells()
    with pytest.raises(InputError, match="'gabriel'.*radius, knn, delaunay"):
        spatial_neighbors(adata, method="gabriel")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'patient'; it has: slide"):
        spatial_neighbors(adata, slide_key="patient")
    with pytest.raises(InputError, match="n_neighbors"):
        spatial_neighbors(adata, method="knn", n_neighbors=0)
    del adata.obsm["spatial"]
    with pytest.raises(InputError, match="no obsm 'spatial'"):
        spatial_neighbors(adata)
