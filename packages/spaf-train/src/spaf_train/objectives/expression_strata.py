"""Strata of expression of gene pairs: what a pair is by the counts of its two genes alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaf_train.objectives.chance import auroc_error, best_focal_logit

_LEVELS = 7  # of counts, by powers of two
N_STRATA = _LEVELS**2  # by the smaller and the larger count of a pair
_GRID = np.linspace(-16.0, 16.0, 129)  # log odds at which the best logit is known; linear between


def strata(smaller: Tensor, larger: Tensor) -> Tensor:
    """Return the stratum of gene pairs by the levels of both counts: 1, 2 and 3, .. 64 and more."""
    low, high = (torch.log2(each.clamp(min=1.0)).floor().clamp(max=_LEVELS - 1).long() for each in (smaller, larger))
    return _LEVELS * low + high


def offsets(stratum: Tensor, targets: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Return for each pair of a batch the best logit that is the same for all pairs of its stratum, by focal loss.

    Half a pair of each class is added to each stratum, so that a few pairs do not decide.
    """
    positive = torch.zeros(N_STRATA, device=targets.device).index_add_(0, stratum, targets.float()) + 0.5
    negative = torch.zeros(N_STRATA, device=targets.device).index_add_(0, stratum, 1.0 - targets.float()) + 0.5
    log_odds = (positive / negative).log().cpu().numpy()
    best = np.interp(log_odds, _GRID, _best_logits(alpha, gamma)).astype(np.float32)
    return torch.from_numpy(best).to(targets.device)[stratum]


@functools.cache
def _best_logits(alpha: float, gamma: float) -> NDArray[np.float64]:
    return np.array([best_focal_logit(1.0 / (1.0 + math.exp(-odds)), alpha=alpha, gamma=gamma) for odds in _GRID])


def within_strata(found: Sequence[tuple[float, int, int]]) -> tuple[float, float]:
    """Return the AUROC over strata and its standard error, strata weighed by their harmonic numbers of pairs.

    Parameters
    ----------
    found
        AUROC, negatives and positives of each stratum.
    """
    both = [(value, n, p) for value, n, p in found if n and p]
    if not both:
        return math.nan, math.nan
    weights = np.array([n * p / (n + p) for _, n, p in both])
    weights /= weights.sum()
    errors = [auroc_error(value, n, p) for value, n, p in both]
    return float(weights @ [value for value, _, _ in both]), float(np.sqrt(np.square(weights * errors).sum()))
