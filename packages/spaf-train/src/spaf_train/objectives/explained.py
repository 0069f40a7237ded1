"""How much of what genes differ by between cells a model explains, beside the mean of each gene."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from spaf_train.objectives.base import Loss, Scores
from spaf_train.objectives.chance import LEAST_GAIN

if TYPE_CHECKING:
    from spaf_train.objectives.counts import Answers

_TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class Explained:
    """How an objective stands beside the mean of each gene, or a baseline that is better than that.

    Attributes
    ----------
    share
        Of the deviance that the gene means leave: 1 is a perfect answer, 0 one that is no better than they.
    baseline
        Share that `baseline_name` explains of the same; None where there is none but the gene means.
    """

    title: str
    share: float
    baseline: float | None = None
    baseline_name: str = ""

    @property
    def learnt(self) -> bool:
        """Whether the model explains more than a trace, and more than the baseline."""
        return self.share > LEAST_GAIN and (self.baseline is None or self.share > self.baseline)

    def figures(self) -> dict[str, Any]:
        """Return the share that is explained, at chance (the mean of each gene) 0, and that of the baseline."""
        if not np.isfinite(self.share):
            return {}
        found: dict[str, Any] = {"explained": float(self.share)}
        if self.baseline is not None and np.isfinite(self.baseline):
            found |= {"baseline": self.baseline_name, "baseline_explained": float(self.baseline)}
        return found

    def sentence(self) -> str:
        """Say that nothing was learnt, with the figures behind it."""
        if self.baseline is not None and self.share > LEAST_GAIN:
            return (
                f"Of {self.title} no more was learnt than {self.baseline_name} says: on the validation split it "
                f"explains {self.share:.3f} of what the gene means leave, and {self.baseline_name} {self.baseline:.3f}."
            )
        return (
            f"Nothing was learnt of {self.title}: on the validation split it explains {self.share:.3f} of what the "
            "mean of each gene leaves."
        )


class ExplainedScores(Scores):
    """What validation adds up, gene by gene: what the answers leave, and what the gene means would.

    Deviances are those of Poisson counts, with the counts of a cell as exposure, or squared errors of values. The mean
    of a gene is that of the judged cells themselves, which is the best that a mean can do.
    """

    def __init__(self) -> None:
        self._sums = np.zeros((5, 0))
        self._baseline = 0.0  # deviance of what `Loss.answer` brings as a baseline
        self._has_baseline = False

    def add(self, loss: Loss, targets: Any) -> None:
        """Add the answers to a batch; `loss.answer` is float (N, 4 or 5)."""
        ids, truth, answer, totals, *more = loss.answer.double().cpu().unbind(1)
        counts = not bool(torch.isnan(totals).any())
        left = _deviance(truth, answer.exp()) if counts else (answer - truth).square()
        own = torch.special.xlogy(truth, truth / totals.clamp(min=_TINY)) if counts else truth.square()
        exposure = totals if counts else torch.ones_like(truth)
        n = int(ids.max()) + 1 if ids.numel() else 0
        self._grow(n)
        index = ids.long().numpy()
        for row, values in enumerate((truth, exposure, own, left)):
            self._sums[row, :n] += np.bincount(index, weights=values.numpy(), minlength=n)
        self._sums[4, :n] += np.bincount(index, minlength=n) * (1.0 if counts else 0.0)
        if more:
            self._has_baseline = True
            of_baseline = _deviance(truth, more[0].exp()) if counts else (more[0] - truth).square()
            self._baseline += float(of_baseline.sum())

    def _grow(self, n: int) -> None:
        if n > self._sums.shape[1]:
            self._sums = np.pad(self._sums, ((0, 0), (0, n - self._sums.shape[1])))

    def parts(self) -> tuple[NDArray[np.float64], float | None]:
        """Return the sums of each gene, and the deviance of the baseline."""
        return self._sums, self._baseline if self._has_baseline else None


def packed(answers: Answers, baseline: torch.Tensor | None = None) -> torch.Tensor:
    """Return answers as `ExplainedScores` reads them, (N, 4), or (N, 5) with the answers of a baseline."""
    totals = torch.full_like(answers.truth, torch.nan) if answers.totals is None else answers.totals
    columns = [answers.ids.float(), answers.truth, answers.answer.detach(), totals]
    return torch.stack([*columns, *([] if baseline is None else [baseline])], dim=1).detach()


def explained_shares(parts: Sequence[tuple[NDArray[np.float64], float | None]]) -> tuple[float, float | None]:
    """Return the share that answers explain of what the gene means leave, and that of the baseline, if there is one."""
    n = max(sums.shape[1] for sums, _ in parts)
    total = np.sum([np.pad(sums, ((0, 0), (0, n - sums.shape[1]))) for sums, _ in parts], axis=0)
    truth, exposure, own, left, counted = total
    there = exposure > 0
    means = truth[there] / exposure[there]
    if counted.any():
        of_means = 2.0 * (own[there] - truth[there] * np.log(np.maximum(means, _TINY))).sum()
    else:
        of_means = (own[there] - exposure[there] * means**2).sum()
    if not of_means > 0.0:
        return float("nan"), None
    baselines = [baseline for _, baseline in parts if baseline is not None]
    return float(1.0 - left.sum() / of_means), float(1.0 - sum(baselines) / of_means) if baselines else None


def _deviance(counts: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Return the deviance of Poisson counts from their means, element by element."""
    means = means.clamp(min=_TINY)
    deviance: torch.Tensor = 2.0 * (torch.special.xlogy(counts, counts / means) - (counts - means))
    return deviance
