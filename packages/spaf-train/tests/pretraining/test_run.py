import csv
import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from spaf_model import InputError, SpatialFormer, load_model
from spaf_train import (
    BatchStream,
    Checkpoints,
    TrainingDivergedError,
    learning_rate,
    load_checkpoint,
    pretrain,
    read_config,
)
from spaf_train.trainer.module import TrainingModule
from spaf_train.trainer.progress import TrainingProgress


def metrics(out):
    """The log without the columns that tell the time."""
    with (out / "metrics.csv").open(newline="") as file:
        timed = ("tokens_per_second", "seconds")
        return [{name: value for name, value in row.items() if name not in timed} for row in csv.DictReader(file)]


def weights(out):
    return load_model(out / "model").network.state_dict()


def assert_same_run(first, second):
    assert metrics(first) == metrics(second)
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def finished(config, corpus, tmp_path):
    pretrain(config, corpus.path, tmp_path / "finished")
    return tmp_path / "finished"


def test_a_run_leaves_what_it_promises(finished, config, corpus):
    assert read_config(finished / "config.toml") == config
    record = json.loads((finished / "run.json").read_text())
    assert {"command", "versions", "parameters", "seconds", "peak_rss_mb", "steps", "best_step"} <= set(record)
    assert record["steps"] == 6
    assert record["best_step"] in (3, 6)
    assert record["peak_rss_mb"] > 50
    assert json.loads((finished / "environment.json").read_text())["threads"] == 1
    rows = metrics(finished)
    assert [row["step"] for row in rows if row["split"] == "validation"] == ["3", "6"]
    assert [row["step"] for row in rows if row["split"] == "train"] == list("123456")
    validation = [row for row in rows if row["split"] == "validation"]
    assert all(row[name] for row in validation for name in ("loss", "auroc_pairs", "auroc_colocalization"))
    for row in rows:
        parts = [float(row[name]) for name in ("loss_masked_genes", "loss_colocalization", "loss_pairs")]
        assert float(row["loss"]) == pytest.approx(sum(parts), rel=1e-6)
    rates = [float(row["learning_rate"]) for row in rows if row["split"] == "train"]
    expected = [learning_rate(step, config.run.steps, config.optimizer) for step in range(6)]
    assert rates == pytest.approx(expected, rel=1e-6)
    assert sorted(path.name for path in (finished / "checkpoints").glob("step-*")) == [
        "step-000004.pt",
        "step-000006.pt",
    ]
    model = SpatialFormer.from_pretrained(finished / "model")
    best = load_checkpoint(finished / "checkpoints" / f"best-{record['best_step']:06d}.pt")["network"]
    assert all(torch.equal(best[name], tensor) for name, tensor in model.network.state_dict().items())
    assert "first, second" in model.card
    assert f"{record['best']['auroc_pairs']:.4f}" in model.card


def test_losses_fall_below_those_of_random_weights(config_path, corpus, tmp_path):
    overrides = ["run.steps=60", "run.validate_every=60", "run.checkpoint_every=60", "run.validation_inputs=300"]
    overrides += ["optimizer.learning_rate=1e-2", "objectives.colocalization.ramp_down=false", "seed=4"]
    pretrain(read_config(config_path, overrides=overrides), corpus.path, tmp_path / "run")
    rows = metrics(tmp_path / "run")
    untrained, trained = rows[0], rows[-1]
    assert (untrained["step"], untrained["split"], trained["split"]) == ("1", "train", "validation")
    for name in ("loss_masked_genes", "loss_colocalization", "loss_pairs"):
        assert float(trained[name]) < 0.95 * float(untrained[name]), name


def test_two_runs_are_the_same_and_another_seed_is_not(finished, config, corpus, tmp_path):
    pretrain(config, corpus.path, tmp_path / "again")
    assert_same_run(finished, tmp_path / "again")
    pretrain(dataclasses.replace(config, seed=4), corpus.path, tmp_path / "other")
    assert metrics(finished) != metrics(tmp_path / "other")


