"""Losses and scores on the batches of the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from spaf_train.objectives import (
    Loss,
    Objective,
    ObjectiveSet,
    Targets,
    Total,
)
from spaf_train.objectives.base import Verdict
from spaf_train.trainer.module import encode
from spaf_train.trainer.verdicts import figures_of

if TYPE_CHECKING:
    from spaf_model import Network
    from spaf_train.stream.batch import Batch
    from spaf_train.trainer.distributed import Ranks
    from spaf_train.trainer.signals import StopRequest


@dataclasses.dataclass(frozen=True)
class Validation:
    """What a look at the validation split gave.

    Attributes
    ----------
    metrics
        The columns of the metrics log that can be computed; see `validate`.
    judgements
        How each objective that was asked stands beside a constant answer.
    """

    metrics: dict[str, float]
    judgements: dict[str, Verdict]

    def not_learnt(self) -> dict[str, str]:
        """Return a sentence for each objective of which nothing was learnt."""
        return {name: found.sentence() for name, found in self.judgements.items() if not found.learnt}

    def verdicts(self) -> dict[str, dict[str, Any]]:
        """Return how each objective stands beside chance and its baseline, as plain values."""
        return {name: figures_of(verdict) for name, verdict in self.judgements.items()}


def validate(
    network: Network[Any],
    batches: Iterable[Batch],
    objectives: ObjectiveSet,
    ranks: Ranks,
    *,
    autocast: torch.dtype | None = None,
) -> dict[str, float]:
    """Evaluate a network on batches.

    Objectives that hide something are asked of the input in which it is hidden, the others of the whole one, which is
    what the model is used on.

    Parameters
    ----------
    network
        The network; it is in evaluation mode meanwhile, and in its former mode after.
    batches
        This rank's share of the batches.
    objectives
        Which objectives there are.
    ranks
        The processes that share the batches.
    autocast
        Lower precision to compute in, or None.

    Returns
    -------
    dict
        The columns of the metrics log that can be computed: the mean loss of each objective, `loss` as their plain
        sum, and the other columns of each, such as `auroc_pairs` (neighbours against all drawn negatives).
        What the batches do not ask, such as co-localised genes where nothing is known of them, is left out.

    Notes
    -----
    Memory is that of a batch and of a few `ScoreSummary`, however many gene pairs there are.
    """
    found = look(network, batches, objectives, ranks, autocast=autocast)
    assert found is not None, "nobody asks it to stop"
    return found.metrics


@torch.inference_mode()
def look(
    network: Network[Any],
    batches: Iterable[Batch],
    objectives: ObjectiveSet,
    ranks: Ranks,
    *,
    autocast: torch.dtype | None = None,
    stop: StopRequest | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Validation | None:
    """Evaluate a network on batches as `validate` does, and judge its losses beside those of constant answers.

    Parameters
    ----------
    network, batches, objectives, ranks, autocast
        As for `validate`.
    stop
        Looked at between two batches.
    on_batch
        Called after each batch with the number of those so far.

    Returns
    -------
    Validation or None
        None on every process if any of them was asked to stop.
    """
    asked = objectives.make()
    sums = {name: _Sums(objective) for name, objective in asked.items()}
    was_training = network.training
    network.eval()
    try:
        for number, batch in enumerate(batches, start=1):
            if stop is not None and stop.received:
                break
            weights = batch.weights()
            batch = batch.to(ranks.device)
            with torch.autocast(ranks.device.type, dtype=autocast, enabled=autocast is not None):
                for name, loss in _losses(network, batch, asked).items():
                    sums[name].add(loss, weights[name], batch.targets[name])
            if on_batch is not None:
                on_batch(number)
    finally:
        network.train(was_training)

    # Processes have unlike numbers of batches, and so cannot agree on when to stop before they are through.
    own_parts = {name: own.parts() for name, own in sums.items()}
    stopping, gathered = zip(*ranks.gather((stop is not None and stop.received, own_parts)), strict=True)
    if any(stopping):
        return None
    losses: dict[str, float] = {}
    metrics: dict[str, float] = {}
    judgements = {}
    for name, objective in asked.items():
        moments, scores = zip(*(part[name] for part in gathered), strict=True)
        total = _total(np.sum(moments, axis=0))
        if not total.weight:
            continue
        losses[f"loss_{name}"] = total.loss
        found, judgements[name] = objective.judge(total, scores)
        metrics |= found
    whole = sum(losses.values()) if losses else float("nan")
    return Validation({**losses, **metrics, "loss": whole}, judgements)


def _losses(network: Network[Any], batch: Batch, asked: Mapping[str, Objective]) -> dict[str, Loss]:
    """Return the losses of a batch: of the hidden input by the objectives that hide, of the whole one by the others."""
    losses: dict[str, Loss] = {}
    for hides, tokens in ((True, batch.masked), (False, batch.unmasked)):
        chosen = {name: objective for name, objective in asked.items() if objective.hides == hides}
        if chosen:
            hidden = encode(network, tokens, batch.parts)
            losses |= {
                name: objective.loss(network, hidden, batch.targets[name], tokens) for name, objective in chosen.items()
            }
    return losses


class _Sums:
    """What one process adds up for one objective."""

    def __init__(self, objective: Objective) -> None:
        # Loss, weight, number of batches, squares of the loss, products of the two, squares of the weight.
        self.moments = np.zeros(6)
        self.scores = objective.new_scores()

    def add(self, loss: Loss, weight: float, targets: Targets) -> None:
        if weight > 0.0:
            value = float(loss.sum)
            self.moments += (value, weight, 1.0, value * value, value * weight, weight * weight)
            self.scores.add(loss, targets)

    def parts(self) -> tuple[NDArray[np.float64], Any]:
        return self.moments, self.scores.parts()


def _total(moments: NDArray[np.float64]) -> Total:
    """Return the mean loss, with its standard error as a ratio of two sums over batches, which are random draws."""
    loss, weight, n_batches, *squares = moments.tolist()
    mean = loss / weight if weight else float("nan")
    if n_batches < 2:
        return Total(mean, 0.0, weight)
    of_losses, products, of_weights = squares
    residuals = max(of_losses - 2.0 * mean * products + mean**2 * of_weights, 0.0)
    return Total(mean, float((residuals * n_batches / (n_batches - 1)) ** 0.5 / weight), weight)
