import json

import anndata
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from spaf_model import InputError, NetworkConfig, TissueModel, load_model, tl


@pytest.mark.parametrize("preset", ["neighbours", "tissue"])
def test_a_stored_model_embeds_behind_the_face_of_all_families(slide, tmp_path, preset):
    network = NetworkConfig(widths=(16,), steps=4, batch=32) if preset == "tissue" else None
    model = TissueModel.fit(slide, preset, network=network)
    model.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.family == "tissue"
    assert loaded.n_parameters == model.n_parameters
    assert loaded.card == model.card
    one, other = slide.copy(), slide.copy()
    model.embed(one, parts=True)
    loaded.embed(other, parts=True)
    for key in ("X_SpaF", "X_SpaF_place", "X_SpaF_identity"):
        np.testing.assert_array_equal(one.obsm[key], other.obsm[key])
    tl.embed(other, tmp_path / "model", key_added="again")
    np.testing.assert_array_equal(other.obsm["again"], one.obsm["X_SpaF"])


def test_a_model_with_a_network_that_was_read_can_be_stored_again(simulated, tmp_path):
    slide = simulated(1_600)
    model = TissueModel.fit(slide, network=NetworkConfig(widths=(8,), steps=2, batch=32))
    assert model.network is not None
    model.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    loaded.card += "More."
    loaded.save_pretrained(tmp_path / "again")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "again"))
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert TissueModel.from_pretrained(tmp_path / "again").card.endswith("More.")


def test_the_command_writes_the_parts(run, slide, tmp_path):
    TissueModel.fit(slide, "neighbours").save_pretrained(tmp_path / "model")
    slide.write_h5ad(tmp_path / "slide.h5ad")
    words = ["embed", tmp_path / "slide.h5ad", "--model", tmp_path / "model", "--parts", "-o", tmp_path / "out.h5ad"]
    assert run(*words) == 0
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert {"X_SpaF", "X_SpaF_place", "X_SpaF_identity"} <= set(written.obsm)
    assert run("info", tmp_path / "model", "--json") == 0


def test_what_a_tissue_model_cannot_be_asked_is_said(run, slide, tmp_path, capsys):
    TissueModel.fit(slide, "neighbours").save_pretrained(tmp_path / "model")
    slide.write_h5ad(tmp_path / "slide.h5ad")
    words = ["colocalization", tmp_path / "slide.h5ad", "--model", tmp_path / "model", "-o", tmp_path / "x.h5ad"]
    assert run(*words) == 2
    assert "its family 'tissue' has no such output" in capsys.readouterr().err


def test_a_directory_that_does_not_fit_is_refused(slide, tmp_path):
    TissueModel.fit(slide, "neighbours").save_pretrained(tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    tensors["closed"] = tensors["closed"][:-1].contiguous()
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    for load in (load_model, TissueModel.from_pretrained):
        with pytest.raises(InputError, match="do not fit its configuration; closed is not"):
            load(tmp_path / "model")


def test_several_tables_are_embedded_so_that_they_can_be_compared(simulated, slide, tmp_path):
    model = TissueModel.fit(slide, "neighbours")
    model.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    ours, theirs = ([slide.copy(), simulated(300, seed=5)] for _ in range(2))
    model.embed(ours)
    loaded.embed(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.obsm["X_SpaF"], other.obsm["X_SpaF"])
    with pytest.raises(InputError, match="axes of its own"):
        loaded.embed(theirs, method="slide")
    joint = slide.copy()
    joint.obs["slide"] = np.where(np.arange(joint.n_obs) < 200, "a", "b")
    with pytest.raises(InputError, match="axes of its own"):
        loaded.embed(joint, method="slide")


def test_a_key_that_cannot_be_stored_is_refused_before_the_work(slide):
    model = TissueModel.fit(slide, "neighbours")
    with pytest.raises(InputError, match="key_added"):
        model.embed(slide, key_added="a/b")


def test_a_table_without_cells_is_refused(run, slide, tmp_path, capsys):
    TissueModel.fit(slide, "neighbours").save_pretrained(tmp_path / "model")
    slide[:0].copy().write_h5ad(tmp_path / "none.h5ad")
    words = ["embed", tmp_path / "none.h5ad", "--model", tmp_path / "model", "-o", tmp_path / "out.h5ad"]
    assert run(*words) == 2
    assert "The AnnData has no cells" in capsys.readouterr().err
    assert not (tmp_path / "out.h5ad").exists()


def test_all_tables_are_written_or_none(slide, tmp_path):
    TissueModel.fit(slide, "neighbours").save_pretrained(tmp_path / "model")
    tables = [slide.copy(), slide[:5].copy()]
    with pytest.raises(InputError, match="has 5 cells with counts"):
        load_model(tmp_path / "model").embed(tables)
    assert "X_SpaF" not in tables[0].obsm
    assert "spaf" not in tables[0].uns


def test_no_part_of_an_earlier_embedding_stays_beside_a_new_one(slide, tmp_path):
    model = TissueModel.fit(slide, "neighbours")
    model.save_pretrained(tmp_path / "model")
    for again in (model, load_model(tmp_path / "model")):
        model.embed(slide, parts=True, niche=True)
        assert {"X_SpaF_place", "X_SpaF_identity", "X_SpaF_niche"} <= set(slide.obsm)
        own = slide.obsm["X_SpaF_niche"].copy()
        again.embed(slide, niche=True)
        assert not {"X_SpaF_place", "X_SpaF_identity"} & set(slide.obsm)
        np.testing.assert_allclose(slide.obsm["X_SpaF_niche"], own, atol=1e-5)
        again.embed(slide)
        assert not {"X_SpaF_place", "X_SpaF_identity", "X_SpaF_niche"} & set(slide.obsm)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scales": {}}, "scales has no 'identity'"),
        ({"scales": {"identity": 1.0}}, "scales has no 'closed'"),
        ({"scales": "x"}, "scales must give each part a size above 0"),
        ({"scales": {"closed": -1.0, "identity": 1.0}}, "scales must give each part a size above 0"),
        ({"scales": {"closed": 0.0, "identity": 1.0}}, "scales must give each part a size above 0"),
        ({"scales": None}, "scales must give each part a size above 0"),
        ({"identity_weight": None}, "it has no identity_weight"),
        ({"n_slides": "one"}, "n_slides must be a whole number of at least 0"),
        ({"n_identity": 2.5}, "n_identity must be a whole number of at least 1"),
        ({"network_weight": None}, "network_weight must be at least 0"),
        ({"network": {"widths": ["a"]}}, "cannot be read"),
    ],
)
def test_a_configuration_that_is_of_no_fitted_model_is_refused(slide, tmp_path, change, sentence):
    TissueModel.fit(slide, "neighbours").save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    content = json.loads(file.read_text())
    content["config"] |= change
    file.write_text(json.dumps(content))
    for load in (load_model, TissueModel.from_pretrained):
        with pytest.raises(InputError, match=sentence):
            load(tmp_path / "model")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64, torch.int32])
def test_tensors_of_another_type_are_refused(slide, tmp_path, kind):
    TissueModel.fit(slide, "neighbours").save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"closed": tensors["closed"].to(kind)}, file)
    with pytest.raises(InputError, match=f"closed is {kind}"):
        load_model(tmp_path / "model")


def test_values_beyond_single_precision_are_not_written(slide):
    model = TissueModel.fit(slide, "neighbours")
    model.closed = model.closed * np.float32(1e38)
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(InputError, match="is not finite"):
        model.embed(slide)
    assert "X_SpaF" not in slide.obsm
