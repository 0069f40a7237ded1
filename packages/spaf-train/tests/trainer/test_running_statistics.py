import dataclasses

import pytest
import torch

from spaf_model import SpatialFormer
from spaf_train import ObjectivesConfig, TrainingModule
from spaf_train.trainer.running_statistics import RunningStatistics, step_statistics

FACTORS = {"masked_genes": 1.0, "colocalization": 1.0, "pairs": 1.0}


def test_a_step_moves_them_once_by_all_its_positions(network, make_stream):
    """By hand: all positions of all batches of a step, as the first layer sees them."""
    module = TrainingModule(network, ObjectivesConfig()).train()
    network.requires_grad_(False)
    statistics = RunningStatistics(network)
    (norm,) = step_statistics(network)
    seen = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].pack(inputs[0]).double()))
    for batch in make_stream(batches_per_step=5).next_step():
        torch.manual_seed(batch.seed)
        module(batch, batch.weights(), FACTORS, 0.2)
    assert torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))
    statistics.move()
    assert len(seen) == 5
    real = torch.cat(seen)
    momentum = network.config.batch_norm_momentum
    torch.testing.assert_close(norm.running_mean.double(), momentum * real.mean(0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(norm.running_var.double(), 1 - momentum + momentum * real.var(0), rtol=1e-5, atol=1e-7)
    moved = norm.running_mean.clone()
    statistics.move()  # nothing was seen since
    assert torch.equal(norm.running_mean, moved)
    statistics.end()
    module(batch, batch.weights(), FACTORS, 0.2)
    assert not torch.equal(norm.running_mean, moved)


@pytest.mark.parametrize("momentum", [0.05, 1.0])
def test_one_batch_a_step_moves_them_as_torch_does(config, vocabulary, make_stream, momentum):
    norms = []
    for gathered in (False, True):
        shape = dataclasses.replace(config.model, batch_norm_momentum=momentum)
        network = SpatialFormer(shape, vocabulary, seed=0).network
        module = TrainingModule(network, ObjectivesConfig()).train()
        statistics = RunningStatistics(network) if gathered else None
        stream = make_stream()
        for _ in range(3):
            (batch,) = stream.next_step()
            torch.manual_seed(batch.seed)
            module(batch, batch.weights(), FACTORS, 1.0)
            if statistics is not None:
                statistics.move()
        norms += step_statistics(network)
    torch.testing.assert_close(norms[0].running_mean, norms[1].running_mean)
    torch.testing.assert_close(norms[0].running_var, norms[1].running_var)
