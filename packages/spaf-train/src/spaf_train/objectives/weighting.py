"""How the losses of several objectives become one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightingConfig:
    """How objectives are weighted against each other."""

    method: Literal["uncertainty", "fixed"] = "uncertainty"  # learned scales, or the configured weights alone


class ObjectiveWeighting(nn.Module):
    """Total loss of several objectives.

    ``uncertainty`` is sum of ``f_k (exp(-s_k) L_k + s_k)`` with a learned s_k for each objective (Kendall et al. 2018,
    "Multi-task learning using uncertainty to weigh losses"), ``fixed`` is sum of ``f_k L_k``; f_k is the configured
    weight of the objective times its schedule. The factor stands outside, so that a fading objective fades: inside,
    s_k would follow the fading loss down and undo it.

    Parameters
    ----------
    names
        The objectives.
    method
        See `WeightingConfig`.
    """

    def __init__(self, names: Sequence[str], method: Literal["uncertainty", "fixed"]) -> None:
        super().__init__()
        self.method = method
        learned = method == "uncertainty"
        self.log_scales = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in names if learned})

    def forward(self, losses: Mapping[str, Tensor], factors: Mapping[str, float], share: float = 1.0) -> Tensor:
        """Return the total of the losses, each with the factor of its name.

        Where a step is summed over several batches, `losses` are the parts of one batch and `share` is the part of
        the learned scales that this batch adds; the shares of a step sum to 1.
        """
        terms = []
        for name, loss in losses.items():
            if self.method == "uncertainty":
                loss = torch.exp(-self.log_scales[name]) * loss + share * self.log_scales[name]
            terms.append(factors[name] * loss)
        return torch.stack(terms).sum()
