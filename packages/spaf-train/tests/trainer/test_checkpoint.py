import errno

import pytest
import torch

from spaf_model import InputError
from spaf_train import Checkpoints, load_checkpoint
from spaf_train.trainer.checkpoint import state_to_resume


def names(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_last_states_and_the_best_weights_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert checkpoints.latest() is None
    for step in (1, 2, 3, 4):
        if step in (1, 3):
            checkpoints.save_best({"network": {}}, step=step)
        checkpoints.save({"step": step}, step=step, best_step=1 if step < 3 else 3)
    assert names(checkpoints) == ["best-000003.pt", "step-000003.pt", "step-000004.pt"]
    assert load_checkpoint(checkpoints.latest())["step"] == 4


def test_old_best_weights_stay_until_a_state_is_safe(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save_best({"network": {}}, step=1)
    checkpoints.save({"step": 1}, step=1, best_step=1)
    checkpoints.save_best({"network": {}}, step=2)
    assert names(checkpoints) == ["best-000001.pt", "best-000002.pt", "step-000001.pt"]


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save({"step": 1, "weights": torch.ones(3)}, step=1, best_step=None)

    def full(state, file):
        file.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save({"step": 2}, step=2, best_step=None)
    assert names(checkpoints) == ["step-000001.pt"]
    assert load_checkpoint(checkpoints.latest())["step"] == 1


def test_damaged_and_hostile_files_are_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save({"step": 1, "weights": torch.randn(1000)}, step=1, best_step=None)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"step-000001\.pt cannot be read"):
        load_checkpoint(path)

    class Hostile:
        def __reduce__(self):
            return (exec, ("raise SystemExit",))

    torch.save({"step": Hostile()}, path)
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(path)
    with pytest.raises(InputError, match="missing"):
        load_checkpoint(tmp_path / "step-000009.pt")


def test_what_killed_runs_left_is_swept_and_nothing_else(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    checkpoints.sweep()  # before there is a folder
    checkpoints.save({"step": 1}, step=1, best_step=None)
    checkpoints.save_best({"network": {}}, step=1)
    for name in (".step-000002.pt.x7_k2abc", ".best-000002.pt.q1", ".step-notes.pt.x", "step-000001.pt.bak"):
        (checkpoints.folder / name).write_bytes(b"half")
    checkpoints.sweep()
    assert names(checkpoints) == [".step-notes.pt.x", "best-000001.pt", "step-000001.pt", "step-000001.pt.bak"]


def test_a_run_goes_on_as_it_was_begun_or_says_why_not(tmp_path):
    checkpoints, identity = Checkpoints(tmp_path / "checkpoints"), {"corpus": "a", "config": {"seed": 0, "width": 8}}
    assert state_to_resume(checkpoints, identity, tmp_path) is None
    checkpoints.save({"step": 1, "identity": identity}, step=1, best_step=None)
    assert state_to_resume(checkpoints, identity, tmp_path)["step"] == 1
    with pytest.raises(InputError, match="was trained on another corpus"):
        state_to_resume(checkpoints, identity | {"corpus": "b"}, tmp_path)
    with pytest.raises(InputError, match="was begun with another configuration: width was 8 and is 16"):
        state_to_resume(checkpoints, identity | {"config": {"seed": 0, "width": 16}}, tmp_path)
    with pytest.raises(InputError, match="begun by another version of spaf-train, which has no option depth: go on"):
        state_to_resume(checkpoints, identity | {"config": {**identity["config"], "depth": 2}}, tmp_path)
