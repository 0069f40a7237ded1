"""Pairs: whether the two cells of an input are neighbours in the tissue."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from spaf_train._checks import require_at_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """The weight of telling neighbours from strangers."""

    enabled: bool = True  # False: the pair head is not trained
    weight: float = 1.0  # factor of this loss in the total

    def __post_init__(self) -> None:
        require_at_least("weight", self.weight, 0.0)


@dataclasses.dataclass(frozen=True)
class PairLabels:
    """Labels of the pairs of a batch."""

    labels: Tensor  # int64 (B,): 1 for neighbours, 0 otherwise
    positive_weight: float  # weight of a positive where a negative has 1: negatives drawn for each positive

    @property
    def weight(self) -> float:
        """What the summed loss of this batch is divided by: the sum of the weights of its pairs."""
        positives = float(self.labels.sum())
        return positives * self.positive_weight + (self.labels.numel() - positives)

    def to(self, device: torch.device) -> PairLabels:
        """Return the same on another device."""
        return PairLabels(self.labels.to(device), self.positive_weight)


def pairs_loss(logits: Tensor, labels: PairLabels) -> Tensor:
    """Return the weighted, summed cross-entropy of pair logits (B, 2)."""
    weights = torch.tensor([1.0, labels.positive_weight], device=logits.device)
    return functional.cross_entropy(logits.float(), labels.labels, weight=weights, reduction="sum")
