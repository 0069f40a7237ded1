"""The second family by the same trainer: what it leaves, and that it learns."""

import json

import numpy as np
import pytest

from spaf_data import write_corpus
from spaf_model import load_model
from spaf_train import pretrain, read_config


def test_it_is_trained_validated_saved_and_embeds(spatial_path, corpus, slides, tmp_path):
    result = pretrain(read_config(spatial_path), corpus.path, tmp_path / "run")
    assert result.finished
    model = load_model(tmp_path / "run" / "model")
    adata = slides[0].copy()
    model.embed(adata)
    assert adata.obsm["X_SpaF"].shape == (adata.n_obs, 16)
    assert np.isfinite(adata.obsm["X_SpaF"]).all()
    for words in (
        "# ScGPTSpatial",
        "A neighbourhood is the 6 nearest cells",
        "Of the tokens, each of the 3 experts got",
    ):
        assert words in model.card
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert set(record["report"]["experts"]["by_technology"]) == {"Xenium"}
    assert {"information_experts", "least_load_experts", "baseline_neighbourhood"} <= set(result.best)
    assert model.report()["experts"]["load"] == record["report"]["experts"]["load"]


def test_it_learns_what_the_means_of_genes_do_not_say(spatial_path, corpus, tmp_path):
    overrides = ["run.steps=80", "run.validate_every=80", "run.validation_inputs=500", "optimizer.learning_rate=1e-2"]
    overrides += ["model.n_experts=1", "model.value_style=rates", "optimizer.warmup_steps=20"]
    overrides += ["model.neighbour_mix=none"]  # states have little left to say beside the counts of neighbours here
    result = pretrain(read_config(spatial_path, overrides=overrides), corpus.path, tmp_path / "run")
    assert result.best["explained_cell_values"] > 0.3
    assert result.best["explained_neighbourhood"] > result.best["baseline_neighbourhood"] > 0.1
    assert result.best["explained_masked_values"] > 0.03
    assert result.not_learnt == {}


def test_joined_with_what_is_seen_it_begins_where_the_mean_of_the_neighbours_is(spatial_path, corpus, tmp_path):
    overrides = ["run.steps=1", "run.validate_every=1", "optimizer.learning_rate=1e-9", "optimizer.floor=0"]
    result = pretrain(read_config(spatial_path, overrides=overrides), corpus.path, tmp_path / "run")
    baseline = result.best["baseline_neighbourhood"]
    assert result.best["explained_neighbourhood"] > 0.5 * baseline > 0.1
    plain = read_config(spatial_path, overrides=[*overrides, "model.neighbour_mix=none"])
    assert pretrain(plain, corpus.path, tmp_path / "plain").best["explained_neighbourhood"] < 0.05


@pytest.mark.parametrize("option", ["run.precision=bf16", "run.activation_checkpointing=true", "run.workers=1"])
def test_options_of_the_run_serve_it(spatial_path, corpus, tmp_path, option):
    plain = pretrain(read_config(spatial_path), corpus.path, tmp_path / "plain")
    found = pretrain(read_config(spatial_path, overrides=[option]), corpus.path, tmp_path / "run")
    assert found.best["loss"] == pytest.approx(plain.best["loss"], rel=0.02 if "bf16" in option else 1e-5)


def test_recomputed_layers_count_routes_once(spatial_path, corpus, tmp_path):
    for name, option in (("plain", "false"), ("again", "true")):
        config = read_config(spatial_path, overrides=[f"run.activation_checkpointing={option}"])
        pretrain(config, corpus.path, tmp_path / name)
    one, other = (load_model(tmp_path / name / "model").report()["experts"] for name in ("plain", "again"))
    assert one == other


def test_published_choices_can_be_trained(spatial_path, corpus, tmp_path):
    """Bins by squared error, four experts, a mean of six neighbours."""
    overrides = [
        "model.neighbour_mix=none",
        "model.output=bins",
        "model.norm=post",
        "model.n_experts=4",
        "model.neighbour_weights=uniform",
    ]
    overrides += ["objectives.neighbourhood.weights=uniform", "objectives.masked_values.zeros=0"]
    result = pretrain(read_config(spatial_path, overrides=overrides), corpus.path, tmp_path / "run")
    assert result.finished
    assert np.isfinite(list(result.best.values())).all()


def test_a_cell_without_a_gene_and_one_of_one_gene_are_read(spatial_path, slides, tmp_path):
    adata = slides[0].copy()
    counts = adata.X.toarray()
    counts[:10] = 0
    counts[10:20, 1:] = 0
    adata.X = type(adata.X)(counts)
    del adata.obsm["colocalization"]
    adata.uns = {}
    corpus = write_corpus([adata], tmp_path / "corpus", block_cells=40, colocalization_key=None)
    assert pretrain(read_config(spatial_path), corpus.path, tmp_path / "run").finished
