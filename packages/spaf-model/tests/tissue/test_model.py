import json

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spaf_model import InputError, NetworkConfig, TissueConfig, TissueModel, load_model

TINY = NetworkConfig(widths=(16,), steps=30, batch=64)


@pytest.fixture
def large(simulated):
    return simulated(1_700)


@pytest.fixture(scope="module")
def large_model(simulated):
    return TissueModel.fit(simulated(1_700), network=TINY, seed=1)


def auroc(states, adata, radius=30.0):
    from scipy.spatial import cKDTree

    states = states - states.mean(axis=0)
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    left, right = cKDTree(adata.obsm["spatial"]).query_pairs(radius, output_type="ndarray").T
    near = (states[left] * states[right]).sum(axis=1)
    far = (states[left] * states[np.random.default_rng(0).permutation(right)]).sum(axis=1)
    order = np.argsort(np.concatenate([near, far])).argsort() + 1
    return (order[: near.size].sum() - near.size * (near.size + 1) / 2) / near.size / far.size


def test_writes_joint_and_named_parts(large, large_model):
    large_model.embed(large, parts=True, niche=True)
    place, identity = large.obsm["X_SpaF_place"], large.obsm["X_SpaF_identity"]
    assert large.obsm["X_SpaF"].dtype == np.float32
    np.testing.assert_allclose(large.obsm["X_SpaF"], np.concatenate([place, 0.5 * identity], axis=1), rtol=1e-6)
    for part in (place, identity):
        np.testing.assert_allclose(part.mean(axis=0), 0, atol=1e-5)
        assert np.square(part).sum(axis=1).mean() == pytest.approx(1, abs=1e-4)
    half = place.shape[1] // 2  # closed form and network, each of size one before the weight of the network
    np.testing.assert_allclose(np.square(place[:, :half]).sum(axis=1).mean(), 1 / (1 + 0.75**2), rtol=1e-4)
    assert large.obsm["X_SpaF_niche"].shape[0] == 1_700
    record = large.uns["spaf"]["embed"]
    assert record["n_dimensions"] == {
        "place": place.shape[1],
        "identity": 40,
        "niche": large.obsm["X_SpaF_niche"].shape[1],
    }
    assert record["family"] == "tissue"
    assert record["parameters"]["identity"] == "slide"


def test_place_tells_neighbours_on_another_slide_better_than_components_do(simulated):
    model = TissueModel.fit(simulated(1_700), seed=0)
    other = simulated(900, seed=1)
    model.embed(other, parts=True)
    place = auroc(other.obsm["X_SpaF_place"], other)
    assert place > auroc(other.obsm["X_SpaF"], other) > auroc(other.obsm["X_SpaF_identity"], other)
    assert place > auroc(other.obsm["X_SpaF_identity"], other) + 0.03
    assert model.account.loss < model.account.chance


@pytest.mark.parametrize("preset", ["tissue", "neighbours"])
def test_a_model_is_the_same_after_saving(preset, large, large_model, tmp_path):
    model = large_model if preset == "tissue" else TissueModel.fit(large, "neighbours")
    model.save_pretrained(tmp_path / "model")
    content = json.loads((tmp_path / "model" / "config.json").read_text())
    assert content["family"] == "tissue"
    loaded = TissueModel.from_pretrained(tmp_path / "model")
    assert loaded.config == model.config
    assert loaded.card == model.card
    assert (loaded.network is None) == (preset == "neighbours")
    assert loaded.n_parameters == model.n_parameters
    one, other = large.copy(), large.copy()
    model.embed(one)
    loaded.embed(other)
    np.testing.assert_array_equal(one.obsm["X_SpaF"], other.obsm["X_SpaF"])
    assert other.uns["spaf"]["embed"]["model"] == str(tmp_path / "model")


def test_equal_seeds_give_equal_bits(large, large_model):
    again = TissueModel.fit(large.copy(), network=TINY, seed=1)
    other = TissueModel.fit(large.copy(), network=TINY, seed=2)
    for name, tensor in again.network.state_dict().items():
        np.testing.assert_array_equal(tensor, large_model.network.state_dict()[name])
    np.testing.assert_array_equal(again.identity, large_model.identity)
    assert not np.array_equal(other.network.state_dict()["mlp.1.weight"], again.network.state_dict()["mlp.1.weight"])
    np.testing.assert_array_equal(other.closed, again.closed)  # which takes no chance


def test_few_cells_fall_back_to_the_closed_form_and_it_is_said(simulated, caplog):
    slide = simulated(400)
    model = TissueModel.fit(slide)
    assert model.network is None
    assert model.config.identity_weight == 1.0
    sentence = "Only 400 cells have a neighbour, and a network needs 1,500"
    assert sentence in caplog.text
    assert sentence in model.card
    assert sentence in model.account.fallback
    caplog.clear()
    asked = TissueModel.fit(slide, "neighbours")
    assert not caplog.records
    assert not asked.account.fallback
    np.testing.assert_array_equal(asked.closed, model.closed)


