import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from spaf_data import write_corpus
from spaf_model import InputError, SpatialFormer, SpatialFormerConfig
from spaf_train import (
    EvaluationOptions,
    FinetuneConfig,
    evaluate,
    finetune_pairs,
    predict_pairs,
    vocabulary_from_corpus,
)
from spaf_train.evaluation import BASELINES, CalibratedCosine, centred_cosine, read_cells
from spaf_train.finetuning import pairs as pair_tuning
from spaf_train.finetuning.pair_candidates import Comparison, TrainingTissue, calibrated, compare, refit_apart

EVALUATION = EvaluationOptions(max_pairs=60, n_replicates=10, radii=(30.0,))
FAST = {"steps": 8, "validate_every": 4, "validation_inputs": 100, "token_budget": 2000, "warmup_steps": 2,
        "rank": 2, "alpha": 4.0, "threads": 1, "device": "cpu"}  # fmt: skip


def changed(model_dir, out):
    before, after = load_file(model_dir / "model.safetensors"), load_file(out / "model.safetensors")
    assert set(before) == set(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture
def other_kept(monkeypatch):
    """Whatever is not the cosine is kept."""
    monkeypatch.setattr(pair_tuning, "compare", lambda *_: Comparison(0.9, 0.5, True))


@pytest.fixture
def cosine_kept(monkeypatch):
    monkeypatch.setattr(pair_tuning, "compare", lambda *_: Comparison(0.5, 0.9, False))


@pytest.mark.parametrize("method", ["probe", "lora", "full"])
def test_what_does_not_beat_the_cosine_is_not_kept(model_dir, corpus, slides, tmp_path, cosine_kept, method):
    out = tmp_path / "out"
    result = finetune_pairs(model_dir, corpus, out, config=FinetuneConfig(method=method, **FAST), evaluation=EVALUATION)
    assert not changed(model_dir, out)
    head = CalibratedCosine.find(out)
    assert head is not None
    assert (head.pooling, head.radius) == ("cls", 30.0)
    assert result.record["kept"] == "cosine"
    assert "did not beat the cosine of embeddings" in result.decision
    scores = result.scores.query("negatives == 'easy'").set_index("score")["auroc"]
    expected = scores["embedding cosine"] if head.slope > 0 else 1.0 - scores["embedding cosine"]
    assert scores["fine-tuned model"] == pytest.approx(expected, abs=1e-6)
    assert "`pairs.json`" in SpatialFormer.from_pretrained(out).card
    slide = slides[0]
    left, right = np.arange(20), np.arange(20, 40)
    found = predict_pairs(slide, out, slide.obs_names[left].to_numpy(), slide.obs_names[right].to_numpy())
    np.testing.assert_array_equal(found, predict_pairs(slide, out, left, right))
    model = SpatialFormer.from_pretrained(out)
    model.embed(slide, key_added="own")
    cosines = centred_cosine(slide.obsm.pop("own"), np.full(slide.n_obs, ""))(left, right)
    np.testing.assert_allclose(found, 1.0 / (1.0 + np.exp(-head.slope * cosines - head.offset)), rtol=1e-6)
    judged = evaluate(out, corpus, options=EVALUATION).cell_pairs.evaluation
    value = judged.interval("model", 30.0, "easy").value
    assert value == pytest.approx(scores["fine-tuned model"], abs=1e-6)


def test_a_model_without_a_cosine_head_predicts_by_its_own(model_dir, slides):
    slide = slides[0]
    found = predict_pairs(slide, model_dir, [0, 1], [2, 3])
    expected = SpatialFormer.from_pretrained(model_dir).embed_pairs(slide, [0, 1], [2, 3]).probabilities
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_cosine_head_of_a_damaged_file(tmp_path):
    head = CalibratedCosine(slope=2.0, offset=-0.5, pooling="cls", radius=30.0)
    head.save(tmp_path)
    assert CalibratedCosine.find(tmp_path) == head
    text = (tmp_path / "pairs.json").read_text()
    for old, new, sentence in (
        ('"slope": 2.0', '"slop": 2.0', "pairs.json is damaged"),
        ('"slope": 2.0', '"slope": NaN', "its slope or offset is not finite"),
        ('"format_version": 1', '"format_version": 2', "has format version 2"),
    ):
        (tmp_path / "pairs.json").write_text(text.replace(old, new))
        with pytest.raises(InputError, match=sentence):
            CalibratedCosine.find(tmp_path)
    assert CalibratedCosine.find(tmp_path / "none") is None


@pytest.fixture
def apart(corpus, tmp_path):
    """A model that reads the two cells of a pair apart, in a directory."""
    config = SpatialFormerConfig(
        width=16, n_layers=1, n_heads=2, conv_kernel=3, colocalization_rank=4, pair_input="separate", pair_rank=8
    )
    model = SpatialFormer(config, vocabulary_from_corpus(corpus), seed=0)
    model.save_pretrained(tmp_path / "apart")
    return tmp_path / "apart"


def test_models_that_read_cells_apart_are_fine_tuned_too(apart, corpus, tmp_path, other_kept):
    result = finetune_pairs(apart, corpus, tmp_path / "out", config=FinetuneConfig(**FAST), evaluation=EVALUATION)
    assert changed(apart, tmp_path / "out") <= {"pair_head.weight", "pair_head.slope", "pair_head.offset"}
    assert result.record["kept"] == "probe"
    assert CalibratedCosine.find(tmp_path / "out") is None
    scores = result.scores.query("negatives == 'easy'").set_index("score")["auroc"]
    assert scores["fine-tuned model"] >= scores["model before"] - 0.1
    for method in ("lora", "full"):
        with pytest.raises(InputError, match="its encoder can be trained on pairs by contrast"):
            finetune_pairs(apart, corpus, tmp_path / method, config=FinetuneConfig(method=method, **FAST))


def test_what_is_decided_on_was_not_trained_on(apart, corpus, tmp_path):
    model = SpatialFormer.from_pretrained(apart)
    cells = read_cells(corpus, "train", max_cells=10_000, seed=0)
    tissue = TrainingTissue.of(cells, corpus, model, EVALUATION)
    assert set(tissue.part) == {"train", "validation", "decide", "gap"}
    for slide in np.unique(cells.slide):
        places = {part: cells.coordinates[(cells.slide == slide) & (tissue.part == part)] for part in set(tissue.part)}
        for held in ("validation", "decide"):
            apart_by = np.linalg.norm(places["train"][:, None] - places[held][None], axis=2).min()
            assert apart_by > 60.0
    used = np.concatenate([tissue.pairs.anchor, tissue.pairs.neighbour])
    assert set(tissue.part[used]) == {"decide"}
    inner = tissue.write(corpus, tmp_path / "corpus")
    assert sum(ref.n_owned for ref in inner.block_refs("train")) == (tissue.part == "train").sum()
    assert sum(ref.n_owned for ref in inner.block_refs("validation")) == (tissue.part == "validation").sum()
    before = SpatialFormer.from_pretrained(apart)
    assert refit_apart(model, tissue, ("train",), corpus.distances, FinetuneConfig())
    found = compare(before, model, tissue, corpus.distances, 0)
    assert 0.0 < found.cosine < 1.0
    assert found.better == (found.other > found.cosine) or not found.better
    head = calibrated(before, tissue, ("train",), corpus.distances, 0)
    assert head is not None
    assert np.isfinite([head.slope, head.offset]).all()


def test_probe_changes_the_pair_head_alone(model_dir, corpus, tmp_path, other_kept):
    out = tmp_path / "out"
    config = FinetuneConfig(method="probe", **FAST)
    result = finetune_pairs(model_dir, corpus, out, config=config, evaluation=EVALUATION)
    assert changed(model_dir, out) == {"pair_head.weight"}
    scores = result.scores[result.scores.negatives == "easy"].set_index("score")["auroc"]
    assert set(scores.index) == {"fine-tuned model", "model before", "embedding cosine", "random encoder", *BASELINES}
    card = SpatialFormer.from_pretrained(out).card
    assert card.startswith("# A model\n")
    assert "## Fine-tuned for pairs of neighbours" in card
    assert "Method: probe; the encoder is unchanged" in card


def test_lora_changes_the_adapted_maps_and_the_pair_head(model_dir, corpus, tmp_path, other_kept):
    out = tmp_path / "out"
    config = FinetuneConfig(method="lora", learning_rate=0.01, best_metric="loss", **FAST)
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


def test_full_trains_everything(model_dir, corpus, tmp_path, other_kept):
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
    monkeypatch.setattr(pair_tuning, "_choose", lambda *_: pytest.fail("the work has begun"))
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
