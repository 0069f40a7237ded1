"""What an answer that is the same for every input would score, and whether a model does any better."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

# A loss this share below that of the best constant answer. Half a percent of ln 2 is what well-calibrated scores of an
# AUROC of .55 bring (two normals d apart: the gain is d^2 / 8, the AUROC Phi(d / sqrt 2)).
LEAST_GAIN = 0.005
LEAST_AUROC = 0.55


@dataclasses.dataclass(frozen=True)
class Judgement:
    """How an objective stands on the inputs of a validation."""

    name: str
    loss: float
    error: float  # standard error of the loss, over batches; 0 where there is one batch
    constant: float  # loss of the best answer that is the same for every input
    auroc: float | None = None  # of two classes
    auroc_error: float = 0.0
    title: str = ""  # in sentences; that of its name if empty
    by_rank: bool = False  # whether ranking the two classes counts, where the probabilities are off
    baseline: str = ""  # what needs no training
    baseline_loss: float | None = None  # of the same answers
    baseline_auroc: float | None = None

    def figures(self) -> dict[str, Any]:
        """Return loss and AUROC at chance and of the baseline; at chance is the best answer that is always the same."""
        found = {
            "loss": self.loss,
            "chance": self.constant,
            "auroc": self.auroc,
            "baseline_loss": self.baseline_loss,
            "baseline_auroc": self.baseline_auroc,
        }
        known: dict[str, Any] = {
            name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)
        }
        return known | ({"baseline": self.baseline} if {"baseline_loss", "baseline_auroc"} & set(known) else {})

    @property
    def learnt(self) -> bool:
        """Whether the model beats the constant answer, beyond two standard errors and by more than a trace.

        What is ranked well counts too, with `by_rank`, where its probabilities are off: an over-confident model has a
        loss above that of the constant answer, and has learnt all the same.
        """
        if self.auroc is not None and math.isnan(self.auroc):
            return False
        if self.constant - self.loss > max(2.0 * self.error, LEAST_GAIN * self.constant):
            return True
        if not self.by_rank or self.auroc is None:
            return False
        return self.auroc > LEAST_AUROC and self.auroc - 2.0 * self.auroc_error > 0.5

    def sentence(self) -> str:
        """Say that nothing was learnt, with the figures behind it, or that it cannot be told."""
        what = self.title or self.name
        if self.auroc is not None and math.isnan(self.auroc):
            return (
                f"Whether anything was learnt of {what} cannot be told: the validation split has positives alone, or "
                "negatives alone."
            )
        ranks = "" if self.auroc is None or not self.by_rank else f", AUROC {self.auroc:.3f}"
        return (
            f"Nothing was learnt of {what}: on the validation split the loss is "
            f"{self.loss:.4f} (standard error {self.error:.4f}), and the best answer that is the same for every input "
            f"has {self.constant:.4f}{ranks}."
        )


def entropy(weights: NDArray[np.floating] | NDArray[np.integer]) -> float:
    """Return the least mean cross-entropy (nats) of an answer that is the same always, for classes of some weights."""
    weights = np.asarray(weights, dtype=np.float64)
    shares = weights[weights > 0] / weights.sum()
    return float(-(shares * np.log(shares)).sum())


def least_focal_loss(n_positive: float, n_negative: float, *, alpha: float, gamma: float) -> float:
    """Return the least mean focal loss of a logit that is the same always; see `spaf_train.objectives.focal_loss`."""
    return _best_focal(n_positive / (n_positive + n_negative), alpha, gamma)[1]


def best_focal_logit(share: float, *, alpha: float, gamma: float) -> float:
    """Return the logit that has `least_focal_loss` for a share of positives: nearer to 0 than the log odds."""
    return _best_focal(share, alpha, gamma)[0]


def _best_focal(share: float, alpha: float, gamma: float) -> tuple[float, float]:
    """Return the best logit that is the same always, and its mean focal loss."""

    def loss(logit: float) -> float:
        log_p, log_q = -np.logaddexp(0.0, -logit), -np.logaddexp(0.0, logit)
        of_positive = -alpha * np.exp(gamma * log_q) * log_p
        of_negative = -(1.0 - alpha) * np.exp(gamma * log_p) * log_q
        return float(share * of_positive + (1.0 - share) * of_negative)

    found = minimize_scalar(loss, bounds=(-40.0, 40.0), method="bounded")
    return float(found.x), float(found.fun)


def auroc_error(auroc: float, n_negative: int, n_positive: int) -> float:
    """Return the standard error of an AUROC (Hanley and McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747)."""
    if not n_negative or not n_positive:
        return math.nan
    one, other = auroc / (2.0 - auroc), 2.0 * auroc**2 / (1.0 + auroc)
    variance = auroc * (1.0 - auroc) + (n_positive - 1) * (one - auroc**2) + (n_negative - 1) * (other - auroc**2)
    return math.sqrt(max(variance, 0.0) / (n_negative * n_positive))
