import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from spaf_model import InputError, SpatialFormer, load_model
from spaf_train import GeneEmbeddings, load_checkpoint, pretrain, read_config
from spaf_train.trainer.distributed import ranks

LOSSES = ("loss", "loss_masked_genes", "loss_colocalization", "loss_pairs", "accuracy_masked_genes")
VALIDATED = (*LOSSES, "auroc_pairs", "auroc_colocalization")


def losses(out, split="train", names=LOSSES):
    with (out / "metrics.csv").open(newline="") as file:
        return [
            [float(row[name]) for name in names if row[name]] for row in csv.DictReader(file) if row["split"] == split
        ]


def assert_same_validation(first, second):
    """Validation runs on the running statistics, so that it tells whether those are the same."""
    ours, theirs = (losses(out, "validation", VALIDATED) for out in (first, second))
    assert len(ours) == len(theirs) > 0
    for one, two in zip(ours, theirs, strict=True):
        assert len(one) == len(VALIDATED)
        assert two == pytest.approx(one, rel=2e-4, abs=2e-4)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_two(config_path, corpus, out, *options):
    command = [sys.executable, "-m", "spaf_train", "pretrain", str(config_path), "--data", str(corpus.path)]
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    environment |= {"OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [*command, "--out", str(out), *options],
            env={**os.environ, **environment, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]


def run_two(config_path, corpus, out, *options):
    processes = start_two(config_path, corpus, out, *options)
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:  # where one stood still, or ended while the other waits for it
            process.kill()
            process.wait()
    return [process.returncode for process in processes], errors


class Ranks:
    """Two processes that take one run after the other."""

    def __init__(self):
        environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("rank.py"))],
                env={**environment, "RANK": rank, "LOCAL_RANK": rank},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in "01"
        ]

    def pretrain(self, config_path, corpus, out, *options):
        """Exit codes and errors of both, as `run_two` gives them."""
        arguments = ["pretrain", str(config_path), "--data", str(corpus.path), "--out", str(out), *options]
        request = json.dumps([free_port(), arguments])
        for process in self.processes:
            print(request, file=process.stdin, flush=True)
        with ThreadPoolExecutor(2) as pool:
            answers = pool.map(lambda process: process.stdout.readline(), self.processes, timeout=120)
            try:
                codes, errors = zip(*map(json.loads, answers), strict=True)
            except (TimeoutError, ValueError):  # one that failed otherwise than the command line does, answers nothing
                self.end()
                raise
        return list(codes), list(errors)

    def end(self):
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def two():
    """Two processes for the runs whose processes need not be new: those of the command line itself are further down."""
    processes = Ranks()
    yield processes
    processes.end()


def test_two_processes_take_the_steps_of_one(config_path, corpus, tmp_path):
    pretrain(read_config(config_path), corpus.path, tmp_path / "one")
    codes, errors = run_two(config_path, corpus, tmp_path / "two")
    assert codes == [0, 0], errors
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 6
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-5)
    assert_same_validation(tmp_path / "one", tmp_path / "two")


def test_two_processes_train_scgpt_spatial_as_one_does(two, tmp_path, corpus, spatial_path):
    """Its experts are balanced by what all processes sent to them."""
    for name, options in (("ddp", []), ("fsdp", ["--set", "distributed.strategy=fsdp"])):
        codes, errors = two.pretrain(spatial_path, corpus, tmp_path / name, *options)
        assert codes == [0, 0], errors
    pretrain(read_config(spatial_path), corpus.path, tmp_path / "one")
    names = [f"loss_{name}" for name in ("masked_values", "cell_values", "neighbourhood")]
    more = ["explained_masked_values", "explained_neighbourhood", "baseline_neighbourhood", "information_experts"]
    biases = {}
    for split, columns in (("train", names), ("validation", [*names, *more])):
        one = losses(tmp_path / "one", split, columns)
        assert len(one[0]) == len(columns)
        for name in ("ddp", "fsdp"):
            for ours, theirs in zip(one, losses(tmp_path / name, split, columns), strict=True):
                assert theirs == pytest.approx(ours, rel=1e-3, abs=1e-4)
    for name in ("one", "ddp", "fsdp"):
        biases[name] = load_model(tmp_path / name / "model").network.token_decoder.selection_bias
        assert biases[name].any()
        torch.testing.assert_close(biases[name], biases["one"])


def statistics(out):
    state = SpatialFormer.from_pretrained(out / "model").network.state_dict()
    return {name: tensor for name, tensor in state.items() if "running_" in name}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_running_statistics_do_not_depend_on_the_number_of_processes(two, config_path, corpus, tmp_path, strategy):
    # Many batches a step and recomputed layers, none of which may count more than once.
    options = ["sampling.batches_per_step=8", "run.activation_checkpointing=true"]
    plain = read_config(config_path, overrides=options[:1])
    pretrain(plain, corpus.path, tmp_path / "one")
    flags = [word for option in (*options, f"distributed.strategy={strategy}") for word in ("--set", option)]
    codes, errors = two.pretrain(config_path, corpus, tmp_path / "two", *flags)
    assert codes == [0, 0], errors
    assert_same_validation(tmp_path / "one", tmp_path / "two")
    ours, theirs = statistics(tmp_path / "one"), statistics(tmp_path / "two")
    assert ours
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4)


