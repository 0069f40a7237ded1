import json

import anndata
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from spaf_data import write_corpus
from spaf_model import InputError, Vocabulary, load_model
from spaf_train import pretrain, read_config
from spaf_train.cli import app
from spaf_train.pretraining.continued import continued, extended

SECOND = [
    "model.width=16", "model.n_layers=1", "model.n_heads=2", "model.n_neighbours=8",
    "objectives.neighbourhood.neighbours=8", "sampling.windows.neighbours=8", "sampling.token_budget=600",
]  # fmt: skip
SHORT = ["run.steps=3", "run.validate_every=3", "run.checkpoint_every=1", "run.log_every=1", "optimizer.warmup_steps=2"]


@pytest.fixture(params=["spatialformer", "scgpt_spatial"])
def first(request, config_path, corpus, tmp_path):
    """A run of either family, and the configuration that it had."""
    source, overrides = (config_path, []) if request.param == "spatialformer" else ("scgpt_spatial", SECOND)
    config = read_config(source, overrides=[*overrides, *SHORT])
    pretrain(config, corpus.path, tmp_path / "first")
    return source, overrides, tmp_path / "first" / "model"


@pytest.fixture
def wider(slides, tmp_path):
    """A slide of other technology and tissue, with two genes that the first corpus does not have, and without four."""
    adata = slides[0][:, 4:].copy()
    del adata.obsm["colocalization"]
    adata.uns = {}
    more = anndata.AnnData(np.ones((adata.n_obs, 2), dtype=np.int32) * 3, obs=adata.obs[[]])
    more.var_names = ["NEW1", "NEW2"]
    joined = anndata.concat([adata, more], axis=1)
    joined.obs = adata.obs.assign(assay="Visium", tissue="Colon")
    joined.obsm["spatial"] = adata.obsm["spatial"]
    return write_corpus([joined], tmp_path / "wider", block_cells=40, colocalization_key=None)


def test_a_run_begins_with_the_weights_and_keeps_every_id(first, wider, tmp_path):
    source, overrides, model = first
    still = ["optimizer.learning_rate=1e-12", "optimizer.floor=0"]
    config = read_config(source, overrides=[*overrides, *SHORT, *still, f"continue_from={model}"])
    result = pretrain(config, wider.path, tmp_path / "second")
    old, new = load_model(model), load_model(tmp_path / "second" / "model")
    assert result.finished
    assert new.vocabulary.tokens[: old.vocabulary.n_tokens] == old.vocabulary.tokens
    assert {"NEW1", "NEW2"} <= set(new.vocabulary.tokens)
    assert "Visium" in new.vocabulary.context["assay"]
    assert new.vocabulary.context["assay"]["Xenium"] == old.vocabulary.context["assay"]["Xenium"]
    known, now = old.network.state_dict(), new.network.state_dict()
    for name, tensor in known.items():
        if "running" in name or "num_batches" in name:
            continue
        torch.testing.assert_close(
            now[name][: tensor.shape[0]] if tensor.ndim else now[name], tensor, rtol=1e-5, atol=1e-6
        )
    record = json.loads((tmp_path / "second" / "run.json").read_text())
    assert record["continued_from"]["n_new_genes"] == 2
    assert len(record["continued_from"]["sha256"]) == 64
    assert record["continued_from"]["sha256"] in new.card
    assert "2 genes" in new.card


def test_it_is_taken_up_again_and_not_with_other_weights(first, wider, corpus, tmp_path):
    source, overrides, model = first
    config = read_config(source, overrides=[*overrides, *SHORT, f"continue_from={model}"])
    pretrain(config, wider.path, tmp_path / "second")
    again = pretrain(config, wider.path, tmp_path / "second", resume=True)
    assert again.step == 3
    with pytest.raises(InputError, match="began with the weights of another model"):
        pretrain(
            read_config(source, overrides=[*overrides, *SHORT, f"continue_from={tmp_path / 'second' / 'model'}"]),
            wider.path, tmp_path / "second", resume=True,
        )  # fmt: skip


def test_the_command_names_what_does_not_go_together(model_dir, corpus, tmp_path):
    def say(*arguments):
        return CliRunner().invoke(
            app, ["pretrain", *arguments, "--data", str(corpus.path), "--out", str(tmp_path / "run")]
        )

    found = say("scgpt_spatial", "--from", str(model_dir))
    assert found.exit_code != 0
    assert "spatialformer" in str(found.exception or found.output)
    for arguments, sentence in (
        (("small", "--from", str(model_dir), "--set", "model.width=8"), "has its sizes"),
        (("tissue", "--from", str(model_dir)), "cannot be used with the preset tissue"),
    ):
        found = say(*arguments)
        assert sentence in str(found.exception or found.output)
    assert not (tmp_path / "run").exists()


def test_a_model_of_other_genes_is_refused(first, corpus, config):
    other = Vocabulary.build(["A", "B"], scale=[1.0, 1.0])
    with pytest.raises(InputError, match="None of the genes of the corpus"):
        continued(load_model(first[2]), other, seed=0)


def test_genes_are_found_by_id_and_names_in_use_are_not_added():
    old = Vocabulary.build(["OLD", "SAME"], scale=[1.0, 2.0], gene_ids=["ENSG00000000001", ""], assay=["Xenium"])
    wanted = Vocabulary.build(
        ["RENAMED", "SAME", "NEW"],
        scale=[5.0, 6.0, 7.0],
        gene_ids=["ENSG00000000001", "", ""],
        assay=["XENIUM", "Visium"],
    )
    found, n_genes, n_contexts = extended(old, wanted)
    assert found.tokens[old.n_tokens :] == ["NEW", "assay:Visium"]
    assert (n_genes, n_contexts) == (1, 1)
    assert found.scale[old.n_tokens] == 7.0
    assert found.scale[found.tokens.index("SAME")] == 2.0
