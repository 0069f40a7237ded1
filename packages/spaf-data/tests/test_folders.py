import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from spaf_data import InputError, claim, simulate_bundle, whole_folder
from spaf_data.folders import replace_folder, restore

HOLD = """
import sys, time
from spaf_data import claim
with claim(sys.argv[1], "a test"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """A process that has claimed a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_told_of_the_first(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    sentence = rf"out is being written by a test \(process {holder.pid} on .+, since 2.+\); wait for its end"
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for name in (tmp_path / "out", tmp_path / "x" / ".." / "out", tmp_path / "link"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=sentence.replace("out is", f"{name.name} is")), claim(name, "another"):
            pass
    with claim(tmp_path / "other", "another"):
        pass
    with pytest.raises(InputError, match="is being written by a test"):
        simulate_bundle(tmp_path / "out", n_cells=50, n_genes=60, seed=0)
    assert not (tmp_path / "out").exists()


def test_a_killed_process_has_no_claim(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".out.lock").exists()
    with claim(tmp_path / "out", "another"):
        assert f'"pid": {os.getpid()}' in (tmp_path / ".out.lock").read_text()
    assert not (tmp_path / ".out.lock").exists()


def test_a_claim_is_of_one_thread_and_ends_with_its_context(tmp_path: Path) -> None:
    with (
        claim(tmp_path / "deep" / "out", "one"),
        pytest.raises(InputError, match=rf"is being written by one \(process {os.getpid()} on"),
        claim(tmp_path / "deep" / "out", "two"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []  # the folder was made for the lock alone
    with pytest.raises(RuntimeError), claim(tmp_path / "out", "one"):
        raise RuntimeError
    with claim(tmp_path / "out", "two"):
        pass


def test_of_many_who_ask_at_once_one_at_a_time_has_the_claim(tmp_path: Path) -> None:
    inside, most, claimed = [], [0], [0]

    def ask() -> None:
        for _ in range(50):
            try:
                with claim(tmp_path / "out", "one of many"):
                    inside.append(1)
                    most[0] = max(most[0], len(inside))
                    time.sleep(0.0005)
                    inside.pop()
                    claimed[0] += 1
            except InputError:
                pass

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert claimed[0] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_said_and_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("spaf_data.folders.fcntl.lockf", no_locks)
    with claim(tmp_path / "out", "one"):
        assert "cannot be locked (Operation not supported)" in caplog.text
    assert list(tmp_path.iterdir()) == []


def folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


@pytest.mark.parametrize("step", [1, 2])
def test_an_interrupt_between_two_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The old folder is back, whether the interrupt comes before or after the rename it falls on."""
    rename = os.replace
    for before in (True, False):
        path = folder(tmp_path / f"out-{before}", "old")
        calls = [0]

        def interrupted(source: Path, target: Path, before: bool = before, calls: list[int] = calls) -> None:
            calls[0] += 1
            if calls[0] == step and before:
                raise KeyboardInterrupt
            rename(source, target)
            if calls[0] == step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("spaf_data.folders.os.replace", interrupted)
            with pytest.raises(KeyboardInterrupt), whole_folder(path) as new:
                (new / "file").write_text("new")
        restore(path)
        # After both renames the new one is whole and in its place.
        assert (path / "file").read_text() == ("new" if step == 2 and not before else "old")
        assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_folder_that_a_killed_process_moved_aside_comes_back(tmp_path: Path) -> None:
    aside = folder(tmp_path / ".out.replaced", "old")
    with whole_folder(tmp_path / "out") as new:
        (new / "file").write_text("new")
        assert (tmp_path / "out" / "file").read_text() == "old"
    assert (tmp_path / "out" / "file").read_text() == "new"
    assert not aside.exists()
    folder(aside, "older")  # moved aside by one that was killed after the second rename
    replace_folder(folder(tmp_path / "new", "new"), tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "new"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out"]


def test_a_link_stays_a_link_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    for text in ("first", "second"):
        with whole_folder(tmp_path / "out") as new:
            (new / "file").write_text(text)
        assert (tmp_path / "out").is_symlink()
        assert (tmp_path / "disk" / "out" / "file").read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "out"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["out"]
