import contextlib
import csv
import dataclasses
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from spaf_model import InputError, SpatialFormer
from spaf_train import cli, vocabulary_from_corpus
from spaf_train.recipes import contrast, contrast_presets, neighbours, read_contrast_config, train_contrast
from spaf_train.recipes.losses import ContrastLosses
from spaf_train.recipes.patches import Patches
from spaf_train.trainer.loop import TrainingDivergedError
from spaf_train.trainer.signals import StopRequest

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
[patches]
sites = 12
cells = 6
token_budget = 700
[optimizer]
learning_rate = 1e-2
warmup_steps = 2
[run]
steps = {steps}
log_every = 5
validate_every = 10
validation_steps = 5
"""


@pytest.fixture
def tiny(tmp_path):
    def write(steps, more=""):
        path = tmp_path / "tiny.toml"
        path.write_text(TINY.format(steps=steps) + more)
        return read_contrast_config(path)

    return write


def assert_equal_weights(one, other):
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, other.network.state_dict()[name]), name


def rows_of(out):
    """The log without the columns that tell the time."""
    with (out / "metrics.csv").open(newline="") as file:
        timed = ("tokens_per_second", "seconds")
        return [{name: value for name, value in row.items() if name not in timed} for row in csv.DictReader(file)]


def test_it_learns_which_cells_are_neighbours(corpus, tiny, tmp_path):
    train_contrast(tiny(60), corpus.path, tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["easy"]) < float(rows[0]["easy"])
    assert float(rows[-1]["masked_genes"]) < float(rows[0]["masked_genes"])
    # The two stripes of the slides hold two cell types.
    assert float(rows[-1]["auroc_easy"]) > 0.6
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["last"]["step"] == 60
    assert record["n_cells"] > 0
    model = SpatialFormer.from_pretrained(tmp_path / "run" / "model")
    assert model.config.pair_input == "separate"


def test_a_run_that_learnt_nothing_of_neighbours_says_so(corpus, tiny, tmp_path, monkeypatch, capsys):
    tiny(3, "[neighbours]\nradius = 0.001\n")
    words = ["contrast", tmp_path / "tiny.toml", "--data", corpus.path, "--out", tmp_path / "none"]
    monkeypatch.setattr(sys, "argv", ["spaf-train", *map(str, words)])
    with pytest.raises(SystemExit):
        cli.main()
    sentence = "Nothing was learnt of neighbours: no two cells of a step lie within 0.001 um of each other"
    assert sentence in capsys.readouterr().err
    assert sentence in json.loads((tmp_path / "none" / "run.json").read_text())["not_learnt"]["neighbours"]
    assert sentence in SpatialFormer.from_pretrained(tmp_path / "none" / "model").card
    with (tmp_path / "none" / "metrics.csv").open() as file:
        assert "nan" not in file.read()


def test_what_was_learnt_of_neighbours_is_judged_by_ranks(corpus, tiny, tmp_path):
    assert not train_contrast(tiny(60), corpus.path, tmp_path / "run").not_learnt.get("easy")
    config = tiny(2)
    model = SpatialFormer(config.model, vocabulary_from_corpus(corpus), seed=0)
    with torch.no_grad():
        model.network.pair_head.weight.zero_()
    held = Patches(corpus, model.vocabulary, split="validation", config=config.patches, max_genes=None)
    steps = [held.draw(np.random.default_rng(number)) for number in range(3)]
    sentences = ContrastLosses(model, config).not_learnt(steps)
    assert set(sentences) == {"easy", "hard"}
    assert "against easy negatives: their AUROC on the validation split is 0.500" in sentences["easy"]


TOWERS = "[towers]\ntowers = 2\nsteps = 30\nhidden = 16\nrank = 6\n"


def test_a_model_becomes_like_its_towers(corpus, tiny, tmp_path):
    train_contrast(tiny(100, TOWERS), corpus.path, tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["towers"]) < 0.8 * float(rows[0]["towers"])
    assert float(rows[-1]["towers"]) < 0.8


def test_equal_seeds_give_equal_models(corpus, tiny, tmp_path):
    one, same = (train_contrast(tiny(4, TOWERS), corpus.path, tmp_path / name).model for name in ("one", "same"))
    assert_equal_weights(one, same)


def test_a_step_does_not_depend_on_how_its_cells_are_batched(corpus, tiny):
    config = tiny(1, "[masked_genes]\nenabled = false\n[colocalization]\nenabled = false\n")
    model = SpatialFormer(config.model, vocabulary_from_corpus(corpus), seed=0)
    model.network.eval()
    losses = []
    for budget in (100, 10_000):
        patches = dataclasses.replace(config.patches, token_budget=budget)
        step = ContrastLosses(model, dataclasses.replace(config, patches=patches))
        drawn = Patches(corpus, model.vocabulary, split="train", config=patches, max_genes=None)
        cells = drawn.draw(np.random.default_rng(0))
        losses.append(step.losses(cells, torch.Generator().manual_seed(0)))
    for name, loss in losses[0].items():
        torch.testing.assert_close(loss, losses[1][name], rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(corpus, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "probability_loss", lambda logits, kinds: logits.sum() * float("nan"))
    with pytest.raises(TrainingDivergedError, match="Step 1: the loss probability"):
        train_contrast(tiny(2), corpus.path, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("step", [1, 3])
def test_an_infinite_gradient_stops_the_run_and_exports_nothing(corpus, tiny, tmp_path, monkeypatch, step):
    total = ContrastLosses.total

    def broken(self, losses, done):
        weight = self.network.masked_gene_head.bias[0]
        slope = (weight - weight.detach()).sqrt()  # 0, with a slope that is infinite
        return total(self, losses, done) + (slope if round(done * 3) == step - 1 else 0.0)

    monkeypatch.setattr(ContrastLosses, "total", broken)
    config = tiny(3, "checkpoint_every = 2\n")
    with pytest.raises(TrainingDivergedError, match=f"Step {step}: the gradient is not finite; .*checkpoint"):
        train_contrast(config, corpus.path, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "run.json").exists()
    monkeypatch.undo()
    assert train_contrast(config, corpus.path, tmp_path / "run", resume=True).finished


def test_a_tower_whose_gradient_is_not_finite_is_named(corpus, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "probability_loss", lambda logits, kinds: (logits.sum() * 0.0).sqrt())
    with pytest.raises(TrainingDivergedError, match="Step 1 of a tower: the loss or its gradient is not finite"):
        train_contrast(tiny(2, TOWERS), corpus.path, tmp_path / "run")


def test_a_folder_with_a_run_is_not_written_over(corpus, tiny, tmp_path):
    train_contrast(tiny(1), corpus.path, tmp_path / "run")
    with pytest.raises(InputError, match="already holds a run"):
        train_contrast(tiny(1), corpus.path, tmp_path / "run")


def test_a_killed_run_continues_to_the_same_bits(corpus, tiny, tmp_path):
    config = tiny(60, f"checkpoint_every = 7\n{TOWERS}")
    words = ["contrast", tmp_path / "tiny.toml", "--data", corpus.path, "--out", tmp_path / "killed"]
    process = subprocess.Popen([sys.executable, "-m", "spaf_train", *map(str, words)])
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
        train_contrast(config, corpus.path, tmp_path / "killed")
    continued = train_contrast(config, corpus.path, tmp_path / "killed", resume=True)
    whole = train_contrast(config, corpus.path, tmp_path / "whole")
    assert_equal_weights(continued.model, whole.model)
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["last"]["step"] == 60


@pytest.fixture
def stopped_after(monkeypatch):
    """Ask a run to stop, as a signal would, when it has drawn so many steps."""

    def arrange(n_draws):
        request = StopRequest()
        drawn = []
        choose = Patches.choose

        def spy(self, generator):
            drawn.append(1)
            request.received = len(drawn) >= n_draws
            return choose(self, generator)

        monkeypatch.setattr(Patches, "choose", spy)
        monkeypatch.setattr(contrast, "stop_request", lambda: contextlib.nullcontext(request))

    return arrange


def test_a_run_that_is_asked_to_stop_saves_its_step(corpus, tiny, tmp_path, stopped_after):
    config = tiny(12, TOWERS)
    whole = train_contrast(config, corpus.path, tmp_path / "whole")
    stopped_after(5 + 2 * 30 + 4)  # looks at validation, two towers, steps
    result = train_contrast(config, corpus.path, tmp_path / "run")
    assert (result.finished, result.step) == (False, 4)
    assert not (tmp_path / "run" / "model").exists()
    stopped_after(10**6)
    continued = train_contrast(config, corpus.path, tmp_path / "run", resume=True)
    assert continued.finished
    assert_equal_weights(continued.model, whole.model)


def test_a_run_that_is_asked_to_stop_while_it_trains_towers_begins_anew(
    corpus, tiny, tmp_path, stopped_after, monkeypatch, capsys
):
    tiny(12, TOWERS)
    stopped_after(5 + 10)
    words = ["contrast", tmp_path / "tiny.toml", "--data", corpus.path, "--out", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", ["spaf-train", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "before the first step; to continue: spaf-train contrast" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("checkpoints/*"))
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_continues_with_what_it_began_with(corpus, tiny, tmp_path):
    train_contrast(tiny(2), corpus.path, tmp_path / "run")
    with pytest.raises(InputError, match=r"run\.steps was 2 and is 3"):
        train_contrast(tiny(3), corpus.path, tmp_path / "run", resume=True)


def test_the_shipped_recipe_is_a_configuration():
    assert contrast_presets() == ["starter"]
    assert read_contrast_config("starter").model.pair_input == "separate"


@pytest.mark.parametrize(
    ("text", "message"),
    [("[patches]\ncels = 3", "did you mean cells"), ("[model]\npair_input = 'joint'", "separate"), ("[", "not a TOML")],
)
def test_a_wrong_configuration_is_explained(tmp_path, text, message):
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_contrast_config(tmp_path / "wrong.toml")
    with pytest.raises(InputError, match="starter"):
        read_contrast_config(tmp_path / "missing.toml")


def test_a_configuration_that_is_no_text_is_explained(tmp_path):
    (tmp_path / "wrong.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not a text file"):
        read_contrast_config(tmp_path / "wrong.toml")


def test_the_run_says_what_it_was_made_with(corpus, tiny, tmp_path):
    train_contrast(tiny(1), corpus.path, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["command"] == "spaf-train contrast"
    assert {"python", "spaf-train", "torch"} <= record["versions"].keys()
    assert record["parameters"]["config"]["model"]["pair_input"] == "separate"
    assert not list((tmp_path / "run").glob(".*"))


def test_the_command_leaves_a_model(corpus, tiny, tmp_path, monkeypatch, capsys):
    tiny(1)
    words = ["contrast", tmp_path / "tiny.toml", "--data", corpus.path, "--out", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", ["spaf-train", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert str(tmp_path / "run" / "model") in capsys.readouterr().out
    assert SpatialFormer.from_pretrained(tmp_path / "run" / "model").n_parameters > 0