def test_a_run_without_an_objective_has_no_columns_of_it(config_path, corpus, tmp_path):
    overrides = ["objectives.pairs.enabled=false", "sampling.input=cells", "objectives.weighting.method=fixed"]
    config = read_config(config_path, overrides=[*overrides, "run.precision=bf16"])
    pretrain(config, corpus.path, tmp_path / "run")
    rows = metrics(tmp_path / "run")
    assert not any(name.endswith("_pairs") for row in rows for name in row)
    assert all(row["loss_masked_genes"] and row["loss_colocalization"] for row in rows)


# What a run does whatever it trains.
both_families = pytest.mark.parametrize("config_path", ["spatialformer", "scgpt_spatial"], indirect=True)

COMMAND = [sys.executable, "-m", "spaf_train", "pretrain"]


def start(config_path, corpus, out, *options):
    arguments = [str(config_path), "--data", str(corpus.path), "--out", str(out), *options]
    return subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True)


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


@both_families
def test_killed_and_resumed_is_bit_for_bit_the_uninterrupted_run(config_path, corpus, tmp_path):
    config_path.write_text(config_path.read_text().replace("steps = 6", "steps = 24"))
    # With and without a worker the batches are the same ones.
    process = start(config_path, corpus, tmp_path / "killed", "--set", "run.workers=1")
    try:
        # Killed somewhere behind a checkpoint that it then repeats steps from.
        wait_for((tmp_path / "killed" / "checkpoints" / "step-000004.pt").exists, process)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    assert not (tmp_path / "killed" / "run.json").exists()
    config = read_config(config_path)
    pretrain(config, corpus.path, tmp_path / "killed", resume=True)
    pretrain(config, corpus.path, tmp_path / "whole")
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_sweeps_what_killed_ones_left(config, corpus, tmp_path, monkeypatch, resume):
    out = tmp_path / "run"
    if resume:
        save = torch.save

        def killed(state, file):
            if state.get("step") == 4:
                raise KeyboardInterrupt
            save(state, file)

        monkeypatch.setattr(torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, corpus.path, out)
        monkeypatch.undo()
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    left = [out / "checkpoints" / ".step-000003.pt.abc", out / "checkpoints" / ".best-000003.pt.def"]
    for path in left:
        path.write_bytes(b"half a checkpoint")
    (out / ".model.xyz.partial" / "new").mkdir(parents=True)
    if resume:  # a refused run touches nothing
        with pytest.raises(InputError, match="already holds a run"):
            pretrain(config, corpus.path, out)
        assert all(path.exists() for path in left)
    assert pretrain(config, corpus.path, out, resume=resume).finished
    assert not [path.name for path in (*out.iterdir(), *(out / "checkpoints").iterdir()) if path.name.startswith(".")]


def test_sigterm_saves_exits_with_zero_and_says_how_to_go_on(config_path, corpus, tmp_path):
    config_path.write_text(config_path.read_text().replace("steps = 6", "steps = 5000"))
    process = start(config_path, corpus, tmp_path / "run", "--set", "run.checkpoint_every=5000")
    try:
        wait_for(lambda: (tmp_path / "run" / "metrics.csv").exists(), process)
        wait_for(lambda: len(metrics(tmp_path / "run")) > 2, process)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "--resume" in errors
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*.pt")
    step = int(checkpoint.stem.removeprefix("step-"))
    assert f"after step {step}," in errors
    last = [row for row in metrics(tmp_path / "run") if row["split"] == "train"][-1]
    assert last["step"] == str(step)


@pytest.mark.parametrize("at", [3, 6])
def test_a_request_to_stop_is_heeded_within_a_validation(config, corpus, tmp_path, finished, monkeypatch, at):
    """Between two of its batches; the run that goes on looks first at what was not looked at."""
    seen, shown = [], []
    monkeypatch.setattr(TrainingProgress, "update", lambda self, step, status: shown.append((step, status)))
    one_epoch = BatchStream.one_epoch

    def interrupted(self, *arguments, **options):
        seen.append([])
        for batch in one_epoch(self, *arguments, **options):
            seen[-1].append(batch.name)
            if len(seen) == at // 3 and len(seen[-1]) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(BatchStream, "one_epoch", interrupted)
        result = pretrain(config, corpus.path, tmp_path / "run")
    assert (result.finished, result.step) == (False, at)
    assert len(seen[-1]) == 2
    assert (at, "validation, batch 1") in shown
    assert [row["split"] for row in metrics(tmp_path / "run")].count("validation") == at // 3 - 1
    assert pretrain(config, corpus.path, tmp_path / "run", resume=True).finished
    assert_same_run(tmp_path / "run", finished)


