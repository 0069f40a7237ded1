"""Towers: small networks on log counts that learn which cells are neighbours, for a transformer to learn from.

A tower sees all counts of a cell at once, so that a step costs it a tenth of what it costs a transformer, and it has
seen the tissue many times over before a transformer has seen it once. What it knows is a similarity for every pair of
cells, written as one state a cell: a target that is there for every cell and dimension, where being neighbours says
something of few pairs (distillation: Hinton et al. 2015, https://arxiv.org/abs/1503.02531).
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from spaf_model import SeparatePairs
from spaf_train._checks import require, require_at_least
from spaf_train.objectives.contrast import ContrastConfig, neighbour_losses, pair_kinds, term_weights
from spaf_train.trainer.divergence import TrainingDivergedError
from spaf_train.trainer.optim import OptimizerConfig, learning_rate, make_optimizer
from spaf_train.trainer.progress import TrainingProgress

if TYPE_CHECKING:
    from spaf_train.stream.loader import BatchStream
    from spaf_train.stream.window import Cells
    from spaf_train.trainer.signals import StopRequest

_LARGEST = 5.0  # of a standardised expression; beyond it are counts of genes that hardly any cell has
_CELLS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowersConfig(ContrastConfig):
    """How many towers are trained first, on which terms, and what being like them weighs for the model."""

    towers: int = 3  # the mean of their similarities is what the model learns
    weight: float = 5.0  # of being like them
    hidden: int = 256  # units of the hidden layer
    rank: int = 64  # dimensions in which two cells are compared
    input_dropout: float = 0.2  # of genes
    dropout: float = 0.3  # of hidden units
    steps: int = 1500  # of each tower
    optimizer: OptimizerConfig = OptimizerConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("towers", "hidden", "rank", "steps"):
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
        hidden: Tensor = self.body(expression)
        return hidden


@dataclasses.dataclass(frozen=True)
class TowerStates:
    """What trained towers say of all cells of a split: the similarity of a and b is ``sum_r sign_r z_ar z_br``."""

    states: Tensor  # (n_cells, rank)
    signs: Tensor  # (rank,), 1 or -1
    axes: Tensor  # from what the towers compare to the states


class Standardised:
    """Log counts per 10,000 of a cell, each gene that any has with mean 0 and variance 1 over some cells.

    Parameters
    ----------
    cells
        Those that give means and variances.
    n_tokens
        Of the vocabulary.
    """

    def __init__(self, cells: Cells, n_tokens: int) -> None:
        self._n_tokens = n_tokens
        counts = self._counts(cells)
        self._found = np.flatnonzero(np.asarray(counts.sum(axis=0)).ravel() > 0)
        values = _logarithms(counts[:, self._found])
        self._mean, self._spread = values.mean(axis=0), values.std(axis=0) + 1e-3

    def __call__(self, cells: Cells) -> Tensor:
        """Return the values of some cells, cells x genes."""
        values = _logarithms(self._counts(cells)[:, self._found])
        values = (values - self._mean) / self._spread
        return torch.from_numpy(np.clip(values, -_LARGEST, _LARGEST).astype(np.float32))

    def _counts(self, cells: Cells) -> sparse.csr_matrix:
        row = np.repeat(np.arange(len(cells)), np.diff(cells.indptr))
        known = cells.tokens >= 0
        shape = (len(cells), self._n_tokens)
        return sparse.csr_matrix((cells.counts[known].astype(np.int64), (row[known], cells.tokens[known])), shape=shape)


def _logarithms(counts: sparse.csr_matrix) -> NDArray[np.float64]:
    from spaf_train.evaluation import log_normalize  # it judges objectives, and so knows them

    values: NDArray[np.float64] = log_normalize(counts).toarray()
    return values


def train_tower(
    train: BatchStream, expression: Tensor, config: TowersConfig, *, seed: int, stop: StopRequest | None = None
) -> Tower:
    """Train one tower by contrast of neighbours, on cells drawn as for the model; not to the end if asked to stop.

    Raises
    ------
    TrainingDivergedError
        If a loss or a gradient is not finite.
    """
    torch.manual_seed(seed)
    tower = Tower(expression.shape[1], config)
    optimizer = make_optimizer(tower, config.optimizer)
    weights = term_weights(config)
    cells = train.all_cells()
    draws = train.draws(seed)
    with TrainingProgress(config.steps, title="tower") as progress:
        for step in range(config.steps):
            if stop is not None and stop.received:
                break
            chosen = next(draws).left
            hidden = tower(expression[torch.from_numpy(chosen)])
            similarity = tower.pair_head.similarity(hidden, hidden)
            kinds = pair_kinds(cells.coordinates[chosen], train.distances, cells.slide[chosen])
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
                    "objectives.distillation.optimizer.learning_rate may help."
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
        Of `Standardised`.
    rank
        Dimensions of the states; fewer where the towers have fewer.
    """
    states = _projected(towers, expression)
    weight = torch.cat([tower.pair_head.weight / len(towers) for tower in towers]).double()
    gram = states.T @ states
    # A trace of identity, in case that a direction is used by no cell.
    root = torch.linalg.cholesky(gram + 1e-9 * gram.trace() * torch.eye(len(gram), dtype=gram.dtype))
    values, vectors = torch.linalg.eigh(root.T @ (weight[:, None] * root))
    strongest = values.abs().argsort(descending=True, stable=True)[:rank]
    axes = torch.linalg.solve_triangular(root.T, vectors[:, strongest], upper=True)
    axes = axes * values[strongest].abs().sqrt()
    return TowerStates((states @ axes).float(), values[strongest].sign().float(), axes)


@torch.no_grad()
def states_beside(towers: list[Tower], expression: Tensor, known: TowerStates) -> Tensor:
    """Return the states of other cells than those that `tower_states` was of, on the same axes."""
    return (_projected(towers, expression) @ known.axes).float()


def _projected(towers: list[Tower], expression: Tensor) -> Tensor:
    """Return what the heads of all towers compare, side by side, in double precision."""
    parts = expression.split(_CELLS_AT_ONCE)
    return torch.cat(
        [torch.cat([tower.pair_head.project(tower(part)) for part in parts]) for tower in towers], dim=1
    ).double()
