import anndata
import numpy as np
import pytest
from scipy.spatial import cKDTree

from spaf_data import BuildOptions, InputError, ReadOptions, SlideSource, build_corpus, read_counts, spatial_neighbors


def lattice(step, assay=None, n=225):
    side = int(np.sqrt(n))
    rng = np.random.default_rng(0)
    places = np.stack(np.divmod(np.arange(n), side), axis=1) * step + rng.uniform(-step / 4, step / 4, (n, 2))
    adata = anndata.AnnData(rng.poisson(8, (n, 10)).astype(np.float32), obsm={"spatial": places})
    adata.obs_names = [f"c{i}" for i in range(n)]
    if assay:
        adata.obs["assay"] = assay
    return adata


@pytest.mark.parametrize(
    ("step", "assay", "hint"), [(60.0, "CosMx", "0.12028 um"), (60.0, "Xenium", "0.2125"), (60.0, "x", "")]
)
def test_pixels_that_could_be_um_are_asked_about(tmp_path, step, assay, hint):
    adata = lattice(step, assay)
    alone = r"of the 225 cells have no neighbour within 30 um.*are the coordinates pixels.*--radius.*--no-check"
    unlike = rf"nearest one is .*, where that of {assay.lower()} is 5 to 30 um: are the coordinates pixels.*{hint}"
    with pytest.raises(InputError, match=unlike if hint else alone):
        spatial_neighbors(adata)
    if hint:  # whatever the radius
        with pytest.raises(InputError, match=unlike):
            spatial_neighbors(adata, radius=100.0)
    else:
        spatial_neighbors(adata, radius=100.0)
    adata.write_h5ad(tmp_path / "slide.h5ad")
    source = SlideSource(path=tmp_path / "slide.h5ad", slide="s")
    with pytest.raises(InputError, match="are the coordinates pixels"):
        build_corpus([source], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    sized = SlideSource(path=source.path, slide="s", reading=ReadOptions(pixel_size=0.18))
    assert build_corpus([sized], tmp_path / "sized")["n_cells"] == 225
    assert build_corpus([source], tmp_path / "asked", BuildOptions(check_units=False))["n_cells"] == 225


@pytest.mark.parametrize(
    ("step", "assay", "refused"),
    [(86.0, "Visium", True), (100.0, "Visium", False), (86.0, "Visium HD", False), (2.5, "MERSCOPE", True)],
)
def test_spacings_that_an_assay_cannot_have(step, assay, refused):
    adata = lattice(step, assay)
    places = np.stack(np.divmod(np.arange(225), 15), axis=1) * step
    adata.obsm["spatial"] = places + (0.0 if step > 10 else np.random.default_rng(0).uniform(-0.2, 0.2, (225, 2)))
    if refused:
        with pytest.raises(InputError, match=f"where that of {assay.lower()} is"):
            spatial_neighbors(adata, radius=120.0)
        adata.uns["spaf"] = {"parameters": {"pixel_size": 1.0}}  # which was given
    spatial_neighbors(adata, radius=120.0)


def spots(pixel, seed=0, name="v"):
    """Spots of Visium in pixels of a size in um, as scanpy reads them, on a slide that is turned."""
    row, place = np.divmod(np.arange(320), 16)
    column = 2 * place + row % 2
    um = np.column_stack([50.0 * column, 50.0 * 3**0.5 * row])
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    adata = anndata.AnnData(np.random.default_rng(seed).poisson(8, (320, 10)).astype(np.float32))
    adata.obs_names = [f"{name}{spot}" for spot in range(320)]
    adata.obs["array_row"], adata.obs["array_col"] = row, column
    adata.obsm["spatial"] = (um @ turn.T + 900.0) / pixel
    return adata


def nearest(places):
    return np.median(cKDTree(places).query(places, k=2)[0][:, 1])


@pytest.mark.parametrize("pixel", [1 / 0.86, 1 / 2.18, 1 / 0.3, 1.0])
def test_spots_of_visium_are_measured_by_their_lattice(tmp_path, pixel):
    adata = spots(pixel)
    slide = read_counts(adata)
    np.testing.assert_allclose(nearest(slide.obsm["spatial"]), 100.0)
    parameters = slide.uns["spaf"]["parameters"]
    assert (parameters["pixel_size"], parameters["pixel_size_from"]) == (pytest.approx(pixel), "the lattice")
    spatial_neighbors(slide, radius=120.0)
    assert np.median(np.diff(slide.obsp["spatial_connectivities"].indptr)) == 6
    given = read_counts(adata, options=ReadOptions(pixel_size=0.5))
    np.testing.assert_allclose(given.obsm["spatial"], adata.obsm["spatial"] * 0.5)


def test_spots_of_several_slides_have_their_own_pixels(tmp_path):
    both = anndata.concat([spots(0.5, name="a"), spots(2.0, seed=1, name="b")], label="library_id", keys=["A", "B"])
    slide = read_counts(both)
    assert slide.uns["spaf"]["parameters"]["pixel_size"] == pytest.approx([0.5, 2.0])
    for name in ("A", "B"):
        np.testing.assert_allclose(nearest(slide.obsm["spatial"][(slide.obs["slide"] == name).to_numpy()]), 100.0)
    slide.write_h5ad(tmp_path / "slide.h5ad")


def test_spots_on_no_lattice_are_asked_about():
    adata = spots(0.5)
    adata.obsm["spatial"][:, 0] *= 1.3
    with pytest.raises(InputError, match=r"lie on no lattice of 50 and 86.6 um.*--pixel-size"):
        read_counts(adata)
    slide = read_counts(adata, options=ReadOptions(check_places=False))
    np.testing.assert_array_equal(slide.obsm["spatial"], adata.obsm["spatial"])


def test_bins_of_visium_hd_are_measured_by_the_side_that_the_run_says():
    adata = spots(1.0)
    row, column = np.divmod(np.arange(320), 16)
    adata.obs["array_row"], adata.obs["array_col"] = row, column
    adata.obsm["spatial"] = np.column_stack([column, row]) * 8.0 / 0.27
    adata.uns["spatial"] = {"library": {"scalefactors": {"bin_size_um": 8.0, "microns_per_pixel": 0.27}}}
    slide = read_counts(adata)
    np.testing.assert_allclose(nearest(slide.obsm["spatial"]), 8.0)
    del adata.uns["spatial"]  # a grid that nothing is known of
    np.testing.assert_array_equal(read_counts(adata).obsm["spatial"], adata.obsm["spatial"])


def test_cells_in_frames_of_their_own_are_no_neighbours(tmp_path):
    adata = lattice(12.0)
    adata.obsm["spatial"] = np.random.default_rng(1).uniform(0, 5, (225, 2))
    adata.write_h5ad(tmp_path / "culture.h5ad")
    source = SlideSource(path=tmp_path / "culture.h5ad", slide="s")
    with pytest.raises(InputError, match=r"--one-slide|--own-frames"):
        build_corpus([source], tmp_path / "out")
    record = build_corpus([source], tmp_path / "out", BuildOptions(own_frames=True))
    built = anndata.read_h5ad(tmp_path / "out" / record["slides"][0]["file"])
    assert built.obsp["spatial_connectivities"].nnz == 0
    np.testing.assert_array_equal(built.obsm["spatial_own_frame"], adata.obsm["spatial"])


def test_areas_follow_the_size_of_pixels():
    adata = lattice(60.0)
    adata.obs["area"] = 400.0
    slide = read_counts(adata, options=ReadOptions(pixel_size=0.2))
    np.testing.assert_allclose(slide.obs["area"], 16.0)


def test_spots_200_um_apart_are_taken_where_the_size_of_a_pixel_is_given(tmp_path):
    """As those of Spatial Transcriptomics."""
    lattice(200.0, n=400).write_h5ad(tmp_path / "spots.h5ad")
    source = SlideSource(path=tmp_path / "spots.h5ad", slide="s")
    options = BuildOptions(radius=250.0)
    with pytest.raises(InputError, match="which is 1 if they are um, as for the spots of Spatial Transcriptomics"):
        build_corpus([source], tmp_path / "out", options)
    sized = SlideSource(path=source.path, slide="s", reading=ReadOptions(pixel_size=1.0))
    record = build_corpus([sized], tmp_path / "out", options)
    built = anndata.read_h5ad(tmp_path / "out" / record["slides"][0]["file"])
    assert built.uns["spaf"]["parameters"]["gap"] == 500.0, "twice the radius"
    split, places = built.obs["split"].to_numpy(), built.obsm["spatial"]
    train, validation = places[split == "train"], places[split == "validation"]
    assert np.linalg.norm(train[:, None] - validation[None], axis=-1).min() > 500.0


def test_one_reason_of_many_slides_is_said_once(tmp_path):
    for name in "abc":
        lattice(200.0).write_h5ad(tmp_path / f"{name}.h5ad")
    sources = [SlideSource(path=tmp_path / f"{name}.h5ad", slide=name) for name in "abc"]
    with pytest.raises(InputError) as refused:
        build_corpus(sources, tmp_path / "out")
    assert str(refused.value).count("are the coordinates pixels") == 1
    assert "a, b, c: " in str(refused.value)
