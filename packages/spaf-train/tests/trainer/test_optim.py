import itertools

import pytest
import torch
from torch import nn

from spaf_model import InputError
from spaf_train import OptimizerConfig, TrainingModule, learning_rate, make_optimizer
from spaf_train.objectives import ObjectivesConfig


def test_schedule_rises_peaks_and_ends_at_the_floor():
    config = OptimizerConfig(learning_rate=1e-2, floor=1e-4, warmup_steps=10)
    rates = [learning_rate(step, 100, config) for step in range(101)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[9] == rates[10] == max(rates) == pytest.approx(1e-2)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[55] == pytest.approx((1e-2 + 1e-4) / 2)
    assert rates[100] == pytest.approx(1e-4)


def test_no_warmup_and_a_warmup_longer_than_the_run():
    assert learning_rate(0, 10, OptimizerConfig(warmup_steps=0)) == pytest.approx(1e-3)
    assert learning_rate(4, 5, OptimizerConfig(warmup_steps=50)) == pytest.approx(1e-4)


def test_decay_spares_tables_norms_biases_and_scales(network):
    module = TrainingModule(network, ObjectivesConfig())
    decayed, spared = make_optimizer(module, OptimizerConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decayed_names = {names[id(parameter)] for parameter in decayed["params"]}
    linear = {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv1d)}
    assert linear <= decayed_names
    tables = {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, nn.Embedding)}
    assert tables
    assert not tables & decayed_names
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


def test_frozen_parameters_are_left_out(network):
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    network.pair_head.weight.requires_grad_(True)
    optimizer = make_optimizer(network, OptimizerConfig())
    assert [parameter.shape for group in optimizer.param_groups for parameter in group["params"]] == [
        torch.Size([2, network.config.width])
    ]


@pytest.mark.parametrize("options", [{"learning_rate": 0.0}, {"floor": 1.0}, {"clip_norm": -1.0}, {"beta1": 1.5}])
def test_impossible_options_are_named(options):
    with pytest.raises(InputError, match=next(iter(options))):
        OptimizerConfig(**options)
