import csv
import os
import socket
import subprocess
import sys

import pytest
import torch

from spaf_model import InputError
from spaf_train import pretrain, read_config
from spaf_train.distributed import ranks

LOSSES = ("loss", "loss_masked_genes", "loss_colocalization", "loss_pairs", "accuracy_masked_genes")


def losses(out):
    with (out / "metrics.csv").open(newline="") as file:
        return [
            [float(row[name]) for name in LOSSES if row[name]]
            for row in csv.DictReader(file)
            if row["split"] == "train"
        ]


def run_two(config_path, corpus, out, *options):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "spaf_train", "pretrain", str(config_path), "--data", str(corpus.path)]
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [*command, "--out", str(out), *options],
            env={**os.environ, **environment, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    return [process.returncode for process in processes], errors


def test_two_processes_take_the_steps_of_one(config_path, corpus, tmp_path):
    pretrain(read_config(config_path), corpus.path, tmp_path / "one")
    codes, errors = run_two(config_path, corpus, tmp_path / "two")
    assert codes == [0, 0], errors
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 6
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-5)
    # The two processes together looked at the same validation inputs.
    with (tmp_path / "two" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "validation"]
    assert all(row["auroc_pairs"] for row in rows)


def test_two_processes_that_cannot_share_the_step_say_so(config_path, corpus, tmp_path):
    codes, errors = run_two(config_path, corpus, tmp_path / "run", "--set", "sampling.batches_per_step=1")
    assert codes == [2, 2]
    assert "sampling.batches_per_step (1) must be a multiple of the number of processes (2)" in errors[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"run\.device is cuda"), ranks("cuda"):
        pass