def test_two_processes_that_cannot_share_the_step_say_so(config_path, corpus, tmp_path):
    codes, errors = run_two(config_path, corpus, tmp_path / "run", "--set", "sampling.batches_per_step=1")
    assert codes == [2, 2]
    assert "sampling.batches_per_step (1) must be a multiple of the number of processes (2)" in errors[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_compile(config_path, corpus, tmp_path, strategy):
    # The one dropout inside the compiled part would draw other numbers on a CPU.
    same = "model.mlp_dropout=0.0"
    pretrain(read_config(config_path, overrides=[same]), corpus.path, tmp_path / "plain")
    options = (same, f"distributed.strategy={strategy}", "run.compile=true", "run.activation_checkpointing=true")
    codes, errors = run_two(
        config_path, corpus, tmp_path / "run", *(word for option in options for word in ("--set", option))
    )
    assert codes == [0, 0], errors
    for ours, theirs in zip(losses(tmp_path / "run"), losses(tmp_path / "plain"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"run\.device is cuda"), ranks("cuda"):
        pass


def rows(out):
    """The log without the columns that tell the time."""
    with (out / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in ("tokens_per_second", "seconds")}
            for row in csv.DictReader(file)
        ]


def assert_same_run(first, second):
    assert rows(first) == rows(second)
    ours, theirs = (SpatialFormer.from_pretrained(out / "model").network.state_dict() for out in (first, second))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def wait_for(path, processes):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(longer, corpus, tmp_path_factory):
    """An uninterrupted run of two processes."""
    out = tmp_path_factory.mktemp("two") / "whole"
    codes, errors = run_two(longer, corpus, out)
    assert codes == [0, 0], errors
    return out


def test_two_killed_processes_go_on_bit_for_bit_and_one_goes_on_to_rounding(longer, corpus, whole, tmp_path):
    killed = tmp_path / "killed"
    processes = start_two(longer, corpus, killed)
    try:
        # Somewhere behind a checkpoint, at whatever step they are in.
        wait_for(killed / "checkpoints" / "step-000004.pt", processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert not (killed / "run.json").exists()
    shutil.copytree(killed, tmp_path / "alone")
    codes, errors = run_two(longer, corpus, killed, "--resume")
    assert codes == [0, 0], errors
    assert_same_run(killed, whole)
    # One process takes the remaining steps of the two.
    pretrain(read_config(longer), corpus.path, tmp_path / "alone", resume=True)
    for ours, theirs in zip(losses(tmp_path / "alone"), losses(whole), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)


def test_a_rank_that_dies_is_restarted_by_the_elastic_agent(longer, corpus, whole, tmp_path):
    out = tmp_path / "elastic"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "3"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}", "--monitor-interval", "0.1"]
    command += ["-m", "spaf_train", "pretrain", str(longer), "--data", str(corpus.path), "--out", str(out), "--resume"]
    agent = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(out / "checkpoints" / "step-000004.pt", [agent])
        victim = next(child for child in psutil.Process(agent.pid).children() if child.environ().get("RANK") == "1")
        victim.kill()
        _, errors = agent.communicate(timeout=180)
    finally:
        # Workers outlive an agent that is killed, and would hold its pipe open.
        for process in [*psutil.Process(agent.pid).children(recursive=True), agent] if agent.poll() is None else []:
            process.kill()
        agent.communicate()
    assert agent.returncode == 0, errors
    assert not victim.is_running()
    assert_same_run(out, whole)


def test_divided_weights_take_the_steps_of_whole_ones_and_leave_the_same_files(two, config_path, corpus, tmp_path):
    ddp, fsdp = tmp_path / "ddp", tmp_path / "fsdp"
    assert two.pretrain(config_path, corpus, ddp)[0] == [0, 0]
    codes, errors = two.pretrain(config_path, corpus, fsdp, "--set", "distributed.strategy=fsdp")
    assert codes == [0, 0], errors
    for ours, theirs in zip(losses(fsdp), losses(ddp), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    whole, divided = (load_checkpoint(out / "checkpoints" / "step-000004.pt") for out in (ddp, fsdp))
    assert whole["module"].keys() == divided["module"].keys()
    for name, tensor in whole["module"].items():
        torch.testing.assert_close(divided["module"][name], tensor, rtol=1e-3, atol=1e-4)
    for number, entry in whole["optimizer"]["state"].items():
        assert {name: value.shape for name, value in divided["optimizer"]["state"][number].items()} == {
            name: value.shape for name, value in entry.items()
        }
    SpatialFormer.from_pretrained(fsdp / "model")
    # A single process goes on from the state of two that shared the weights, and two from that.
    (fsdp / "run.json").unlink()
    for path in (fsdp / "checkpoints").glob("step-000006.pt"):
        path.unlink()
    shutil.copytree(fsdp, tmp_path / "again")
    pretrain(read_config(config_path), corpus.path, fsdp, resume=True)
    codes, errors = two.pretrain(
        config_path, corpus, tmp_path / "again", "--set", "distributed.strategy=fsdp", "--resume"
    )
    assert codes == [0, 0], errors
    for out in (fsdp, tmp_path / "again"):
        for ours, theirs in zip(losses(out), losses(ddp), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_start_from_the_same_gene_embeddings(two, config_path, corpus, tmp_path, strategy):
    genes = pd.DataFrame({"gene": corpus.genes, "gene_id": "", "n_transcripts": 90, "embedded": True})
    vectors = np.random.default_rng(0).normal(size=(len(genes), 4)).astype(np.float32)
    GeneEmbeddings(genes=genes, vectors=vectors, weights=np.ones(4, np.float32)).save(tmp_path / "genes")
    options = [f"gene_embeddings.path={tmp_path / 'genes'}", "gene_embeddings.trainable=false", "run.steps=3"]
    pretrain(read_config(config_path, overrides=options), corpus.path, tmp_path / "one")
    flags = [word for option in (*options, f"distributed.strategy={strategy}") for word in ("--set", option)]
    codes, errors = two.pretrain(config_path, corpus, tmp_path / "two", *flags)
    assert codes == [0, 0], errors
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 3
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-5)
    ours, theirs = (SpatialFormer.from_pretrained(tmp_path / run / "model").network for run in ("one", "two"))
    assert torch.equal(ours.embedding.gene_spatial.weight, theirs.embedding.gene_spatial.weight)


STARTER = """
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
token_budget = 700
batches_per_step = 2
[sampling.patches]
sites = 8
cells = 6
[objectives.contrast]
enabled = true
[objectives.distillation]
enabled = true
towers = 1
steps = 10
hidden = 16
rank = 6
[objectives.pairs]
enabled = false
[objectives.weighting]
method = "fixed"
[run]
steps = 5
log_every = 1
validate_every = 5
validation_inputs = 300
best_metric = "last"
threads = 1
device = "cpu"
"""
CONTRASTED = ("loss", "loss_masked_genes", "loss_colocalization", "loss_contrast", "loss_distillation")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_share_contrast_and_one_set_of_towers(two, corpus, tmp_path, strategy):
    path = tmp_path / "starter.toml"
    path.write_text(STARTER)
    pretrain(read_config(path), corpus.path, tmp_path / "one")
    codes, errors = two.pretrain(path, corpus, tmp_path / "two", "--set", f"distributed.strategy={strategy}")
    assert codes == [0, 0], errors
    one, two = (losses(tmp_path / name, names=CONTRASTED) for name in ("one", "two"))
    assert len(one) == len(two) == 5
    for ours, theirs in zip(one, two, strict=True):
        assert len(ours) == len(CONTRASTED)
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-5)
    one, two = (losses(tmp_path / name, "validation", [*CONTRASTED, "auroc_easy"]) for name in ("one", "two"))
    assert two[0] == pytest.approx(one[0], rel=1e-3, abs=1e-4)


VALUED = (
    STARTER.replace("[objectives.distillation]\nenabled = true\ntowers = 1\nsteps = 10\nhidden = 16\nrank = 6\n", "")
    .replace('pair_input = "separate"\n', 'pair_input = "separate"\npair_comparison = "cosine"\ncontrast_rank = 4\n')
    .replace("colocalization_rank = 4\n", 'gene_values = "pearson"\nlinear_path = 4\ndecoder_width = 8\n')
    .replace("token_budget = 700\n", "token_budget = 700\npanel_min = 0.5\n")
    .replace("[objectives.pairs]", "[objectives.reconstruction]\nenabled = true\n[objectives.pairs]")
)
OF_VALUES = ("loss", "loss_masked_genes", "loss_contrast", "loss_reconstruction")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_share_values_loadings_and_panels(two, corpus, tmp_path, strategy):
    path = tmp_path / "valued.toml"
    path.write_text(VALUED)
    pretrain(read_config(path), corpus.path, tmp_path / "one")
    codes, errors = two.pretrain(path, corpus, tmp_path / "two", "--set", f"distributed.strategy={strategy}")
    assert codes == [0, 0], errors
    one, two = (losses(tmp_path / name, names=OF_VALUES) for name in ("one", "two"))
    assert len(one) == len(two) == 5
    for ours, theirs in zip(one, two, strict=True):
        assert len(ours) == len(OF_VALUES)
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-5)
    ours, theirs = (SpatialFormer.from_pretrained(tmp_path / run / "model").network for run in ("one", "two"))
    assert torch.equal(ours.linear_path.loadings, theirs.linear_path.loadings)