def test_resume_without_a_checkpoint_begins(config, corpus, tmp_path, finished):
    pretrain(config, corpus.path, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", finished)


def test_a_finished_run_resumes_to_itself(finished, config, corpus):
    before = metrics(finished)
    result = pretrain(config, corpus.path, finished, resume=True)
    assert (result.finished, result.step) == (True, 6)
    assert metrics(finished) == before


def test_runs_are_not_mixed_up(finished, config, corpus, tmp_path):
    with pytest.raises(InputError, match="already holds a run"):
        pretrain(config, corpus.path, finished)
    other = dataclasses.replace(config, seed=9, run=dataclasses.replace(config.run, steps=7))
    with pytest.raises(InputError, match=r"run\.steps was 6 and is 7, seed was 3 and is 9"):
        pretrain(other, corpus.path, finished, resume=True)


def test_resuming_on_another_corpus_is_refused(finished, config, other_corpus):
    with pytest.raises(InputError, match="another corpus"):
        pretrain(config, other_corpus.path, finished, resume=True)


@both_families
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(config, corpus, tmp_path, monkeypatch):
    forward = TrainingModule.forward
    calls = 0

    def broken(self, *arguments):
        nonlocal calls
        calls += 1
        total, sums = forward(self, *arguments)
        if calls == 2 * 4 + 2:  # two batches a step: the second of step 5
            sums = sums.clone()
            sums[1] = float("nan")
        return total, sums

    monkeypatch.setattr(TrainingModule, "forward", broken)
    with pytest.raises(
        TrainingDivergedError, match=r"Step 5: the loss of (colocalization|masked_values) in batch \d+ of epoch"
    ) as caught:
        pretrain(config, corpus.path, tmp_path / "run")
    assert "step-000004.pt" in str(caught.value)
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "step-000004.pt")["step"] == 4
    assert not (tmp_path / "run" / "model").exists()


@both_families
def test_an_infinite_gradient_of_a_finite_loss_stops_and_names_the_batch(config, corpus, tmp_path, monkeypatch):
    forward = TrainingModule.forward
    names = []

    def broken(self, batch, *arguments):
        names.append(batch.name)
        total, sums = forward(self, batch, *arguments)
        if len(names) > 2 * 4 + 1 and batch.name == names[2 * 4 + 1]:  # two batches a step: the second of step 5
            weight = next(parameter for parameter in self.network.parameters()).flatten()[0]
            total = total + (weight - weight.detach()).sqrt()  # 0, with a slope that is infinite
        return total, sums

    monkeypatch.setattr(TrainingModule, "forward", broken)
    with pytest.raises(TrainingDivergedError) as caught:
        pretrain(config, corpus.path, tmp_path / "run")
    assert str(caught.value).startswith(f"Step 5: the gradient of {names[2 * 4 + 1]} is not finite; the last good")
    assert names[8] != names[9]
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "step-000004.pt")["step"] == 4
    assert not (tmp_path / "run" / "checkpoints" / "step-000005.pt").exists()
    monkeypatch.undo()
    assert pretrain(config, corpus.path, tmp_path / "run", resume=True).finished


@both_families
def test_weights_that_overflow_in_the_last_step_are_not_exported(config, corpus, tmp_path, monkeypatch):
    step = torch.optim.AdamW.step
    taken = []

    def overflow(self, *arguments, **options):
        step(self, *arguments, **options)
        taken.append(1)
        if len(taken) == 6:
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(float("inf"))

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    with pytest.raises(TrainingDivergedError, match=r"Step 6: the loss of \w+ on the validation split is not finite"):
        pretrain(config, corpus.path, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "checkpoints" / "step-000006.pt").exists()


