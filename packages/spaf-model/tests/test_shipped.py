import logging
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from spaf_model import EmbedsPairs, InputError, Model, SpatialFormer, TissueModel, load_model, shipped_models
from spaf_model.asking import asked
from spaf_model.shipped import OWN_FROM, advice_of_own, model_path

CONTEXT = {"tissue": "Breast", "condition": "Disease", "species": "Human", "assay": "Xenium"}


def cells_of(model: Model, n_cells: int = 12) -> anndata.AnnData:
    genes = [model.vocabulary.tokens[token] for token in model.vocabulary.gene_token_ids[:300]]
    counts = np.random.default_rng(0).poisson(0.5, (n_cells, len(genes))).astype(np.float32)
    return anndata.AnnData(counts, var=pd.DataFrame(index=genes))


def test_the_starter_embeds_cells_by_its_fixed_maps() -> None:
    model = load_model()
    assert (model.source, model.family) == ("starter", "tissue")
    adata = cells_of(model)
    model.embed(adata, parts=True)
    assert np.isfinite(adata.obsm["X_SpaF"]).all()
    assert np.ptp(adata.obsm["X_SpaF"], axis=0).min() > 0
    record = adata.uns["spaf"]["embed"]
    assert (record["gene_fraction"], record["count_fraction"]) == (1.0, 1.0)
    direct = cells_of(model)
    TissueModel.from_pretrained("starter").embed(direct)
    np.testing.assert_allclose(direct.obsm["X_SpaF"], adata.obsm["X_SpaF"], atol=1e-5)
    # One size for each part on whatever slide it is used.
    for part in ("place", "identity"):
        assert np.square(adata.obsm[f"X_SpaF_{part}"]).sum(axis=1).mean() == pytest.approx(1.0, abs=1e-3)


def test_genes_of_another_species_are_refused() -> None:
    adata = cells_of(load_model("starter"))
    adata.var_names = [name.capitalize() for name in adata.var_names]
    with pytest.raises(InputError, match="genes are among the model's 6000 genes"):
        load_model("starter").embed(adata)


def test_a_panel_that_is_hardly_known_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    model = load_model("starter")
    adata = cells_of(model)
    adata.var_names = [name if place < 60 else f"OTHER{place}" for place, name in enumerate(adata.var_names)]
    with caplog.at_level(logging.WARNING):
        model.embed(adata, min_gene_fraction=0.1)
    assert "The model read 60 of 300 genes (1 % of its own 6000)" in caplog.text
    assert "it hardly knows this panel" in caplog.text


def test_a_spatialformer_is_the_first_starter_and_compares_cells() -> None:
    model = SpatialFormer.from_pretrained()
    assert model.source == "starter-1"
    adata = cells_of(model)
    model.embed(adata, **CONTEXT)
    assert np.isfinite(adata.obsm["X_SpaF"]).all()
    pairs = model.embed_pairs(adata, np.arange(6), np.arange(6, 12), **CONTEXT)
    assert ((pairs.probabilities > 0) & (pairs.probabilities < 1)).all()


def test_what_the_starter_cannot_do_names_the_model_that_can() -> None:
    with pytest.raises(InputError, match=r"of the family .tissue., .* and of this family is starter-1"):
        SpatialFormer.from_pretrained("starter")
    with pytest.raises(InputError, match=r"no such output; of the models that come with spaf-model, starter-1 can\."):
        asked(load_model("starter"), EmbedsPairs)
    with pytest.raises(InputError, match=r"starter-1.* has the family 'spatialformer', not 'tissue'"):
        TissueModel.from_pretrained("starter-1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("starter", ("10x Genomics", "CC BY 4.0", "PCA", "no figure below is of these weights", "What it is not for")),
        ("starter-1", ("10x Genomics", "CC BY 4.0", "PCA", "Held out", "not good for")),
    ],
)
def test_shipped_models_are_small_and_say_what_they_are(name: str, words: tuple[str, ...]) -> None:
    folder = model_path(name)
    files = {file.name for file in folder.iterdir()}
    assert files == {"card.md", "config.json", "model.safetensors", "vocabulary.json"}  # nothing to unpickle
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 8e6
    card = load_model(name).card
    assert card.startswith(f"# {name}\n")
    for word in words:
        assert word in card, word


def test_a_name_goes_before_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "starter").mkdir()
    assert shipped_models() == ["starter", "starter-1"]
    assert (shipped_models("tissue"), shipped_models("spatialformer")) == (["starter"], ["starter-1"])
    assert load_model("starter").source == "starter"
    with pytest.raises(InputError, match="not a model directory"):
        load_model("./starter")
    assert model_path(Path("starter")) == Path("starter")


def test_slides_that_are_enough_for_a_model_of_their_own_are_told_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        advice_of_own("starter", OWN_FROM - 1)
        advice_of_own("some/model", OWN_FROM)
        assert not caplog.text
        model = load_model("starter")
        adata = cells_of(model, OWN_FROM)[:, :20].copy()
        adata.obs["slide"] = ["a", "b"] * (OWN_FROM // 2)
        adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 900, (OWN_FROM, 2))
        model.embed(adata, min_gene_fraction=0.0)
        assert "a model fitted on it" not in caplog.text  # half of the cells a slide
        del adata.obs["slide"]
        model.embed(adata, min_gene_fraction=0.0)
        assert f"A slide has {OWN_FROM} cells with places: a model fitted on it (TissueModel.fit, or" in caplog.text


def test_a_name_that_is_no_model_says_which_there_are(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no model of that name comes with spaf-model; these do: starter, starter-1"):
        load_model("spots")
    (tmp_path / "spots").mkdir()
    with pytest.raises(InputError, match="spots is not a model directory: it has no config.json"):
        load_model("spots")
