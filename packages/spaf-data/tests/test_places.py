import anndata
import numpy as np
import pytest

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
    question = (
        rf"of the 225 cells have no neighbour within 30 um.*are the coordinates pixels.*{hint}.*--radius.*--no-check"
    )
    with pytest.raises(InputError, match=question):
        spatial_neighbors(adata)
    spatial_neighbors(adata, radius=100.0)
    adata.write_h5ad(tmp_path / "slide.h5ad")
    source = SlideSource(path=tmp_path / "slide.h5ad", slide="s")
    with pytest.raises(InputError, match="are the coordinates pixels"):
        build_corpus([source], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    sized = SlideSource(path=source.path, slide="s", reading=ReadOptions(pixel_size=0.18))
    assert build_corpus([sized], tmp_path / "sized")["n_cells"] == 225
    assert build_corpus([source], tmp_path / "asked", BuildOptions(check_units=False))["n_cells"] == 225


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
