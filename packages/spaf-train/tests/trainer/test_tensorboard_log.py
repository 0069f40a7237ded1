import csv
import sys

import pytest

from spaf_model import InputError
from spaf_train import pretrain, read_config

# TensorBoard is optional.
event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


@pytest.fixture
def config(config_path):
    return read_config(config_path, overrides=["run.tensorboard=true", "run.log_every=2"])


def curves(out, split):
    """Steps and values by name, as TensorBoard shows them."""
    events = event_accumulator.EventAccumulator(str(out / "tensorboard" / split), purge_orphaned_data=True).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def assert_curves_are_the_table(out):
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for split in ("train", "validation"):
        found = curves(out, split)
        own = [row for row in rows if row["split"] == split]
        expected = {
            name: [(int(row["step"]), pytest.approx(float(row[name]), rel=1e-6)) for row in own]
            for name in rows[0]
            if name not in ("step", "split") and all(row[name] for row in own)
        }
        assert found == expected
    return rows


def test_curves_are_the_columns_of_the_table_also_after_a_resume(config, corpus, tmp_path):
    out = tmp_path / "run"
    pretrain(config, corpus.path, out)
    rows = assert_curves_are_the_table(out)
    assert [row["step"] for row in rows if row["split"] == "train"] == ["2", "4", "6"]
    # As if it had been killed after step 4: steps 5 and 6 are taken again, and shown once.
    (out / "run.json").unlink()
    (out / "checkpoints" / "step-000006.pt").unlink()
    pretrain(config, corpus.path, out, resume=True)
    assert_curves_are_the_table(out)


def test_a_run_that_is_continued_may_begin_to_write_curves(config_path, corpus, config, tmp_path):
    pretrain(read_config(config_path, overrides=["run.log_every=2"]), corpus.path, tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists()
    (tmp_path / "run" / "checkpoints" / "step-000006.pt").unlink()
    pretrain(config, corpus.path, tmp_path / "run", resume=True)
    assert [step for step, _ in curves(tmp_path / "run", "train")["loss"]] == [6]


def test_a_missing_package_is_named_before_the_run(config, corpus, tmp_path, monkeypatch):
    # A module that is None in sys.modules cannot be found.
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'spaf-train\[tensorboard\]'"):
        pretrain(config, corpus.path, tmp_path / "run")
    assert not (tmp_path / "run").exists()