@pytest.mark.parametrize("case", ["no places", "one place", "far apart"])
def test_cells_without_neighbours_have_an_identity_alone(simulated, case, caplog):
    slide = simulated(60)
    if case == "no places":
        del slide.obsm["spatial"]
    elif case == "one place":
        slide.obsm["spatial"][:] = 3.0
    radius = 0.001 if case == "far apart" else None
    model = TissueModel.fit(slide, radius=radius)
    assert model.n_place == 0
    assert "place is left out" in caplog.text
    assert "Place: none" in model.card
    model.embed(slide, parts=True)
    assert "X_SpaF_place" not in slide.obsm
    np.testing.assert_array_equal(slide.obsm["X_SpaF"], slide.obsm["X_SpaF_identity"])


def test_an_identity_alone_survives_saving(simulated, tmp_path):
    slide = simulated(60)
    del slide.obsm["spatial"]
    model = TissueModel.fit(slide)
    model.save_pretrained(tmp_path / "model")
    other = slide.copy()
    model.embed(slide)
    TissueModel.from_pretrained(tmp_path / "model").embed(other)
    np.testing.assert_array_equal(slide.obsm["X_SpaF"], other.obsm["X_SpaF"])


def test_spots_are_told_by_their_grid(simulated):
    slide = simulated(625)
    slide.obsm["spatial"] = np.stack(np.meshgrid(np.arange(25), np.arange(25)), axis=-1).reshape(-1, 2) * 100.0
    model = TissueModel.fit(slide, "neighbours")
    assert "one spacing of the spots away (100)" in model.card
    assert model.account.slides[0].mean_neighbours == pytest.approx(4, abs=0.2)


def test_a_gene_that_a_slide_lacks_is_missing_and_not_zero(large, large_model):
    """Without a gene, what is embedded is what a mean value of the gene gives, and not what an absence of it does."""
    kept = [gene for gene in large.var_names if gene not in ("G03", "G11")]
    lacking = large[:, kept].copy()
    large_model.embed(lacking, parts=True)
    zeroed = large.copy()
    dense = zeroed.X.toarray()
    dense[:, [3, 11]] = 0  # all cells: the gene has no variance, so it says nothing
    zeroed.X = sp.csr_matrix(dense)
    large_model.embed(zeroed, parts=True)
    np.testing.assert_allclose(lacking.obsm["X_SpaF_place"], zeroed.obsm["X_SpaF_place"], atol=1e-5)
    full = large.copy()
    large_model.embed(full, parts=True)
    assert np.corrcoef(lacking.obsm["X_SpaF_place"].ravel(), full.obsm["X_SpaF_place"].ravel())[0, 1] > 0.9
    assert lacking.uns["spaf"]["embed"]["model_gene_fraction"] == pytest.approx(38 / 40)


def test_slides_of_other_panels_are_fitted_together(simulated):
    one, other = simulated(300), simulated(350, seed=1)
    other = other[:, 8:].copy()
    other.var_names = [*other.var_names[:-2], "NEW1", "NEW2"]
    model = TissueModel.fit([one, other], "neighbours")
    assert model.vocabulary.gene_token_ids.size == 42
    assert [slide.n_genes for slide in model.account.slides] == [40, 32]
    model.embed([one, other])
    assert one.obsm["X_SpaF"].shape[1] == other.obsm["X_SpaF"].shape[1]
    assert one.uns["spaf"]["embed"]["parameters"]["identity"] == "fixed"


def test_too_few_genes_are_refused(large, large_model):
    strange = large.copy()
    strange.var_names = [f"X{gene}" for gene in range(30)] + list(large.var_names[30:])
    with pytest.raises(InputError, match="Only 10 of 40 genes"):
        large_model.embed(strange)
    assert "X_SpaF" not in strange.obsm


def test_slides_are_standardised_each_by_itself(simulated):
    first, second = simulated(300), simulated(300, seed=1)
    model = TissueModel.fit([first, second], "neighbours")
    together = anndata.concat({"a": first, "b": second}, label="slide", index_unique="-")
    model.embed(together)
    model.embed([first, second])
    np.testing.assert_allclose(together.obsm["X_SpaF"][:300], first.obsm["X_SpaF"], atol=1e-5)
    np.testing.assert_allclose(together.obsm["X_SpaF"][300:], second.obsm["X_SpaF"], atol=1e-5)
    alone = second.copy()
    model.embed(alone)  # the sizes are those of the fit, so what else is embedded does not matter
    np.testing.assert_allclose(alone.obsm["X_SpaF"], second.obsm["X_SpaF"], atol=1e-5)


