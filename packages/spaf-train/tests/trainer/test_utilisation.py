import dataclasses
import re
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from spaf_model import SpatialFormer
from spaf_train import BatchStream, pretrain, read_config
from spaf_train.objectives import ColocalizationConfig, ObjectivesConfig, PairsConfig
from spaf_train.trainer.module import TrainingModule
from spaf_train.trainer.progress import TrainingProgress
from spaf_train.trainer.utilisation import TrainingOperations, describe_step


def test_operations_are_those_that_torch_counts(config, vocabulary, make_stream):
    # What drop path leaves out is not computed on a CPU, and is counted all the same.
    network = SpatialFormer(dataclasses.replace(config.model, drop_path=0.0), vocabulary, seed=0).network
    objectives = ObjectivesConfig(colocalization=ColocalizationConfig(enabled=False), pairs=PairsConfig(enabled=False))
    (batch,) = make_stream(objectives=objectives, token_budget=400).next_step()
    with FlopCounterMode(display=False) as counter:
        total, _ = TrainingModule(network, objectives)(batch, batch.weights(), {"masked_genes": 1.0}, 1.0)
        total.backward()
    # torch counts padding, and neither fused attention on a CPU nor every depthwise convolution.
    n_cells, length = batch.unmasked.ids.shape
    lengths = torch.tensor([[length, 0]]).expand(n_cells, 2)
    padded = dataclasses.replace(batch, unmasked=dataclasses.replace(batch.unmasked, lengths=lengths))
    attention = 12 * network.config.n_layers * network.config.width * n_cells * length**2
    depthwise = 6 * network.layers[0].convolution.mixer.depthwise.numel() * network.config.n_layers * n_cells * length
    operations = TrainingOperations(network, objectives)
    matrices = sum(
        n
        for name, n in counter.get_flop_counts()["Global"].items()
        if name in (torch.ops.aten.mm, torch.ops.aten.addmm)
    )
    assert operations.count(padded) - attention - depthwise == matrices
    assert 0.0 < operations.count(batch) < operations.count(padded)


def test_a_step_is_told_with_what_it_waited_for_and_what_it_used():
    numbers = {"n_tokens": 3000.0, "seconds": 2.0, "waited": 0.5, "operations": 1e12}
    assert describe_step(1.25, **numbers, peak_tflops=0.0) == "loss 1.250  1,500 tokens/s  waiting for data 25%"
    assert describe_step(1.25, **numbers, peak_tflops=2.0).endswith("waiting for data 25%  25.0% of peak")


def test_the_bar_shows_them(config_path, corpus, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(TrainingProgress, "update", lambda self, step, status: shown.append(status))
    next_step = BatchStream.next_step

    def slow(self):
        time.sleep(0.2)
        return next_step(self)

    monkeypatch.setattr(BatchStream, "next_step", slow)
    config = read_config(config_path, overrides=["run.steps=2", "run.peak_tflops=1e-3"])
    pretrain(config, corpus.path, tmp_path / "run")
    steps = [status for status in shown if not status.startswith("validation")]
    assert len(steps) == 2
    assert len(shown) > 2  # the batches of the validation too
    for status in steps:
        found = re.fullmatch(r"loss [\d.]+  [\d,]+ tokens/s  waiting for data (\d+)%  ([\d.]+)% of peak", status)
        assert found, status
        assert 20 < int(found[1]) <= 100
        assert float(found[2]) > 0.0
