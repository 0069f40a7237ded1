"""Contrast of neighbours and distillation, by the one trainer."""

import contextlib
import csv
import dataclasses
import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from spaf_data import InputError as DataError
from spaf_data import write_corpus
from spaf_model import InputError, SpatialFormer
from spaf_train import TrainingModule, cli, presets, pretrain, read_config, vocabulary_from_corpus
from spaf_train.objectives import contrast, towers
from spaf_train.pretraining import run
from spaf_train.stream.loader import BatchStream
from spaf_train.trainer.distributed import Ranks
from spaf_train.trainer.divergence import TrainingDivergedError
from spaf_train.trainer.signals import StopRequest
from spaf_train.trainer.validation import look

TINY = """
seed = 1
[model]
width = 16
n_layers = 1
n_heads = 2
conv_kernel = 3
pair_input = "separate"
pair_rank = 8
colocalization_rank = 4
[sampling]
input = "patches"
thinning = 0.3
token_budget = 700
[sampling.patches]
sites = 12
cells = 6
draws = 20
[objectives.contrast]
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
log_every = 5
validate_every = 10
validation_inputs = 500
best_metric = "last"
threads = 1
device = "cpu"
"""
TOWERS = "[objectives.distillation]\nenabled = true\ntowers = 2\nsteps = 30\nhidden = 16\nrank = 6\n"
ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def tiny(tmp_path):
    def write(steps, more="", **options):
        path = tmp_path / "tiny.toml"
        path.write_text(TINY.format(steps=steps) + more)
        return read_config(path, overrides=[f"{name.replace('__', '.')}={value}" for name, value in options.items()])

    return write


def weights(out):
    return SpatialFormer.from_pretrained(out / "model").network.state_dict()


def assert_equal_weights(one, other):
    ours, theirs = weights(one), weights(other)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def rows_of(out, split=None):
    """The log without the columns that tell the time."""
    with (out / "metrics.csv").open(newline="") as file:
        timed = ("tokens_per_second", "seconds")
        rows = [{name: value for name, value in row.items() if name not in timed} for row in csv.DictReader(file)]
    return [row for row in rows if split in (None, row["split"])]


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["spaf-train", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_it_learns_which_cells_are_neighbours(corpus, tiny, tmp_path):
    result = pretrain(tiny(60), corpus.path, tmp_path / "run")
    first, *_, last = rows_of(tmp_path / "run", "train")
    assert float(last["contrast_easy"]) < float(first["contrast_easy"])
    assert float(last["loss_masked_genes"]) < float(first["loss_masked_genes"])
    terms = [float(first[f"contrast_{name}"]) for name in ("easy", "hard", "probability")]
    assert float(first["loss_contrast"]) == pytest.approx(terms[0] + terms[1] + 0.5 * terms[2], rel=1e-6)
    # The two stripes of the slides hold two cell types.
    assert float(rows_of(tmp_path / "run", "validation")[-1]["auroc_easy"]) > 0.6
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["steps"], record["best_step"]) == (60, 60)
    assert "easy negatives" not in result.not_learnt.get("contrast", "")
    model = SpatialFormer.from_pretrained(tmp_path / "run" / "model")
    assert model.config.pair_input == "separate"
    assert "weights of step 60, the last" in model.card
    assert "Nothing was chosen on this split." in model.card
    assert "- Neighbours within 30 um, told from all cells of a batch at 80 to 150 um and beyond 150 um" in model.card