def test_fit_does_not_mix_slides_inside_a_table(simulated):
    first, second = simulated(300), simulated(300, seed=1)
    together = anndata.concat({"a": first, "b": second}, label="section", index_unique="-")
    one, other = TissueModel.fit([first, second], "neighbours"), TissueModel.fit(together, "neighbours")
    np.testing.assert_allclose(one.closed, other.closed, atol=1e-4)
    assert other.config.n_slides == 2


def test_identity_of_a_slide_and_a_fixed_one(large, large_model):
    other = large[:800].copy()
    large_model.embed(other, parts=True)
    own = other.obsm["X_SpaF_identity"].copy()
    large_model.embed(other, parts=True, identity="fixed")
    fixed = other.obsm["X_SpaF_identity"]
    assert not np.allclose(own, fixed, atol=1e-3)
    spread = own.var(axis=0)
    assert (np.diff(spread) <= 1e-6).all()  # principal components of what is embedded
    np.testing.assert_allclose(np.abs(np.corrcoef(own.T)[np.triu_indices(40, 1)]).max(), 0, atol=1e-2)
    both = anndata.concat({"a": other, "b": other.copy()}, label="slide", index_unique="-")
    with pytest.raises(InputError, match="identity='slide' gives each of the 2 slides axes of its own"):
        large_model.embed(both, identity="slide")
    with pytest.raises(InputError, match="identity must be one of auto, slide, fixed"):
        large_model.embed(other, identity="own")


def test_cells_without_counts_get_rows_of_nan(simulated, caplog):
    slide = simulated(300)
    dense = slide.X.toarray()
    dense[[0, 17]] = 0
    slide.X = sp.csr_matrix(dense)
    model = TissueModel.fit(slide, "neighbours")
    assert model.account.n_empty == 2
    assert "2 cells without counts were left out" in model.card
    model.embed(slide, parts=True, niche=True)
    for key in ("X_SpaF", "X_SpaF_place", "X_SpaF_identity", "X_SpaF_niche"):
        empty = np.isnan(slide.obsm[key]).all(axis=1)
        assert np.flatnonzero(empty).tolist() == [0, 17]
        assert np.isfinite(slide.obsm[key][~empty]).all()
    assert "2 of 300 cells have no count" in caplog.text
    assert slide.uns["spaf"]["embed"]["n_empty"] == 2
    with pytest.raises(InputError, match="Cell 'cell0' has no transcript"):
        model.embed(slide, strict=True)


def test_constant_genes_duplicate_places_and_lines_are_fitted(simulated):
    slide = simulated(300)
    dense = slide.X.toarray()
    dense[:, 5] = 3
    slide.X = sp.csr_matrix(dense)
    slide.obsm["spatial"][:150] = slide.obsm["spatial"][150:]
    slide.obsm["spatial"][:, 1] = 0.0
    model = TissueModel.fit(slide, "neighbours")
    model.embed(slide, niche=True)
    assert np.isfinite(slide.obsm["X_SpaF"]).all()
    assert np.isfinite(slide.obsm["X_SpaF_niche"]).all()


def test_the_order_of_genes_and_a_moved_slide_change_nothing(simulated):
    slide = simulated(300)
    model = TissueModel.fit(slide, "neighbours")
    model.embed(slide)
    shuffled = slide[:, np.random.default_rng(0).permutation(40)].copy()
    shuffled.obsm["spatial"] = shuffled.obsm["spatial"] + 1e4
    model.embed(shuffled)
    np.testing.assert_allclose(shuffled.obsm["X_SpaF"], slide.obsm["X_SpaF"], atol=1e-4)
    again = TissueModel.fit(shuffled, "neighbours")
    order = [again.vocabulary.tokens.index(gene) for gene in slide.var_names]
    first = [model.vocabulary.tokens.index(gene) for gene in slide.var_names]
    offset = again.vocabulary.gene_token_ids[0]
    np.testing.assert_allclose(
        again.closed[np.array(order) - offset], model.closed[np.array(first) - offset], atol=1e-3
    )


def test_niches_need_places(large, large_model):
    other = large.copy()
    del other.obsm["spatial"]
    large_model.embed(other)
    with pytest.raises(InputError, match="niche=True needs the places"):
        large_model.embed(other, niche=True)


def test_shuffled_places_are_called_unlearnt(simulated):
    slide = simulated(1_700)
    slide.obsm["spatial"] = np.random.default_rng(0).permutation(slide.obsm["spatial"])
    model = TissueModel.fit(slide, network=TINY)
    assert "does not tell neighbours" in model.account.not_learnt
    assert model.account.not_learnt in model.card


