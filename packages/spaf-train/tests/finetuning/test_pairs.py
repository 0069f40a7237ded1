import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from spaf_data import write_corpus
from spaf_model import InputError, SpatialFormer
from spaf_train import EvaluationOptions, FinetuneConfig, finetune_pairs
from spaf_train.evaluation import BASELINES
from spaf_train.finetuning import pairs as pair_tuning

EVALUATION = EvaluationOptions(max_pairs=60, n_replicates=10, radii=(30.0,))
FAST = {"steps": 8, "validate_every": 4, "validation_inputs": 100, "token_budget": 2000, "warmup_steps": 2,
        "rank": 2, "alpha": 4.0, "threads": 1, "device": "cpu"}  # fmt: skip


def changed(model_dir, out):
    before, after = load_file(model_dir / "model.safetensors"), load_file(out / "model.safetensors")
    assert set(before) == set(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_probe_changes_the_pair_head_alone(model_dir, corpus, tmp_path):
    out = tmp_path / "out"
    config = FinetuneConfig(method="probe", **FAST)
    result = finetune_pairs(model_dir, corpus, out, config=config, evaluation=EVALUATION)
    assert changed(model_dir, out) == {"pair_head.weight"}
    scores = result.scores[result.scores.negatives == "easy"].set_index("score")["auroc"]
    assert set(scores.index) == {"fine-tuned model", "model before", "embedding cosine", *BASELINES}
    card = SpatialFormer.from_pretrained(out).card
    assert card.startswith("# A model\n")
    assert "## Fine-tuned for pairs of neighbours" in card
    assert "Method: probe; the encoder is unchanged" in card


def test_lora_changes_the_adapted_maps_and_the_pair_head(model_dir, corpus, tmp_path):
    out = tmp_path / "out"
    config = FinetuneConfig(method="lora", learning_rate=0.01, **FAST)
    result = finetune_pairs(model_dir, corpus.path, out, config=config, evaluation=EVALUATION)
    assert result.fit.best_step > 0
    names = changed(model_dir, out)
    assert "pair_head.weight" in names
    adapted = (
        "attention.mixer.qkv.weight",
        "attention.mixer.project.weight",
        "mlp.expand.weight",
        "mlp.project.weight",
    )
    assert all(name.endswith(adapted) for name in names - {"pair_head.weight"})
    assert len(names) == 1 + 6


def test_full_trains_everything(model_dir, corpus, tmp_path):
    config = FinetuneConfig(method="full", learning_rate=0.01, **{**FAST, "steps": 20})
    result = finetune_pairs(model_dir, corpus, tmp_path / "out", config=config, evaluation=EVALUATION)
    assert result.fit.best["loss"] < 0.8 * result.fit.history[0]["loss"]
    names = changed(model_dir, tmp_path / "out")
    assert {"pair_head.weight", "embedding.tokens.weight"} <= names
    assert not any(name.startswith(("masked_gene_head", "colocalization_head")) for name in names)


def test_same_seed_same_weights(model_dir, corpus, tmp_path):
    config = FinetuneConfig(method="lora", **FAST)
    first, second = (
        load_file(
            finetune_pairs(model_dir, corpus, tmp_path / name, config=config, evaluation=EVALUATION).out
            / "model.safetensors"
        )
        for name in "ab"
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_does_not_fit(model_dir, corpus, tmp_path):
    config = FinetuneConfig(**FAST)
    with pytest.raises(InputError, match="knows no assay 'Slide-seq'"):
        finetune_pairs(model_dir, corpus, tmp_path / "out", config=config, context={"assay": "Slide-seq"})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(InputError, match="already holds something"):
        finetune_pairs(model_dir, corpus, tmp_path / "full", config=config)
    with pytest.raises(InputError, match="best_metric of pairs must be loss or auroc_pairs"):
        finetune_pairs(model_dir, corpus, tmp_path / "out", config=FinetuneConfig(best_metric="macro_f1"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("far", "sentence"), [(False, "others at 80 um or more"), (True, "no pair of neighbouring")])
def test_what_cannot_be_judged_or_trained_on_is_said_before_the_work(
    model_dir, slides, tmp_path, monkeypatch, far, sentence
):
    slide = slides[0][slides[0].obs["split"] != "gap"].copy()
    held = np.flatnonzero(slide.obs["split"] == "validation")
    apart = 1e4 + 1e3 * np.arange(2.0 * held.size).reshape(-1, 2)
    together = np.random.default_rng(0).uniform(400, 450, (held.size, 2))
    slide.obsm["spatial"][held] = apart if far else together
    small = write_corpus([slide], tmp_path / "corpus", block_cells=40)
    monkeypatch.setattr(pair_tuning, "_train", lambda *_: pytest.fail("the work has begun"))
    with pytest.raises(InputError, match=sentence):
        finetune_pairs(model_dir, small, tmp_path / "out", config=FinetuneConfig(**FAST), evaluation=EVALUATION)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"alpha": np.nan}, "alpha must be above 0"),
    ],
)
def test_options_out_of_range(options, sentence):
    with pytest.raises(InputError, match=sentence):
        FinetuneConfig(**options)
