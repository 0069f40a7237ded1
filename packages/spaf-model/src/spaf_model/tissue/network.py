"""The network beside the closed form, and its training: a cell and its neighbour are to be alike, on two panels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree
from torch import nn
from torch.nn import functional as F

from spaf_model.tissue.neighbours import Reach, has_neighbour
from spaf_model.tissue.standardise import PearsonResiduals, Rows

if TYPE_CHECKING:
    from spaf_model.tissue.config import NetworkConfig

_INPUT_DROPOUT = 0.1
_WARM_UP = 30  # steps
_PATCH = 7.0  # radii from the centre of a patch that negatives from nearby are drawn from
_EXCLUDED = 1.5  # radii within which another cell is no negative
_LAST = 50  # steps that the loss at the end is a mean over
_CELLS_AT_A_TIME = 8_192


class PlaceNetwork(nn.Module):
    """The closed form, frozen, plus what a multilayer perceptron adds to it.

    Parameters
    ----------
    linear
        Loadings of the closed form, (n_genes, n_place).
    widths, dropout
        Of the hidden layers.
    """

    def __init__(self, linear: torch.Tensor, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        width, n_place = linear.shape
        layers: list[nn.Module] = [nn.Dropout(_INPUT_DROPOUT)]
        for hidden in widths:
            layers += [nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout)]
            width = hidden
        last = nn.Linear(width, n_place)
        nn.init.normal_(last.weight, std=0.1 / math.sqrt(width))  # it begins close to the closed form
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(*layers, last)
        self.widths = tuple(widths)
        self.linear: torch.Tensor
        self.register_buffer("linear", linear)

    def forward(self, residuals: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Return the place of cells, (n_cells, n_place), from their Pearson residuals.

        Parameters
        ----------
        residuals
            (n_cells, n_genes), or those of some genes alone: all others are 0.
        columns
            Which genes; None: all.
        """
        if columns is None:
            place: torch.Tensor = residuals @ self.linear + self.mlp(residuals)
            return place
        first = self.mlp[1]
        assert isinstance(first, nn.Linear)
        hidden = F.linear(self.mlp[0](residuals), first.weight[:, columns], first.bias)
        place = residuals @ self.linear[columns] + self.mlp[2:](hidden)
        return place

    def embed(self, slide: PearsonResiduals) -> Rows:
        """Return the place of all cells of a slide."""
        result = np.empty((slide.shape[0], self.linear.shape[1]), dtype=np.float32)
        columns = _columns(slide)
        with torch.inference_mode():
            for rows, chunk in slide.chunks():
                for start in range(0, len(chunk), _CELLS_AT_A_TIME):
                    part = slice(rows.start + start, min(rows.start + start + _CELLS_AT_A_TIME, rows.stop))
                    states = self(_aligned(chunk[start : start + _CELLS_AT_A_TIME]), columns)
                    result[part] = states.numpy()
        return result


def _aligned(values: Rows) -> torch.Tensor:
    """Copy values to where torch allocates: its products round by the alignment of what they read, NumPy's varies."""
    return torch.from_numpy(values).clone(memory_format=torch.contiguous_format)


def _columns(slide: PearsonResiduals) -> torch.Tensor | None:
    return None if slide.columns is None else torch.from_numpy(slide.columns)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSlide:
    """What training reads of a slide that has neighbours."""

    residuals: PearsonResiduals
    coordinates: NDArray[np.float64]
    graph: sparse.csr_array
    reach: Reach


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network, with what became of its loss."""

    network: PlaceNetwork
    loss: float  # mean of the last 50 steps, nats
    chance: float  # of guessing among the candidates of those steps, nats


def fit_network(
    slides: Sequence[TrainingSlide],
    linear: Rows,
    config: NetworkConfig,
    *,
    seed: int = 0,
    shares: Sequence[float] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Trained:
    """Train a network by contrast of neighbours with other cells of the same slide.

    A step takes one slide, in proportion to `shares` or, without them, to its cells; half of its anchors come from few
    patches, so that their negatives are nearby. Cells within 1.5 radii are no negatives. Equal seeds give equal bits on
    one machine with an equal number of threads; the random state of torch is restored.
    """
    draws = [_Draws(slide, config) for slide in slides]
    share = np.array([draw.pool.size for draw in draws] if shares is None else shares, dtype=np.float64)
    share /= share.sum()
    rng = np.random.default_rng(seed)
    losses: list[tuple[float, float]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PlaceNetwork(_aligned(linear), config.widths, config.dropout)
        optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        network.train()
        for step in range(config.steps):
            rate = min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1.0 + math.cos(math.pi * step / config.steps))
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rate
            draw = draws[int(rng.choice(len(draws), p=share))]
            loss, chance = _loss(network, draw, config, rng)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append((float(loss.detach()), chance))
            if on_step is not None:
                on_step(1)
    loss_at_end, chance_at_end = np.mean(losses[-_LAST:], axis=0)
    return Trained(network.eval(), float(loss_at_end), float(chance_at_end))


class _Draws:
    """Draws of anchors, with a neighbour of each, from one slide."""

    def __init__(self, slide: TrainingSlide, config: NetworkConfig) -> None:
        self.slide = slide
        self.columns = _columns(slide.residuals)
        self._has = has_neighbour(slide.graph)
        self.pool: NDArray[np.int64] = np.flatnonzero(self._has)
        self._tree = cKDTree(slide.coordinates)
        self._config = config

    def pairs(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return anchors and one neighbour of each, ascending anchors."""
        config, slide = self._config, self.slide
        n_local = int(config.batch * config.local)
        drawn = [rng.choice(self.pool, min(config.batch - n_local, self.pool.size), replace=False)]
        centres = slide.coordinates[rng.choice(self.pool, config.patches)]
        for around in self._tree.query_ball_point(centres, _PATCH * slide.reach.radius, return_sorted=True):
            near = np.asarray(around, dtype=np.int64)
            near = near[self._has[near]]
            drawn.append(rng.choice(near, min(near.size, n_local // config.patches), replace=False))
        anchors = np.unique(np.concatenate(drawn))
        indptr, indices = slide.graph.indptr, slide.graph.indices
        degree = indptr[anchors + 1] - indptr[anchors]
        return anchors, indices[indptr[anchors] + (rng.random(anchors.size) * degree).astype(np.int64)]

    def no_negatives(self, anchors: NDArray[np.int64], partners: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which other pairs are too near to be negatives, (n, n)."""
        places = self.slide.coordinates
        squares = ((places[anchors][:, None] - places[partners][None]) ** 2).sum(axis=-1)
        near: NDArray[np.bool_] = squares <= (_EXCLUDED * self.slide.reach.radius) ** 2
        np.fill_diagonal(near, False)
        return near


def _loss(
    network: PlaceNetwork, draw: _Draws, config: NetworkConfig, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Return the contrastive loss of one batch, and that of guessing."""
    anchors, partners = draw.pairs(rng)
    views = []
    for cells in (anchors, partners):
        residuals = draw.slide.residuals.rows(cells)
        kept = rng.uniform(*config.panel)  # the same genes for the whole view, scaled up for those left out
        residuals *= np.asarray(rng.random(residuals.shape[1]) < kept, dtype=np.float32) / np.float32(kept)
        views.append(F.normalize(network(_aligned(residuals), draw.columns), dim=1))
    near = draw.no_negatives(anchors, partners)
    logits = (views[0] @ views[1].T / config.temperature).masked_fill(torch.from_numpy(near), -1e4)
    target = torch.arange(anchors.size)
    loss = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
    return loss, float(np.log((~near).sum(axis=1)).mean())