def test_bad_directories_are_refused_in_a_sentence(large_model, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        TissueModel.from_pretrained(tmp_path / "none")
    path = tmp_path / "model"
    large_model.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"family": "spatialformer"}))
    with pytest.raises(InputError, match="family 'spatialformer', not 'tissue'"):
        TissueModel.from_pretrained(path)
    (path / "config.json").write_text(json.dumps(config | {"config": config["config"] | {"network": None}}))
    with pytest.raises(InputError, match="unexpected: network"):
        TissueModel.from_pretrained(path)
    (path / "config.json").write_text(json.dumps(config))
    weights = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(weights[:100])
    with pytest.raises(InputError, match="damaged or truncated"):
        TissueModel.from_pretrained(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"it has no model\.safetensors"):
        TissueModel.from_pretrained(path)


@pytest.mark.parametrize("n_threads", [0, -1])
def test_threads_must_be_some(large, n_threads):
    with pytest.raises(InputError, match="n_threads must be at least 1"):
        TissueModel.fit(large, n_threads=n_threads)


def test_repr_says_what_it_is(large_model):
    assert repr(large_model).startswith("TissueModel(40 genes, ")


def test_a_spatialdata_table_is_fitted(simulated):
    spatialdata = pytest.importorskip("spatialdata")
    slide = simulated(60)
    slide.obs["slide"] = pd.Categorical(["a"] * 60)
    data = spatialdata.SpatialData(tables={"cells": slide})
    model = TissueModel.fit(data, "neighbours")
    model.embed(data)
    assert data.tables["cells"].obsm["X_SpaF"].shape[0] == 60


def test_the_card_says_how_place_was_made(slide, simulated):
    model = TissueModel.fit(slide)
    assert "- Place: the closed form" in model.card
    assert "no network, because 400 cells with a neighbour are below 1,500" in model.card
    assert "- Joint: place and 1 times identity" in model.card
    assert "no network, because the closed form was asked for" in TissueModel.fit(simulated(1_600), "neighbours").card
    del slide.obsm["spatial"]
    assert "- Place: none" in TissueModel.fit(slide).card


def test_shares_weigh_slides_and_each_needs_one(simulated):
    slides = []
    for seed, name in enumerate(("a", "b")):
        slides.append(simulated(400, seed=seed))
        slides[-1].obs["slide"] = name
    even = TissueModel.fit(slides, "neighbours", shares={"a": 0.5, "b": 0.5})
    one = TissueModel.fit(slides, "neighbours", shares={"a": 1.0, "b": 1e-9})
    alone = TissueModel.fit(slides[0], "neighbours")
    assert (np.abs(one.identity.T @ alone.identity).max(axis=0)[:5] > 0.99).all()
    assert np.abs(even.identity - one.identity).max() > 0.01
    with pytest.raises(InputError, match=r"shares has none of the slide 'b'; it has: a\."):
        TissueModel.fit(slides, "neighbours", shares={"a": 1.0})
    with pytest.raises(InputError, match=r"shares\['b'\] must be above 0, not 0\."):
        TissueModel.fit(slides, "neighbours", shares={"a": 1.0, "b": 0.0})


def test_a_recipe_given_whole_is_followed_and_parts_are_sized_by_slide(simulated):
    slides = [simulated(300), simulated(300, seed=1, depth=200.0)]
    config = TissueConfig(preset="neighbours", n_components=20, n_place=5, n_identity=7, size_by_slide=True)
    model = TissueModel.fit(slides, config=config)
    assert (model.n_place, model.identity.shape[1]) == (5, 7)
    model.embed(slides[1], parts=True)
    for part in ("place", "identity"):
        assert np.square(slides[1].obsm[f"X_SpaF_{part}"]).sum(axis=1).mean() == pytest.approx(1.0, abs=1e-4)


def test_half_precision_is_smaller_and_nearly_the_same(large, large_model, tmp_path):
    large_model.save_pretrained(tmp_path / "whole")
    large_model.save_pretrained(tmp_path / "half", half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    TissueModel.from_pretrained(tmp_path / "whole").embed(large)
    whole = large.obsm["X_SpaF"]
    for load in (TissueModel.from_pretrained, load_model):
        load(tmp_path / "half").embed(large)
        assert np.abs(large.obsm["X_SpaF"] - whole).max() < 0.01 * np.abs(whole).max()


def test_says_what_share_of_panel_and_counts_was_read(simulated, caplog):
    model = TissueModel.fit(simulated(100)[:, :30].copy(), "neighbours")
    slide = simulated(100)
    with caplog.at_level("INFO"):
        model.embed(slide)
    record = slide.uns["spaf"]["embed"]
    counts = np.asarray(slide.X.sum(axis=0)).ravel()
    assert record["count_fraction"] == pytest.approx(counts[:30].sum() / counts.sum())
    assert (
        f"The model read 30 of 40 genes (100 % of its own 30) and {100 * record['count_fraction']:.0f} %" in caplog.text
    )
