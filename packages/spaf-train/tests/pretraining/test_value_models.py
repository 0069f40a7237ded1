"""Whole runs of a SpatialFormer with values, linear path, decoder, own projection, cosine and random panels."""

import csv
import json

import numpy as np
import pytest
import torch

from spaf_model import SpatialFormer
from spaf_train import BatchStream, evaluate, pretrain, read_config, vocabulary_from_corpus
from spaf_train.pretraining.linear_path import principal_loadings, set_linear_path
from spaf_train.trainer.distributed import Ranks

ALONE = Ranks(0, 1, torch.device("cpu"))
ALL = """
seed = 1
[model]
width = 16
n_layers = 1
n_heads = 2
conv_kernel = 3
pair_input = "separate"
pair_comparison = "cosine"
contrast_rank = 8
gene_values = "pearson"
linear_path = 5
decoder_width = 12
colocalization_rank = 4
[sampling]
input = "patches"
thinning = 0.2
panel_min = 0.6
token_budget = 700
[sampling.patches]
sites = 12
cells = 6
draws = 20
[objectives.contrast]
enabled = true
[objectives.reconstruction]
enabled = true
[objectives.pairs]
enabled = false
[objectives.weighting]
method = "fixed"
[optimizer]
learning_rate = 1e-2
warmup_steps = 2
[run]
steps = {steps}
log_every = 2
validate_every = 4
validation_inputs = 500
checkpoint_every = 4
best_metric = "last"
threads = 1
device = "cpu"
"""


@pytest.fixture
def everything(tmp_path):
    def write(steps=8, overrides=()):
        path = tmp_path / "all.toml"
        path.write_text(ALL.format(steps=steps))
        return read_config(path, overrides=overrides)

    return write


def weights(out):
    return SpatialFormer.from_pretrained(out / "model").network.state_dict()


def test_a_run_leaves_a_model_with_its_loadings(everything, corpus, slides, tmp_path):
    result = pretrain(everything(), corpus.path, tmp_path / "run")
    assert result.finished
    model = SpatialFormer.from_pretrained(tmp_path / "run" / "model")
    stored = model.network.linear_path.loadings
    assert stored.abs().sum() > 0
    fresh = SpatialFormer(model.config, model.vocabulary)
    stream = BatchStream(corpus, model, everything().sampling, everything().objectives, split="train", seed=1)
    set_linear_path(fresh, stream, ALONE)
    assert torch.equal(fresh.network.linear_path.loadings, stored)  # fitted once, never trained
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    judged = [row for row in rows if row["split"] == "validation"]
    assert all(0.0 < float(row["loss_reconstruction"]) < 5.0 for row in judged)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["parameters"]["config"]["model"]["linear_path"] == 5
    card = (tmp_path / "run" / "model" / "card.md").read_text()
    assert "Own counts, share unexplained" in card
    assert "For tissue of your own use the preset `tissue`" in card
    adata = slides[0].copy()
    model.embed(adata, progress=False)
    assert np.isfinite(adata.obsm["X_SpaF"]).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_goes_on_is_the_run_that_was_not_interrupted(everything, corpus, tmp_path, precision, monkeypatch):
    options = [f"run.precision={precision}"]
    pretrain(everything(8, options), corpus.path, tmp_path / "whole")
    from spaf_train.trainer.loop import Trainer

    step = Trainer._train_step

    def interrupted(self, stop):
        if self.step == 4:
            stop.received = True
        return step(self, stop)

    monkeypatch.setattr(Trainer, "_train_step", interrupted)
    assert not pretrain(everything(8, options), corpus.path, tmp_path / "parts").finished
    monkeypatch.undo()
    # What was fitted comes with the state.
    monkeypatch.setattr("spaf_train.pretraining.run.set_linear_path", None)
    assert pretrain(everything(8, options), corpus.path, tmp_path / "parts", resume=True).finished
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_can_be_evaluated(everything, corpus, tmp_path):
    pretrain(everything(4), corpus.path, tmp_path / "run")
    found = evaluate(tmp_path / "run" / "model", corpus.path)
    assert found.cell_pairs is None or len(found.cell_pairs.evaluation.scores)


def test_the_state_begins_as_principal_components(everything, corpus, vocabulary):
    config = everything()
    model = SpatialFormer(config.model, vocabulary_from_corpus(corpus))
    stream = BatchStream(corpus, model, config.sampling, config.objectives, split="train", seed=1)
    set_linear_path(model, stream, ALONE)
    values = stream.all_cells().tokenised.ranked.values
    cells = np.arange(values.slides.size)
    profile = torch.from_numpy(values.profiles(cells, values.rows(cells)))
    path = model.network.linear_path
    with torch.inference_mode():
        states = path(torch.zeros(cells.size, 16), profile)
    components = profile.numpy() @ path.loadings.numpy()
    np.testing.assert_allclose(states.square().sum(1), (components**2).sum(axis=1), rtol=1e-4)  # an isometry
    assert float(states.square().sum(1).mean()) == pytest.approx(16.0, rel=0.05)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (5, 3)])
def test_loadings_are_those_of_the_singular_value_decomposition(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    loadings = principal_loadings(values, 4, width=8)
    rank = min(4, *shape)
    assert loadings.shape == (shape[1], rank)
    right = np.linalg.svd(values.astype(np.float64), full_matrices=False)[2][:rank].T
    unit = loadings / np.linalg.norm(loadings, axis=0)
    np.testing.assert_allclose(np.abs((unit * right).sum(axis=0)), 1.0, atol=1e-4)
    assert ((values @ loadings) ** 2).sum(axis=1).mean() == pytest.approx(8.0, rel=1e-4)
