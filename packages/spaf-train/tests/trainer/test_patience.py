"""A run ends when validation no longer improves, and keeps the weights that were best."""

import dataclasses

import pytest

from spaf_model import SpatialFormer
from spaf_train import BatchStream, OptimizerConfig, pretrain, read_config
from spaf_train.trainer import loop
from spaf_train.trainer.checkpoint import Checkpoints
from spaf_train.trainer.distributed import Ranks
from spaf_train.trainer.loop import Trainer
from spaf_train.trainer.memory import MemoryCheckpoints, MemoryLog
from spaf_train.trainer.signals import StopRequest
from spaf_train.trainer.validation import Validation

LOSSES = [5.0, 4.0, 3.0, 3.5, 3.2, 1.0]


@pytest.fixture
def scripted(monkeypatch):
    """Validation losses that are given, in turn."""

    def arrange(losses):
        rest = iter(losses)
        monkeypatch.setattr(loop, "look", lambda *_, **__: Validation({"loss": next(rest)}, {}))

    return arrange


def options(path, **more):
    more = {"steps": 100, "validate_every": 3, "checkpoint_every": 100, "patience": 2, **more}
    return read_config(path, overrides=[f"run.{name}={value}" for name, value in more.items()])


def test_a_run_ends_when_patience_does_and_exports_the_best(scripted, config_path, corpus, tmp_path):
    scripted(LOSSES)
    result = pretrain(options(config_path), corpus.path, tmp_path / "run")
    assert (result.finished, result.step, result.best["step"]) == (True, 15, 9.0)
    assert (tmp_path / "run" / "checkpoints" / "best-000009.pt").exists()
    assert (tmp_path / "run" / "checkpoints" / "step-000015.pt").exists()
    # It has ended, and goes no further.
    again = pretrain(options(config_path), corpus.path, tmp_path / "run", resume=True)
    assert (again.finished, again.step) == (True, 15)


def test_patience_goes_on_where_a_run_was_interrupted(scripted, config_path, corpus, tmp_path, monkeypatch):
    scripted(LOSSES)
    config = options(config_path, checkpoint_every=6)
    save = Checkpoints.save

    def killed(self, state, *, step, best_step):
        save(self, state, step=step, best_step=best_step)
        if step == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config, corpus.path, tmp_path / "run")
    monkeypatch.setattr(Checkpoints, "save", save)
    result = pretrain(config, corpus.path, tmp_path / "run", resume=True)  # one validation without a better is behind
    assert (result.finished, result.step, result.best["step"]) == (True, 15, 9.0)


def test_the_weights_it_begins_with_can_be_the_best_and_nothing_is_written(
    scripted, config, corpus, vocabulary, network
):
    scripted([1.0, 2.0, 3.0])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    run = dataclasses.replace(config.run, steps=100, validate_every=3, log_every=3, patience=2)
    stream = BatchStream(
        corpus, SpatialFormer(config.model, vocabulary), config.sampling, config.objectives, split="train", seed=0
    )
    kept, log = MemoryCheckpoints(), MemoryLog()
    trainer = Trainer(
        network,
        objectives=config.objectives,
        optimizer=OptimizerConfig(),
        run=run,
        train=stream,
        validation=stream,
        ranks=Ranks(0, 1, next(network.parameters()).device),
        checkpoints=kept,
        log_path=log,
        identity={},
        validate_first=True,
    )
    assert trainer.fit(StopRequest())
    assert (trainer.step, trainer.best["step"]) == (6, 0.0)
    assert [row["step"] for row in log.rows] == [0, 3, 6]
    assert "training_loss" not in log.rows[0]
    assert all(row["training_loss"] > 0.0 for row in log.rows[1:])
    assert all((kept.best_state["network"][name] == tensor).all() for name, tensor in before.items())
    assert any((tensor != before[name]).any() for name, tensor in network.state_dict().items())