@pytest.fixture
def damaged(corpus, tmp_path):
    """A corpus with a flipped byte in a block of the first training shard; returns it and the name of the shard."""
    shutil.copytree(corpus.path, tmp_path / "damaged")
    ref = corpus.block_refs("train")[0]
    path = tmp_path / "damaged" / ref.shard
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[ref.offset + ref.size // 2] ^= 1
    path.write_bytes(data)
    return tmp_path / "damaged", ref.shard


@both_families
def test_a_damaged_shard_stops_the_run_and_is_named(config, damaged, tmp_path):
    path, shard = damaged
    config = dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, window_blocks=99))
    with pytest.raises(InputError, match=f"in shard {shard} is damaged.*; the same command with --skip-bad-shards"):
        pretrain(config, path, tmp_path / "run")


@both_families
def test_a_run_goes_on_after_a_shard_was_lost(config, corpus, tmp_path, monkeypatch):
    path, out = tmp_path / "corpus", tmp_path / "run"
    shutil.copytree(corpus.path, path)
    shard = corpus.block_refs("train")[-1].shard
    save = Checkpoints.save

    def lose(self, state, *, step, best_step):
        save(self, state, step=step, best_step=best_step)
        if step == 4:
            (path / shard).unlink()

    monkeypatch.setattr(Checkpoints, "save", lose)
    # One block at a time, so that the lost one is not in memory when it is lost.
    sampling = dataclasses.replace(config.sampling, window_blocks=1)
    config = dataclasses.replace(config, sampling=sampling, run=dataclasses.replace(config.run, steps=30))
    with pytest.raises(InputError, match=f"The shard {shard} of .* cannot be read: .*--skip-bad-shards.*--resume"):
        pretrain(config, path, out)
    monkeypatch.undo()
    n_before = len([row for row in metrics(out) if int(row["step"]) <= 4])
    before = metrics(out)[:n_before]
    with pytest.raises(InputError, match=f"lacks the shard {shard}; the same command with --skip-bad-shards"):
        pretrain(config, path, out, resume=True)
    result = pretrain(config, path, out, resume=True, skip_bad_shards=True)
    assert (result.finished, result.step, list(result.skipped_shards)) == (True, 30, [shard])
    assert metrics(out)[:n_before] == before
    assert list(json.loads((out / "run.json").read_text())["skipped_shards"]) == [shard]


@both_families
def test_bad_shards_are_left_out_and_counted_when_asked_for(config, damaged, tmp_path, caplog):
    path, shard = damaged
    result = pretrain(config, path, tmp_path / "run", skip_bad_shards=True)
    assert list(result.skipped_shards) == [shard]
    assert shard in caplog.text
    assert json.loads((tmp_path / "run" / "run.json").read_text())["skipped_shards"] == result.skipped_shards
    (path / shard).unlink()
    with pytest.raises(InputError, match=f"lacks the shard {shard}; the same command with --skip-bad-shards"):
        pretrain(config, path, tmp_path / "other")
    result = pretrain(config, path, tmp_path / "other", skip_bad_shards=True)
    assert f"lacks the shard {shard}" in result.skipped_shards[shard]
    assert_same_run(tmp_path / "run", tmp_path / "other")


def test_a_disk_that_fills_up_leaves_a_run_that_can_go_on(finished, config, corpus, tmp_path, monkeypatch):
    save = torch.save

    def full(state, file):
        if state.get("step") == 4:
            file.write(b"half a checkpoint")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        pretrain(config, corpus.path, tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["best-000003.pt", "step-000002.pt"]
    monkeypatch.undo()
    pretrain(config, corpus.path, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", finished)


def test_global_state_of_torch_is_left_alone(config, corpus, tmp_path):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    pretrain(config, corpus.path, tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


HOLD = """
import sys, time
from spaf_data import claim
with claim(sys.argv[1], "spaf-train pretrain"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_into_one_folder_is_told_of_the_first(config, corpus, tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"being written by spaf-train pretrain \(process {other.pid} on "):
            pretrain(config, corpus.path, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    pretrain(config, corpus.path, tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "tiny.toml"]
