"""Towers: small networks on log counts that learn which cells are neighbours, for a transformer to learn from.

A tower sees all counts of a cell at once, so that a step costs it a tenth of what it costs a transformer, and it has
seen the tissue many times over before a transformer has seen it once. What it knows is a similarity for every pair of
cells, written as one state a cell: a target that is there for every cell and dimension, where being neighbours says
something of few pairs (distillation: Hinton et al. 2015, https://arxiv.org/abs/1503.02531).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor, nn

from spaf_model.spatialformer.heads import SeparatePairs
from spaf_train._checks import require, require_at_least
from spaf_train.evaluation import log_normalize
from spaf_train.recipes.neighbours import NeighboursConfig, neighbour_losses, pair_kinds
from spaf_train.recipes.patches import Patches
from spaf_train.trainer.loop import TrainingDivergedError
from spaf_train.trainer.optim import OptimizerConfig, learning_rate, make_optimizer
from spaf_train.trainer.progress import TrainingProgress
from spaf_train.trainer.signals import StopRequest

_LARGEST = 5.0  # of a standardised expression; beyond it are counts of genes that hardly any cell has
_CELLS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowersConfig:
    """How many towers are trained first, and what being like them weighs for the model."""

    towers: int = 0  # the mean of their similarities is what the model learns; 0: no towers
    weight: float = 5.0  # of being like them
    hidden: int = 256  # units of the hidden layer
    rank: int = 64  # dimensions in which two cells are compared
    input_dropout: float = 0.2  # of genes
    dropout: float = 0.3  # of hidden units
    steps: int = 1500  # of each tower
    optimizer: OptimizerConfig = OptimizerConfig()

    def __post_init__(self) -> None:
        require_at_least("towers", self.towers, 0)
        require_at_least("weight", self.weight, 0.0)
        for name in ("hidden", "rank", "steps"):
            require_at_least(name, getattr(self, name), 1)
        for name in ("input_dropout", "dropout"):
            value = getattr(self, name)
            require(0.0 <= value < 1.0, f"{name} must be at least 0 and below 1, not {value}.")


class Tower(nn.Module):
    """From the standardised log counts of a cell, (n, G), to what its pair head compares, (n, hidden)."""

    def __init__(self, n_genes: int, config: TowersConfig) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Dropout(config.input_dropout),
            nn.Linear(n_genes, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
        )
        self.pair_head = SeparatePairs(config.hidden, config.rank)

    def forward(self, expression: Tensor) -> Tensor:
        """Return the hidden units (n, hidden) of expression (n, G)."""
        hidden = self.body(expression)
        assert isinstance(hidden, Tensor)
        return hidden


@dataclasses.dataclass(frozen=True)
class TowerStates:
    """What trained towers say of all cells of a split: the similarity of a and b is ``sum_r sign_r z_ar z_br``."""

    states: Tensor  # (n_cells, rank)
    signs: Tensor  # (rank,), 1 or -1


def standardised_expression(patches: Patches) -> Tensor:
    """Return log(1 + counts per 10,000), cells x genes that any has, each gene with mean 0 and variance 1."""
    counts = patches.counts()
    found = np.flatnonzero(np.asarray(counts.sum(axis=0)).ravel() > 0)
    values = log_normalize(counts[:, found]).toarray()
    values -= values.mean(axis=0)
    values /= values.std(axis=0) + 1e-3
    return torch.from_numpy(np.clip(values, -_LARGEST, _LARGEST).astype(np.float32))


def train_tower(
    patches: Patches,
    expression: Tensor,
    config: TowersConfig,
    neighbours: NeighboursConfig,
    *,
    seed: int,
    stop: StopRequest | None = None,
) -> Tower:
    """Train one tower by contrast of neighbours, on patches drawn as for the model; not to the end if asked to stop.

    Raises
    ------
    TrainingDivergedError
        If a loss or a gradient is not finite.
    """
    torch.manual_seed(seed)
    tower = Tower(expression.shape[1], config)
    optimizer = make_optimizer(tower, config.optimizer)
    weights = neighbours.weights()
    with TrainingProgress(config.steps, title="tower") as progress:
        for step in range(config.steps):
            if stop is not None and stop.received:
                break
            cells, coordinates = patches.choose(np.random.default_rng([seed, step]))
            hidden = tower(expression[torch.from_numpy(cells)])
            similarity = tower.pair_head.similarity(hidden, hidden)
            kinds = pair_kinds(coordinates, neighbours)
            losses = neighbour_losses(similarity, tower.pair_head.calibrate(similarity), kinds)
            total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config.steps, config.optimizer)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            norm = nn.utils.get_total_norm([p.grad for p in tower.parameters() if p.grad is not None])
            if not (math.isfinite(float(total.detach())) and math.isfinite(float(norm))):
                raise TrainingDivergedError(
                    f"Step {step + 1} of a tower: the loss or its gradient is not finite; a lower "
                    "towers.optimizer.learning_rate may help."
                )
            optimizer.step()
            progress.update(step + 1, f"loss {float(total.detach()):.3f}")
    return tower.eval()


@torch.no_grad()
def tower_states(towers: list[Tower], expression: Tensor, rank: int) -> TowerStates:
    """Return states of all cells whose signed inner products are closest to the mean similarity of towers.

    With F the projected states of all towers side by side and W their weights, the similarity of all cells is F W F'.
    Its `rank` eigenvectors of the largest absolute eigenvalues are found in the small space: with F'F = B B', those of
    B' W B.

    Parameters
    ----------
    towers
        With the same training cells.
    expression
        Of `standardised_expression`.
    rank
        Dimensions of the states; fewer where the towers have fewer.
    """
    pieces, weights = [], []
    for tower in towers:
        pieces.append(torch.cat([tower.pair_head.project(tower(part)) for part in expression.split(_CELLS_AT_ONCE)]))
        weights.append(tower.pair_head.weight / len(towers))
    states = torch.cat(pieces, dim=1).double()
    weight = torch.cat(weights).double()
    gram = states.T @ states
    # A trace of identity, in case that a direction is used by no cell.
    root = torch.linalg.cholesky(gram + 1e-9 * gram.trace() * torch.eye(len(gram), dtype=gram.dtype))
    values, vectors = torch.linalg.eigh(root.T @ (weight[:, None] * root))
    strongest = values.abs().argsort(descending=True, stable=True)[:rank]
    axes = torch.linalg.solve_triangular(root.T, vectors[:, strongest], upper=True)
    targets = states @ (axes * values[strongest].abs().sqrt())
    return TowerStates(targets.float(), values[strongest].sign().float())


def unlike(projected: Tensor, target: Tensor) -> Tensor:
    """Return the share of the variance of target states (n, rank) that projected states (n, rank) leave unexplained."""
    spread = (target - target.mean(dim=0)).square().sum().clamp_min(1e-6)
    return (projected - target).square().sum() / spread
