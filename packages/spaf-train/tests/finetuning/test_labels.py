import dataclasses
import json

import anndata
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from spaf_model import InputError, SpatialFormer, TissueModel
from spaf_train import FinetuneConfig, finetune_labels, predict_labels
from spaf_train.evaluation.probing import Block, fit_probe
from spaf_train.finetuning import LabelHead, fit_with_patience, label_tuning, labelled_cells
from spaf_train.finetuning import labels as label_module

FAST = {"steps": 12, "validate_every": 4, "token_budget": 2000, "warmup_steps": 2, "threads": 1, "device": "cpu"}


def finetune(model_dir, cells, out, label="cell_type", n_replicates=20, config=None, **options):
    config = FinetuneConfig(**{"method": "probe", "device": "cpu", **(config or {})})
    return finetune_labels(model_dir, cells, label, out, config=config, n_replicates=n_replicates, **options)


def score(result, name, part="validation", measure="macro_f1"):
    return result.scores.set_index(["part", "score"]).loc[(part, name), measure]


def test_probe_learns_what_is_planted(model_dir, cells, tmp_path):
    result = finetune(model_dir, cells, tmp_path / "out")
    assert score(result, "fine-tuned model") > score(result, "most frequent class") + 0.2
    assert score(result, "PCA, logistic regression") > 0.9
    told = result.predictions
    assert set(told.columns) == {"part", "label", *result.scores["score"]}
    assert (told["label"] == cells.obs["cell_type"].loc[told.index]).all()
    right = (told["fine-tuned model"] == told["label"]).mean()
    assert right == pytest.approx(score(result, "fine-tuned model", measure="accuracy"))
    assert set(result.scores["score"]) == {
        "fine-tuned model", "log counts, logistic regression", "most frequent class", "PCA, 15 neighbours",
        "PCA, logistic regression", "probe of the embedding alone", "probe of random weights",
    }  # fmt: skip
    before = load_file(model_dir / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "Fine-tuned for labels: cell_type" in SpatialFormer.from_pretrained(tmp_path / "out").card


@pytest.fixture
def always_kept(monkeypatch):
    """An encoder that was trained is kept whatever it is worth."""
    monkeypatch.setattr(label_tuning, "is_clearly_better", lambda *_, **__: True)


@pytest.mark.parametrize(("method", "learning_rate"), [("lora", 0.01), ("full", 0.003)])
def test_training_learns_and_leaves_a_model_directory(model_dir, cells, tmp_path, always_kept, method, learning_rate):
    options = {**FAST, "method": method, "rank": 2, "alpha": 4.0, "steps": 40, "learning_rate": learning_rate}
    options |= {"features": "embedding", "regularisation": 1000.0, "best_metric": "loss"}
    result = finetune(model_dir, cells, tmp_path / "out", config=options)
    assert score(result, "fine-tuned model") > score(result, "most frequent class") + 0.2
    assert "probe of the model as given" in set(result.scores["score"])
    assert result.fit.best["loss"] < result.fit.history[0]["loss"]
    assert result.record["kept"] == method
    before = load_file(model_dir / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    model = SpatialFormer.from_pretrained(tmp_path / "out")
    assert "no longer" in model.card
    record = json.loads((tmp_path / "out" / "finetune.json").read_text())
    assert {"command", "versions", "parameters", "seconds", "peak_rss_mb", "fit", "scores"} <= set(record)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_that_does_not_beat_the_probe_hands_the_probe_back(model_dir, cells, tmp_path, method):
    probed = finetune(model_dir, cells, tmp_path / "probe", config=FAST)
    result = finetune(model_dir, cells, tmp_path / "out", config={**FAST, "method": method, "rank": 2})
    before = load_file(model_dir / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    for file in ("label_head.safetensors",):
        first, second = (load_file(tmp_path / name / file) for name in ("probe", "out"))
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert score(result, "fine-tuned model") == score(probed, "fine-tuned model")
    assert f"trained by {method} did not beat the probe" in result.decision
    assert result.record["kept"] == "probe"
    assert "did not beat the probe" in SpatialFormer.from_pretrained(tmp_path / "out").card


def test_what_is_kept_is_decided_on_training_cells(model_dir, cells, tmp_path, monkeypatch):
    seen = {}

    def watch(network, objectives, train, validation, config, **options):
        seen["rows"] = np.concatenate([train._rows, validation._rows])
        return fit_with_patience(network, objectives, train, validation, config, **options)

    monkeypatch.setattr(label_tuning, "fit_with_patience", watch)
    finetune(model_dir, cells, tmp_path / "out", config={**FAST, "method": "full"})
    assert set(cells.obs["split"].iloc[seen["rows"]]) == {"train"}
    assert 0 < seen["rows"].size < (cells.obs["split"] == "train").sum()


def test_too_few_cells_to_tell_are_not_trained_on(model_dir, cells, tmp_path):
    train = np.flatnonzero(cells.obs["split"] == "train")
    cells.obs.loc[cells.obs_names[train[24:]], "split"] = "gap"
    result = finetune(model_dir, cells, tmp_path / "out", config={**FAST, "method": "full"})
    assert result.decision.startswith("24 training cells are too few to hold out some")
    assert result.fit.steps == 0


def test_the_default_is_never_below_log_counts_here(model_dir, cells, tmp_path):
    result = finetune(model_dir, cells, tmp_path / "out")
    minus = result.differences.set_index("baseline").loc["log counts, logistic regression"]
    assert minus["macro_f1_high"] >= 0.0
    assert result.record["head"]["reads"] in ("counts", "both")
    assert set(result.record["head"]["on_folds"]) == {"counts", "both"}
    assert set(result.differences["verdict"]) <= {"better", "worse", "tied", "unknown"}


def test_few_tiles_are_no_verdict(model_dir, cells, tmp_path):
    cells.obsm["spatial"] = cells.obsm["spatial"] / 5.0
    result = finetune(model_dir, cells, tmp_path / "out", gap=5.0)
    assert result.differences["n_tiles"].max() < 20
    assert set(result.differences["verdict"]) == {"unknown"}
    assert "tiles are too few for a verdict" in SpatialFormer.from_pretrained(tmp_path / "out").card


@pytest.mark.parametrize("features", ["embedding", "counts", "both"])
def test_what_the_head_reads_can_be_given(model_dir, cells, tmp_path, features):
    result = finetune(model_dir, cells, tmp_path / "out", config={"features": features})
    head = LabelHead.load(tmp_path / "out")
    n_genes = 0 if head.counts is None else len(head.counts.genes)
    assert (head.n_embedding, n_genes) == {"embedding": (16, 0), "counts": (0, 24), "both": (16, 24)}[features]
    version = json.loads((tmp_path / "out" / "labels.json").read_text())["format_version"]
    assert version == (1 if features == "embedding" else 2)
    predict_labels(cells, tmp_path / "out")
    held = (cells.obs["split"] == "validation").to_numpy()
    right = (cells.obs["label_pred"].astype(str) == cells.obs["cell_type"])[held].mean()
    assert right == pytest.approx(score(result, "fine-tuned model", measure="accuracy"))


def test_heads_of_the_first_format_are_read(model_dir, cells, tmp_path):
    finetune(model_dir, cells, tmp_path / "out", config={"features": "embedding"})
    content = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert content == {"format_version": 1, "label": "cell_type", "classes": ["lower", "upper"], "pooling": "cls"}
    weights = load_file(tmp_path / "out" / "label_head.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == {"weight": (2, 16), "bias": (2,)}
    predict_labels(cells, tmp_path / "out")
    assert cells.obs["label_pred"].notna().all()


def test_other_panels_are_read_as_far_as_they_go(model_dir, cells, tmp_path):
    finetune(model_dir, cells, tmp_path / "out", config={"features": "counts"})
    predict_labels(cells, tmp_path / "out")
    fewer = cells[:, 4:].copy()
    predict_labels(fewer, tmp_path / "out")
    assert (fewer.obs["label_pred"].astype(str) == cells.obs["label_pred"].astype(str)).mean() > 0.9
    with pytest.raises(InputError, match="measures 8 of the 24 genes that the labels were learnt from"):
        predict_labels(cells[:, :8].copy(), tmp_path / "out")


@pytest.fixture
def tissue_dir(cells, tmp_path):
    model = TissueModel.fit(cells[cells.obs["split"] == "train"].copy(), "neighbours")
    model.save_pretrained(tmp_path / "tissue")
    return tmp_path / "tissue"


def test_a_model_of_another_family_is_probed_and_not_trained(tissue_dir, cells, tmp_path):
    result = finetune(tissue_dir, cells, tmp_path / "out", config={"features": "both"})
    assert score(result, "fine-tuned model") > 0.9
    assert LabelHead.load(tmp_path / "out").pooling == "fixed"
    predict_labels(cells, tmp_path / "out")
    held = (cells.obs["split"] == "validation").to_numpy()
    right = (cells.obs["label_pred"].astype(str) == cells.obs["cell_type"])[held].mean()
    assert right == pytest.approx(score(result, "fine-tuned model", measure="accuracy"))
    for method, what in (("full", "trained"), ("lora", "adapted")):
        with pytest.raises(InputError, match=f"family 'tissue' cannot be {what} by batches of labelled cells"):
            finetune(tissue_dir, cells, tmp_path / method, config={"method": method})
    with pytest.raises(InputError, match="pooling 'slide' gives each table axes of its own"):
        finetune(tissue_dir, cells, tmp_path / "slide", config={"pooling": "slide"})


@pytest.mark.parametrize("method", ["probe", "lora"])
def test_predictions_are_those_that_were_judged(model_dir, cells, tmp_path, always_kept, method):
    result = finetune(model_dir, cells, tmp_path / "out", config={**FAST, "method": method, "rank": 2})
    predict_labels(cells, tmp_path / "out")
    held = (cells.obs["split"] == "validation").to_numpy()
    right = (cells.obs["label_pred"].astype(str) == cells.obs["cell_type"])[held].mean()
    assert right == pytest.approx(score(result, "fine-tuned model", measure="accuracy"))
    probabilities = cells.obsm["label_pred_probabilities"]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(cells.obs["label_pred_probability"], probabilities.max(axis=1), rtol=1e-6)
    assert list(cells.uns["label_pred"]["classes"]) == ["lower", "upper"]
    assert "X" not in cells.obsm


def test_same_seed_same_weights(model_dir, cells, tmp_path):
    for name in ("a", "b"):
        finetune(model_dir, cells, tmp_path / name, config={**FAST, "method": "lora", "rank": 2})
    for file in ("model.safetensors", "label_head.safetensors"):
        first, second = (load_file(tmp_path / name / file) for name in ("a", "b"))
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_nothing_is_fitted_on_the_cells_that_are_judged(model_dir, cells, tmp_path):
    changed = cells.copy()
    held = np.flatnonzero(changed.obs["split"] == "validation")
    dense = changed.X.toarray()
    dense[held] = np.random.default_rng(0).poisson(6, (held.size, dense.shape[1])) + 1
    changed.X = dense.astype(np.float32)
    for name, table in (("a", cells), ("b", changed)):
        finetune(model_dir, table, tmp_path / name)
    first, second = (load_file(tmp_path / name / "label_head.safetensors") for name in ("a", "b"))
    assert torch.equal(first["weight"], second["weight"])
    assert torch.equal(first["bias"], second["bias"])


def test_labels_of_judged_cells_change_no_prediction(model_dir, cells, tmp_path):
    shuffled = cells.copy()
    held = np.flatnonzero(shuffled.obs["split"] == "validation")
    types = shuffled.obs["cell_type"].to_numpy().copy()
    flipped = np.where(types[held] == "upper", "lower", "upper")
    types[held] = flipped
    shuffled.obs["cell_type"] = types
    one, other = (finetune(model_dir, table, tmp_path / name) for name, table in (("a", cells), ("b", shuffled)))
    for name in one.scores["score"]:
        # With two classes, the accuracy on flipped labels is what the accuracy on the true ones lacks.
        assert score(one, name, measure="accuracy") + score(other, name, measure="accuracy") == pytest.approx(1.0)


def test_a_test_part_is_judged_too(model_dir, cells, tmp_path):
    cells.obs["half"] = np.where(
        cells.obs["split"] == "validation",
        np.where(np.arange(cells.n_obs) % 2, "test", "validation"),
        cells.obs["split"],
    )
    result = finetune(model_dir, cells, tmp_path / "out", split="half")
    assert set(result.scores["part"]) == {"validation", "test"}
    assert result.record["n_cells"]["test"] == (cells.obs["half"] == "test").sum()


def test_cells_without_place_or_label(model_dir, cells, tmp_path):
    del cells.obsm["spatial"]
    cells.obs["cell_type"] = cells.obs["cell_type"].mask(np.arange(cells.n_obs) % 5 == 0)
    result = finetune(model_dir, cells, tmp_path / "out")
    labelled = cells.obs["cell_type"].notna() & (cells.obs["split"] == "train")
    assert result.record["n_cells"]["train"] == labelled.sum()
    assert np.isfinite(result.scores["macro_f1_low"]).all()


def test_slides_can_be_held_out_and_regions_are_the_default(cells):
    cells.obs["donor"] = np.where(np.arange(cells.n_obs) % 4, "d1", "d2")
    by_donor = labelled_cells(cells, "cell_type", hold_out=("donor", ["d2"]))
    np.testing.assert_array_equal(by_donor.part == "validation", cells.obs["donor"] == "d2")
    del cells.obs["split"]
    by_region = labelled_cells(cells, "cell_type")
    train, held = (cells.obsm["spatial"][by_region.part == part] for part in ("train", "validation"))
    assert np.linalg.norm(train[:, None] - held[None], axis=2).min() > 60.0
    assert len(train) > len(held) > 40


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (None, {"label": "niche"}, "obs has no column 'niche' .* it has: split, slide, tissue"),
        (None, {"split": "fold"}, "obs has no column 'fold'"),
        (None, {"hold_out": ("slide", ["third"])}, "no value 'third'; it has: first"),
        (lambda obs: obs.assign(cell_type="only"), {}, "at least two classes to tell apart; there is only 'only'"),
        (lambda obs: obs.assign(split="train"), {"split": "split"}, "No cell with a label is in the part 'validation'"),
        (
            lambda obs: obs.assign(cell_type=obs["cell_type"].mask(obs["split"] == "validation", "new")),
            {},
            "has no cell of 'new', which the cells to judge on have",
        ),
        (lambda obs: obs.assign(cell_type=np.nan), {}, "has no value for any cell"),
    ],
)
def test_what_cannot_be_learnt_is_said(model_dir, cells, tmp_path, change, options, sentence):
    if change is not None:
        cells.obs = change(cells.obs)
    with pytest.raises(InputError, match=sentence):
        finetune(model_dir, cells, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def dark(cells):
    """The cells with a third class, whose training cells have no gene; returns how many those are."""

    def make(parts):
        chosen = np.flatnonzero(cells.obs["split"].isin(["train", "validation"]))[::9]
        types = cells.obs["cell_type"].to_numpy().copy()
        types[chosen] = "dark"
        cells.obs["cell_type"] = types
        dense = cells.X.toarray()
        dense[chosen[cells.obs["split"].iloc[chosen].isin(parts)]] = 0
        cells.X = dense
        return int((cells.obs["split"].iloc[chosen] == "train").sum())

    return make


@pytest.mark.parametrize("parts", [["train"], ["train", "validation"]])
@pytest.mark.parametrize("method", ["probe", "lora", "full"])
def test_a_class_that_the_model_cannot_read_is_refused_before_the_work(
    model_dir, cells, dark, tmp_path, method, parts, monkeypatch
):
    n = dark(parts)
    monkeypatch.setattr(label_module, "_baselines", lambda *_: pytest.fail("the work has begun"))
    with pytest.raises(InputError, match=rf"No training cell of 'dark' \({n} cells\) has a gene of the model"):
        finetune(model_dir, cells, tmp_path / "out", config={**FAST, "method": method, "rank": 2})
    assert not (tmp_path / "out").exists()


def test_a_class_that_the_model_cannot_read_can_be_left_out(model_dir, cells, dark, tmp_path, caplog):
    dark(["train"])
    result = finetune(model_dir, cells, tmp_path / "out", min_cells=1)
    assert result.record["classes"] == ["lower", "upper"]
    assert list(result.record["left_out"]) == ["dark"]
    assert caplog.text.count("left out: dark") == 1
    predict_labels(cells, tmp_path / "out")


def test_a_part_that_the_model_cannot_read_is_named(model_dir, cells, tmp_path):
    dense = cells.X.toarray()
    dense[(cells.obs["split"] == "validation").to_numpy()] = 0
    cells.X = dense
    with pytest.raises(InputError, match="No cell with a label and a gene of the model is in the part 'validation'"):
        finetune(model_dir, cells, tmp_path / "out")


def test_rare_classes_are_left_out_when_asked(cells):
    types = cells.obs["cell_type"].to_numpy().copy()
    types[np.flatnonzero(cells.obs["split"] == "train")[:2]] = "rare"
    types[np.flatnonzero(cells.obs["split"] == "validation")[:3]] = "rare"
    cells.obs["cell_type"] = types
    assert labelled_cells(cells, "cell_type").classes == ("lower", "rare", "upper")
    without = labelled_cells(cells, "cell_type", min_cells=5)
    assert without.classes == ("lower", "upper")
    assert without.left_out == {"rare": 5}
    assert (without.codes[types == "rare"] == -1).all()


def test_words_for_no_value_are_no_class(cells):
    types = cells.obs["cell_type"].astype(str).to_numpy().astype(object)
    types[::7], types[1::7] = "nan", " "
    cells.obs["cell_type"] = types
    found = labelled_cells(cells, "cell_type")
    assert found.classes == ("lower", "upper")
    assert (found.codes[::7] == -1).all()
    assert (found.codes[1::7] == -1).all()


def test_a_folder_that_holds_something_is_left_alone(model_dir, cells, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="already holds something"):
        finetune(model_dir, cells, tmp_path)


def test_a_failure_while_writing_leaves_nothing(model_dir, cells, tmp_path, monkeypatch):
    def full_disk(self, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LabelHead, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        finetune(model_dir, cells, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n_classes", [2, 4])
def test_head_is_the_probe_in_one_map(tmp_path, n_classes):
    rng = np.random.default_rng(0)
    embedding = rng.normal(3.0, [1.0, 5.0, 0.1], (200, 3)).astype(np.float32)
    codes = rng.integers(0, n_classes, 200)
    rows, blocks = np.arange(200), [Block(embedding)]
    probe = fit_probe(blocks, codes, rows, n_classes, penalty=1e-2, balanced=False)
    names = tuple(f"c{code}" for code in range(n_classes))
    head = LabelHead.from_probe(probe, label="type", classes=names, pooling="cls", counts=None)
    logits = probe.logits(blocks, rows)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(head.probabilities(embedding), expected, atol=1e-4)
    head.save(tmp_path)
    again = LabelHead.load(tmp_path)
    np.testing.assert_array_equal(again.probabilities(embedding), head.probabilities(embedding))
    assert (again.label, again.classes, again.pooling) == ("type", names, "cls")


def test_heads_that_are_missing_or_damaged(model_dir, cells, tmp_path):
    with pytest.raises(InputError, match="predicts no labels: it has no labels.json"):
        predict_labels(cells, model_dir)
    finetune(model_dir, cells, tmp_path / "out", config={"features": "both"})
    weights = tmp_path / "out" / "label_head.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(InputError, match="label_head.safetensors is damaged or truncated"):
        predict_labels(cells, tmp_path / "out")
    weights.write_bytes(content)
    head = LabelHead.load(tmp_path / "out")
    broken = dataclasses.replace(head, weight=head.weight * np.float32("nan"))
    with pytest.raises(InputError, match="'cell_type' has weights that are NaN or infinite"):
        broken.save(tmp_path / "out")
    tensors = {"counts_share": head.counts.share, "counts_mean": head.counts.mean}
    save_file({"weight": broken.weight, "bias": broken.bias, **tensors}, weights)
    with pytest.raises(InputError, match="label_head.safetensors cannot be used: it holds weights that are NaN"):
        predict_labels(cells, tmp_path / "out")
    weights.write_bytes(content)
    labels = tmp_path / "out" / "labels.json"
    text = labels.read_text()
    for old, new, sentence in (
        ('"lower",', "", "does not fit the 1 classes"),
        ('"cls"', '"mean"', "labels.json is damaged: pooling 'mean' is none of cls, gene"),
        ('"cls"', "3", "labels.json is damaged"),
        ('"format_version": 2', '"format_version": 9', "format version 9"),
    ):
        labels.write_text(text.replace(old, new))
        with pytest.raises(InputError, match=sentence):
            predict_labels(cells, tmp_path / "out")


def test_cells_without_a_gene_of_the_model_have_no_label(model_dir, cells, tmp_path):
    finetune(model_dir, cells, tmp_path / "out")
    dense = cells.X.toarray()
    dense[3] = 0
    cells.X = dense
    cells.layers["raw"] = dense
    predict_labels(cells, tmp_path / "out", layer="raw", key_added="type")
    assert cells.obs["type"].isna().to_numpy().nonzero()[0].tolist() == [3]
    assert np.isnan(cells.obs["type_probability"].iloc[3])
    with pytest.raises(InputError, match="no layer 'counts'; the layers are: raw"):
        predict_labels(cells, tmp_path / "out", layer="counts")


def nearest(cells, one, other):
    xy = cells.obsm["spatial"]
    return np.linalg.norm(xy[one][:, None] - xy[other][None], axis=2).min()


def test_a_gap_is_kept_around_cells_that_are_held_out_by_a_column(model_dir, cells, tmp_path):
    cells.obs["half"] = np.where(cells.obsm["spatial"][:, 0] < 300.0, "left", "right")
    found = labelled_cells(cells, "cell_type", hold_out=("half", ["right"]))
    left, right = cells.obs["half"] == "left", cells.obs["half"] == "right"
    assert nearest(cells, left.to_numpy(), right.to_numpy()) < 20.0
    assert nearest(cells, found.part == "train", found.part == "validation") > 60.0
    assert found.n_gap == left.sum() - (found.part == "train").sum() > 0
    assert (found.part == "validation").sum() == right.sum()
    assert found.divided_by == f"half right held out, {found.n_gap} training cells within 60 um of them left out"
    everything = labelled_cells(cells, "cell_type", hold_out=("half", ["right"]), gap=0.0)
    assert everything.n_gap == 0
    assert (everything.part == "train").sum() == left.sum()
    record = finetune(model_dir, cells, tmp_path / "out", hold_out=("half", ["right"]), gap=30.0).record
    assert 0 < record["n_gap"] < found.n_gap
    assert record["parameters"]["gap"] == 30.0
    with pytest.raises(InputError, match="gap must be at least 0 um, not -1"):
        labelled_cells(cells, "cell_type", hold_out=("half", ["right"]), gap=-1.0)


def test_other_slides_need_no_gap(cells):
    both = anndata.concat([cells, cells], index_unique="-")
    both.obs["slide"] = np.repeat(["one", "two"], cells.n_obs)
    found = labelled_cells(both, "cell_type", hold_out=("slide", ["two"]))
    assert found.n_gap == 0
    assert (found.part == "train").sum() == cells.n_obs


def test_training_cells_beside_those_of_a_given_split_are_said(cells, caplog):
    cells.obs["half"] = np.where(cells.obsm["spatial"][:, 0] < 300.0, "train", "validation")
    found = labelled_cells(cells, "cell_type", split="half")
    assert found.n_near > 0
    assert found.n_gap == 0
    assert f"{found.n_near} training cells lie within 60 um of cells to be judged on (obs['half'])" in caplog.text
    assert f"{found.n_near} training cells within 60 um of cells to be judged on" in found.divided_by
