import dataclasses

import pytest
import torch

from spaf_model import SpatialFormer
from spaf_train import ObjectivesConfig, TrainingModule
from spaf_train.trainer.recomputing import recompute_layers
from spaf_train.trainer.running_statistics import RunningStatistics

FACTORS = {"masked_genes": 1.0, "colocalization": 1.0, "pairs": 1.0}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_layers_have_the_same_gradients_and_statistics(config, vocabulary, make_stream, dropout):
    batch = next(make_stream(token_budget=1500).one_epoch())
    shape = dataclasses.replace(config.model, n_layers=2, mlp_dropout=dropout, conv_dropout=dropout, drop_path=dropout)
    modules, calls = [], []
    for recomputed in (False, True):
        network = SpatialFormer(shape, vocabulary, seed=0).network
        if recomputed:
            recompute_layers(network)
            for layer in network.layers:
                layer.convolution.register_forward_hook(lambda *_: calls.append(1))
        statistics = RunningStatistics(network)
        module = TrainingModule(network, ObjectivesConfig()).train()
        torch.manual_seed(1)
        total, _ = module(batch, batch.weights(), FACTORS, 1.0)
        total.backward()
        assert not any(buffer.is_floating_point() and (buffer != buffer[0]).any() for buffer in network.buffers())
        statistics.move()
        modules.append(module)
    assert len(calls) == 4  # each layer forward, and again for its gradients
    plain, again = modules
    for (name, ours), theirs in zip(again.named_parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad)
    assert again.state_dict().keys() == plain.state_dict().keys()
    for name, statistics in plain.named_buffers():
        torch.testing.assert_close(dict(again.named_buffers())[name], statistics)
    assert all(layer.convolution.mixer.norm.counts for layer in again.network.layers)
