"""Linear maps with fixed weights, laid out for the matmul path of inference (`spaf_model.kernels.select_matmul`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from spaf_model.kernels import MatmulName


class PackedLinear(ABC):
    """A linear map of the last dimension with fixed weights; no gradients."""

    @abstractmethod
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return W x + b."""

    @abstractmethod
    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """Return SiLU(W x + b)."""

    @abstractmethod
    def relu(self, x: torch.Tensor) -> torch.Tensor:
        """Return max(W x + b, 0)."""

    @abstractmethod
    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Return (W x + b) * factor."""

    @abstractmethod
    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        """Return (W x + b) + term."""


class TorchLinear(PackedLinear):
    """Torch's own linear map: any device, any dtype, autocast."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return W x + b."""
        return F.linear(x, self.weight, self.bias)

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """Return SiLU(W x + b)."""
        return F.silu(self(x), inplace=True)

    def relu(self, x: torch.Tensor) -> torch.Tensor:
        """Return max(W x + b, 0)."""
        return F.relu(self(x), inplace=True)

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Return (W x + b) * factor."""
        return self(x).mul_(factor)

    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        """Return (W x + b) + term, in the dtype of the term."""
        return term + self(x)


class OneDNNLinear(PackedLinear):
    """oneDNN's linear map in single precision on a CPU: weights in its blocked layout, the rest in its epilogue."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self.bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return W x + b."""
        return self._unary(x, "none")

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """Return SiLU(W x + b)."""
        return self._unary(x, "swish")

    def relu(self, x: torch.Tensor) -> torch.Tensor:
        """Return max(W x + b, 0)."""
        return self._unary(x, "relu")

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Return (W x + b) * factor."""
        return self._binary(x, factor, "mul")

    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        """Return (W x + b) + term."""
        return self._binary(x, term, "add")

    def _unary(self, x: torch.Tensor, function: str) -> torch.Tensor:
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, function, [], "")
        return y

    def _binary(self, x: torch.Tensor, other: torch.Tensor, function: str) -> torch.Tensor:
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, self.bias, function)
        return y


def pack_linear(weight: torch.Tensor, bias: torch.Tensor, *, dtype: torch.dtype, matmul: MatmulName) -> PackedLinear:
    """Pack weight (out, in) and bias (out,) in a dtype for a matmul path."""
    weight, bias = weight.to(dtype), bias.to(dtype)
    return OneDNNLinear(weight, bias) if matmul == "onednn" else TorchLinear(weight, bias)


Pack = Callable[[torch.Tensor, torch.Tensor], PackedLinear]  # of weight (out, in) and bias (out,)
