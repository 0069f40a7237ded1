"""Losses and scores on the batches of the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaf_model import SpatialFormerNetwork
from spaf_train.objectives import ObjectivesConfig, focal_loss, masked_genes_loss, pairs_loss
from spaf_train.objectives.chance import Judgement, auroc_error, entropy, least_focal_loss
from spaf_train.objectives.score_summary import ScoreSummary, auroc_of
from spaf_train.stream.loader import Batch
from spaf_train.trainer.distributed import Ranks
from spaf_train.trainer.module import colocalization_logits, masked_gene_logits


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
    judgements: dict[str, Judgement]

    def not_learnt(self) -> dict[str, str]:
        """Return a sentence for each objective of which nothing was learnt."""
        return {name: found.sentence() for name, found in self.judgements.items() if not found.learnt}


def validate(
    network: SpatialFormerNetwork,
    batches: Iterable[Batch],
    objectives: ObjectivesConfig,
    ranks: Ranks,
    *,
    autocast: torch.dtype | None = None,
) -> dict[str, float]:
    """Evaluate a network on batches.

    Masked genes are asked of the masked input; cell pairs and co-localisation of the unmasked one, which is what the
    model is used on.

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
        sum, `accuracy_masked_genes`, `auroc_pairs` (neighbours against all drawn negatives), `auroc_colocalization`.
        What the batches do not ask, such as co-localised genes where nothing is known of them, is left out.

    Notes
    -----
    Memory is that of a batch and of two `ScoreSummary`, however many gene pairs there are.
    """
    return look(network, batches, objectives, ranks, autocast=autocast).metrics


@torch.inference_mode()
def look(
    network: SpatialFormerNetwork,
    batches: Iterable[Batch],
    objectives: ObjectivesConfig,
    ranks: Ranks,
    *,
    autocast: torch.dtype | None = None,
) -> Validation:
    """Evaluate a network on batches as `validate` does, and judge its losses beside those of constant answers."""
    sums = {name: _Sums() for name in objectives.enabled}
    was_training = network.training
    network.eval()
    try:
        for batch in batches:
            weights = batch.weights()
            batch = batch.to(ranks.device)
            with torch.autocast(ranks.device.type, dtype=autocast, enabled=autocast is not None):
                losses = _losses(network, batch, objectives, sums)
            for name, loss in losses.items():
                sums[name].add(float(loss), weights[name])
    finally:
        network.train(was_training)

    gathered: list[Mapping[str, Any]] = ranks.gather({name: own.parts() for name, own in sums.items()})
    metrics: dict[str, float] = {}
    judgements = {}
    for name in objectives.enabled:
        total = _Total([part[name] for part in gathered])
        if not total.weight:
            continue
        metrics[f"loss_{name}"] = total.loss
        judgements[name] = total.judge(name, objectives)
        if name == "masked_genes":
            metrics["accuracy_masked_genes"] = total.found / total.weight
        else:
            metrics[f"auroc_{name}"] = total.auroc
    losses_of_all = [value for name, value in metrics.items() if name.startswith("loss_")]
    metrics["loss"] = sum(losses_of_all) if losses_of_all else float("nan")
    return Validation(metrics, judgements)


def _losses(
    network: SpatialFormerNetwork, batch: Batch, objectives: ObjectivesConfig, sums: Mapping[str, _Sums]
) -> dict[str, Tensor]:
    """Return the summed losses of a batch, and note its answers."""
    losses: dict[str, Tensor] = {}
    if batch.masked_genes is not None:
        targets = batch.masked_genes.targets
        logits = masked_gene_logits(network, network.encode(batch.masked), batch)
        losses["masked_genes"], found = masked_genes_loss(logits, targets)
        sums["masked_genes"].count(targets, found, logits.shape[-1])
    if batch.colocalization is None and batch.pairs is None:
        return losses
    hidden = network.encode(batch.unmasked)
    if batch.colocalization is not None:
        config, of_pairs = objectives.colocalization, batch.colocalization.targets
        logits = colocalization_logits(network, hidden, batch)
        losses["colocalization"] = focal_loss(logits, of_pairs, alpha=config.alpha, gamma=config.gamma)
        sums["colocalization"].rank(logits, of_pairs)
    if batch.pairs is not None:
        logits = network.pair_logits(hidden).float()
        losses["pairs"] = pairs_loss(logits, batch.pairs)
        sums["pairs"].rank(logits[:, 1] - logits[:, 0], batch.pairs.labels, weight=batch.pairs.positive_weight)
    return losses


class _Sums:
    """What one process adds up for one objective."""

    def __init__(self) -> None:
        # Loss, weight, number of batches, squares of the loss, products of the two, squares of the weight.
        self.moments = np.zeros(6)
        self.found = 0.0
        self.classes = np.zeros(0, dtype=np.int64)  # how often each gene was hidden
        self.positive_weight = 1.0
        self.scores = ScoreSummary()

    def add(self, loss: float, weight: float) -> None:
        if weight > 0.0:
            self.moments += (loss, weight, 1.0, loss * loss, loss * weight, weight * weight)

    def count(self, targets: Tensor, found: Tensor, n_classes: int) -> None:
        counts = np.bincount(targets.cpu().numpy(), minlength=n_classes)
        self.classes = self.classes + counts if self.classes.size else counts
        self.found += float(found)

    def rank(self, scores: Tensor, labels: Tensor, *, weight: float = 1.0) -> None:
        self.positive_weight = weight
        self.scores.add(scores.float().cpu().numpy(), labels.cpu().numpy())

    def parts(self) -> tuple[Any, ...]:
        return self.moments, self.found, self.classes, self.positive_weight, self.scores.parts()


class _Total:
    """The sums of one objective over all processes."""

    def __init__(self, parts: list[tuple[Any, ...]]) -> None:
        moments, found, classes, weights, scores = zip(*parts, strict=True)
        total, self.weight, self.n_batches, *self._squares = np.sum(moments, axis=0).tolist()
        self.loss = total / self.weight if self.weight else float("nan")
        self.found = sum(found)
        counted = [of_rank for of_rank in classes if of_rank.size]
        self.classes: NDArray[np.int64] = np.sum(counted, axis=0) if counted else np.zeros(0, dtype=np.int64)
        self.positive_weight = max(weights)
        self.auroc, self.n_negative, self.n_positive = auroc_of(scores)

    def judge(self, name: str, objectives: ObjectivesConfig) -> Judgement:
        if name == "masked_genes":
            return Judgement(name, self.loss, self._error(), entropy(self.classes))
        error = auroc_error(self.auroc, self.n_negative, self.n_positive)
        if name == "pairs":
            constant = entropy(np.array([self.n_positive * self.positive_weight, self.n_negative]))
        else:
            config = objectives.colocalization
            constant = least_focal_loss(self.n_positive, self.n_negative, alpha=config.alpha, gamma=config.gamma)
        return Judgement(name, self.loss, self._error(), constant, self.auroc, error)

    def _error(self) -> float:
        """Return the standard error of the loss as a ratio of two sums over batches, which are random draws."""
        if self.n_batches < 2:
            return 0.0
        of_losses, products, of_weights = self._squares
        residuals = max(of_losses - 2.0 * self.loss * products + self.loss**2 * of_weights, 0.0)
        return float((residuals * self.n_batches / (self.n_batches - 1)) ** 0.5 / self.weight)
