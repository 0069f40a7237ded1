"""What is added to the scores of attention before the softmax, in the form that each kernel asks for.

A bias knows the padding of its batch too. There are three kinds: ``none``; ``alibi``, ``-slope_h |i - j|``, which
kernels can compute for themselves; and ``matrix``, any numbers for each head, query and key.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import torch

BiasKind = Literal["none", "alibi", "matrix"]
BIAS_KINDS: tuple[BiasKind, ...] = get_args(BiasKind)

# Of a score, its head, its query and its key: the score with the bias. FlexAttention compiles it.
Score = Callable[[Any, Any, Any, Any], Any]


def alibi_slopes(n_heads: int) -> list[float]:
    """Return the ALiBi slope of each head (Press et al. 2022, https://arxiv.org/abs/2108.12409).

    For n = 2^k heads the slopes are s, s^2, .. s^n with s = 2^(-8/n). For other n they are those of the largest power
    of two below n, followed by every other slope of the power of two above.
    """
    power = 1 << (n_heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 / power * (head + 1)) for head in range(power)]
    if power < n_heads:
        slopes += alibi_slopes(2 * power)[0::2][: n_heads - power]
    return slopes


class AttentionBias(ABC):
    """The bias of one batch and its padding; each form is built once.

    Parameters
    ----------
    mask
        Real positions, bool (B, L), or None where nothing is padding.
    device
        Where the scores are.
    """

    kind: ClassVar[BiasKind]

    def __init__(self, mask: torch.Tensor | None, *, device: torch.device) -> None:
        self.mask = mask
        self.device = device
        self._dense: dict[tuple[bool, torch.dtype], torch.Tensor] = {}

    @abstractmethod
    def take(self, cells: torch.Tensor) -> AttentionBias:
        """Return the bias of some cells of the batch."""

    @abstractmethod
    def score(self) -> Score:
        """Return the bias as a function of one score, without the padding."""

    @abstractmethod
    def _matrix(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the bias without the padding, (1, H, L, L) or what is broadcast to it."""

    def dense(self, *, padded: bool, dtype: torch.dtype) -> torch.Tensor:
        """Return the bias as (1, H, L, L), or with padded keys at -inf as (B, H, L, L), or what is broadcast to it."""
        padded = padded and self.mask is not None
        if (padded, dtype) not in self._dense:
            if padded:
                assert self.mask is not None
                bias = self.dense(padded=False, dtype=dtype).masked_fill(~self.mask[:, None, None, :], -math.inf)
            else:
                bias = self._matrix(dtype)
            self._dense[padded, dtype] = bias
        return self._dense[padded, dtype]


class NoBias(AttentionBias):
    """Nothing but the padding."""

    kind = "none"

    def take(self, cells: torch.Tensor) -> NoBias:
        """Return the bias of some cells of the batch."""
        return self if self.mask is None else NoBias(self.mask[cells], device=self.device)

    def score(self) -> Score:
        """Return the score as it is."""
        return lambda value, head, query, key: value

    def _matrix(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros((1, 1, 1, 1), dtype=dtype, device=self.device)


class AlibiBias(AttentionBias):
    """The symmetric ALiBi bias ``-slope_h |i - j|``.

    Parameters
    ----------
    n_heads, length
        H and L.
    """

    kind = "alibi"

    def __init__(self, n_heads: int, length: int, mask: torch.Tensor | None, *, device: torch.device) -> None:
        super().__init__(mask, device=device)
        self.slopes = torch.tensor(alibi_slopes(n_heads), dtype=torch.float32, device=device)
        self._length = length

    def take(self, cells: torch.Tensor) -> AlibiBias:
        """Return the bias of some cells of the batch."""
        if self.mask is None:
            return self
        return AlibiBias(len(self.slopes), self._length, self.mask[cells], device=self.device)

    def score(self) -> Score:
        """Return the score less the distance of its positions times the slope of its head."""
        slopes = self.slopes
        return lambda value, head, query, key: value - slopes[head] * (query - key).abs()

    def _matrix(self, dtype: torch.dtype) -> torch.Tensor:
        position = torch.arange(self._length, device=self.device, dtype=torch.float32)
        distance = (position[:, None] - position[None, :]).abs()
        return (-self.slopes[:, None, None] * distance).to(dtype).unsqueeze(0)


class MatrixBias(AttentionBias):
    """Any numbers, the same for all cells of a batch.

    Parameters
    ----------
    matrix
        (H, L, L), or (1, L, L) for the same in all heads; -inf where a query may not see a key. No gradient is
        computed for it by the kernel ``explicit`` on a CPU.
    """

    kind = "matrix"

    def __init__(self, matrix: torch.Tensor, mask: torch.Tensor | None) -> None:
        super().__init__(mask, device=matrix.device)
        self.matrix = matrix

    def take(self, cells: torch.Tensor) -> MatrixBias:
        """Return the bias of some cells of the batch."""
        return self if self.mask is None else MatrixBias(self.matrix, self.mask[cells])

    def score(self) -> Score:
        """Return the score plus the number of its head, query and key."""
        matrix = self.matrix
        if matrix.shape[0] == 1:
            return lambda value, head, query, key: value + matrix[0, query, key]
        return lambda value, head, query, key: value + matrix[head, query, key]

    def _matrix(self, dtype: torch.dtype) -> torch.Tensor:
        return self.matrix.to(dtype).unsqueeze(0)
