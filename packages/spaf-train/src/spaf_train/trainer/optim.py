"""The optimizer and its schedule."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from spaf_train._checks import require, require_at_least, require_fraction
from spaf_train._options import check_types


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with linear warm-up, cosine decay and a floor."""

    learning_rate: float = 1e-3  # at the end of the warm-up
    floor: float = 1e-5  # learning rate at the end of the run
    warmup_steps: int = 100  # steps over which the learning rate rises
    weight_decay: float = 0.1  # of weight matrices; biases, norms, scales and embedding tables have none
    beta1: float = 0.9  # memory of the mean of gradients
    beta2: float = 0.98  # memory of the mean of squared gradients
    eps: float = 1e-8  # added to the root of the latter
    clip_norm: float = 1.0  # largest norm of the whole gradient; 0: no clipping

    def __post_init__(self) -> None:
        check_types(self)
        require(self.learning_rate > 0.0, f"learning_rate must be above 0, not {self.learning_rate}.")
        require(
            0.0 <= self.floor <= self.learning_rate,
            f"floor must be between 0 and learning_rate ({self.learning_rate}), not {self.floor}.",
        )
        require_at_least("warmup_steps", self.warmup_steps, 0)
        require_at_least("weight_decay", self.weight_decay, 0.0)
        require_fraction("beta1", self.beta1)
        require_fraction("beta2", self.beta2)
        require(self.eps > 0.0, f"eps must be above 0, not {self.eps}.")
        require_at_least("clip_norm", self.clip_norm, 0.0)


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Return the learning rate of a step.

    Parameters
    ----------
    step
        Steps already taken, from 0.
    steps
        Steps of the whole run.
    config
        Peak, floor and warm-up.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return config.floor + (config.learning_rate - config.floor) * cosine


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW over the parameters of a module that are to be trained, in two groups.

    Weights of two and more dimensions that belong to linear and convolution layers decay; embedding tables, norms,
    biases, per-channel scales and the learned scales of the objectives do not.
    """
    tables = {
        id(parameter)
        for layer in module.modules()
        if isinstance(layer, nn.Embedding)
        for parameter in layer.parameters(recurse=False)
    }
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            (decayed if parameter.ndim >= 2 and id(parameter) not in tables else spared).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,  # one pass over the weights where the plain one makes nine
    )