def test_a_corpus_without_neighbours_is_said_before_the_work(corpus, tiny, tmp_path):
    with pytest.raises(InputError, match=r"No two training cells of .* lie within 0.001 um \(sampling.radius\)"):
        pretrain(tiny(3, sampling__radius=0.001), corpus.path, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_run_that_saw_no_neighbours_says_so(corpus, tiny, tmp_path, monkeypatch, capsys):
    tiny(3)
    monkeypatch.setattr(BatchStream, "has_neighbours", lambda self, radius: True)
    words = ["pretrain", tmp_path / "tiny.toml", "--data", corpus.path, "--out", tmp_path / "none"]
    assert not command(monkeypatch, *words, "--set", "sampling.radius=0.001")
    sentence = "Nothing was learnt of neighbours: no two cells of a step were neighbours"
    assert sentence in capsys.readouterr().err
    assert sentence in json.loads((tmp_path / "none" / "run.json").read_text())["not_learnt"]["contrast"]
    assert sentence in SpatialFormer.from_pretrained(tmp_path / "none" / "model").card
    with (tmp_path / "none" / "metrics.csv").open() as file:
        assert "nan" not in file.read()


def test_what_was_learnt_of_neighbours_is_judged_by_ranks(corpus, tiny):
    config = tiny(2)
    vocabulary = vocabulary_from_corpus(corpus)
    model = SpatialFormer(config.model, vocabulary, seed=0)
    network = model.network
    with torch.no_grad():
        network.pair_head.weight.zero_()
    stream = BatchStream(corpus, model, config.sampling, config.objectives, split="validation", seed=0)
    found = look(network, stream.one_epoch(max_inputs=400), config.objectives, ALONE)
    sentence = found.not_learnt()["contrast"]
    for kind in ("easy", "hard"):
        assert f"against {kind} negatives: their AUROC on the validation split is 0.500" in sentence
        assert found.metrics[f"auroc_{kind}"] == 0.5


def test_a_model_becomes_like_its_towers(corpus, tiny, tmp_path):
    pretrain(tiny(100, TOWERS), corpus.path, tmp_path / "run")
    rows = rows_of(tmp_path / "run", "train")
    assert float(rows[-1]["loss_distillation"]) < 0.8 * float(rows[0]["loss_distillation"])
    assert float(rows[-1]["loss_distillation"]) < 0.8
    # Cells that no tower has seen have states too.
    assert float(rows_of(tmp_path / "run", "validation")[-1]["loss_distillation"]) < 0.9


def test_equal_seeds_give_equal_models(corpus, tiny, tmp_path):
    for name in ("one", "same"):
        pretrain(tiny(4, TOWERS), corpus.path, tmp_path / name)
    assert_equal_weights(tmp_path / "one", tmp_path / "same")


def test_a_step_does_not_depend_on_how_its_cells_are_batched(corpus, tiny):
    config = tiny(1, objectives__masked_genes__enabled="false", objectives__colocalization__enabled="false")
    vocabulary = vocabulary_from_corpus(corpus)
    model = SpatialFormer(config.model, vocabulary, seed=0)
    network = model.network
    network.eval()
    sums = []
    for budget in (100, 10_000):
        sampling = dataclasses.replace(config.sampling, token_budget=budget)
        stream = BatchStream(corpus, model, sampling, config.objectives, split="train", seed=0)
        (batch,) = stream.next_step()
        assert (len(batch.parts) > 1) == (budget == 100)
        sums.append(TrainingModule(network, config.objectives)(batch, batch.weights(), {"contrast": 1.0}, 1.0)[1])
    torch.testing.assert_close(*sums, rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(corpus, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(contrast, "probability_loss", lambda logits, kinds: logits.sum() * float("nan"))
    with pytest.raises(TrainingDivergedError, match="Step 1: the loss of contrast in batch 0"):
        pretrain(tiny(2), corpus.path, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def test_a_tower_whose_gradient_is_not_finite_is_named(corpus, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(contrast, "probability_loss", lambda logits, kinds: (logits.sum() * 0.0).sqrt())
    with pytest.raises(TrainingDivergedError, match="Step 1 of a tower: the loss or its gradient is not finite"):
        pretrain(tiny(2, TOWERS), corpus.path, tmp_path / "run")


def test_a_killed_run_continues_to_the_same_bits(corpus, tiny, tmp_path):
    config = tiny(40, f"checkpoint_every = 7\n{TOWERS}")
    words = ["pretrain", tmp_path / "tiny.toml", "--data", corpus.path, "--out", tmp_path / "killed"]
    process = subprocess.Popen([sys.executable, "-m", "spaf_train", *map(str, words), "--set", "run.workers=1"])
    try:
        deadline = time.monotonic() + 300
        while not list((tmp_path / "killed" / "checkpoints").glob("step-*.pt")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "killed" / "run.json").exists()
    with pytest.raises(InputError, match="--resume"):
        pretrain(config, corpus.path, tmp_path / "killed")
    assert pretrain(config, corpus.path, tmp_path / "killed", resume=True).finished
    pretrain(config, corpus.path, tmp_path / "whole")
    assert_equal_weights(tmp_path / "killed", tmp_path / "whole")
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")


def test_a_run_that_is_asked_to_stop_saves_its_step(corpus, tiny, tmp_path, monkeypatch):
    config = tiny(12, TOWERS)
    pretrain(config, corpus.path, tmp_path / "whole")
    request, forward = StopRequest(), TrainingModule.forward
    taken = []

    def spy(self, *arguments):
        taken.append(1)
        request.received = len(taken) == 3  # read before the next step
        return forward(self, *arguments)

    monkeypatch.setattr(TrainingModule, "forward", spy)
    monkeypatch.setattr(run, "stop_request", lambda: contextlib.nullcontext(request))
    result = pretrain(config, corpus.path, tmp_path / "run")
    assert (result.finished, result.step) == (False, 4)
    assert not (tmp_path / "run" / "model").exists()
    monkeypatch.undo()
    assert pretrain(config, corpus.path, tmp_path / "run", resume=True).finished
    assert_equal_weights(tmp_path / "run", tmp_path / "whole")


def test_a_run_that_is_asked_to_stop_while_it_trains_towers_begins_anew(corpus, tiny, tmp_path, monkeypatch, capsys):
    tiny(12, TOWERS)
    request, kinds = StopRequest(), towers.pair_kinds
    drawn = []

    def spy(*arguments):
        drawn.append(1)
        request.received = len(drawn) >= 10
        return kinds(*arguments)

    monkeypatch.setattr(towers, "pair_kinds", spy)
    monkeypatch.setattr(run, "stop_request", lambda: contextlib.nullcontext(request))
    words = ["pretrain", tmp_path / "tiny.toml", "--data", corpus.path, "--out", tmp_path / "run"]
    assert not command(monkeypatch, *words)
    assert "Stopped before the first step; to continue: spaf-train pretrain" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("checkpoints/*"))
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_corpus_without_a_validation_split_is_enough(slides, tiny, tmp_path):
    slide = slides[0].copy()
    slide.obs["split"] = "train"
    alone = write_corpus([slide], tmp_path / "corpus", block_cells=40)
    result = pretrain(tiny(4, TOWERS), alone.path, tmp_path / "run")
    assert (result.finished, result.best, result.not_learnt) == (True, {"step": 4.0}, {})
    assert not rows_of(tmp_path / "run", "validation")
    card = SpatialFormer.from_pretrained(tmp_path / "run" / "model").card
    assert "validated on nothing: the corpus has no such split." in card
    with pytest.raises(DataError, match="no split 'validation'"):
        pretrain(tiny(4, run__best_metric="loss"), alone.path, tmp_path / "other")


def test_it_computes_in_bf16_and_recomputes_layers(corpus, tiny, tmp_path):
    plain = tiny(3, TOWERS, run__log_every=1)
    pretrain(plain, corpus.path, tmp_path / "plain")
    told = dataclasses.replace(plain.run, precision="bf16", activation_checkpointing=True)
    pretrain(dataclasses.replace(plain, run=told), corpus.path, tmp_path / "bf16")
    for ours, theirs in zip(*(rows_of(tmp_path / name, "train") for name in ("plain", "bf16")), strict=True):
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=0.1)


def test_the_shipped_preset_is_a_configuration():
    assert presets() == ["scgpt_spatial", "small", "starter"]
    config = read_config("starter")
    assert config.model.pair_input == "separate"
    assert config.objectives.enabled == ["masked_genes", "colocalization", "contrast", "distillation"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model__pair_input": "joint"}, r"objectives\.contrast needs model\.pair_input = separate"),
        (
            {"sampling__input": "pairs"},
            r"objectives\.contrast needs inputs of single cells, such as sampling\.input",
        ),
        (
            {"sampling__input": "cells", "objectives__distillation__enabled": "true"},
            r"objectives\.distillation needs a sampler that holds the whole split, such as sampling\.input = patches",
        ),
        ({"objectives__contrast__easi_weight": 1}, "did you mean easy_weight"),
        ({"objectives__distillation__towers": 0}, r"objectives\.distillation: towers must be at least 1"),
    ],
)
def test_a_wrong_configuration_is_explained(tiny, options, message):
    with pytest.raises(InputError, match=message):
        tiny(1, **options)
