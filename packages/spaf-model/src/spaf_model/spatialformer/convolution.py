"""The convolution branch: gate, depthwise convolution along the ranks, masked batch norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from spaf_model.config import SpatialFormerConfig
from spaf_model.dropout import Dropout
from spaf_model.kernels import select_convolution
from spaf_model.spatialformer.gating import gate
from spaf_model.spatialformer.sequences import SequenceContext


def depthwise_convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Convolve each channel of x (B, L, D) along L with its own taps, weight (D, K); zeros beyond the ends.

    The result has the dtype of x, or that of autocast; `select_convolution` says in which precision it is computed.
    """
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    if select_convolution(x.device, dtype).name == "single":
        with torch.autocast(x.device.type, enabled=False):
            taps, shift = weight.float(), None if bias is None else bias.float()
            return _convolve(x.float(), taps, shift).to(dtype)
    return _convolve(x, weight, bias)


def _convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    n_channels, n_taps = weight.shape
    # As an image of height 1 in channels-last order, x is convolved as it lies in memory: on a CPU 6 to 16 times the
    # speed of conv1d, which copies to channels-first and back.
    image = x.transpose(1, 2).unsqueeze(2)
    y = F.conv2d(image, weight[:, None, None, :], bias, padding=(0, n_taps // 2), groups=n_channels)
    return y.squeeze(2).transpose(1, 2)


class MaskedBatchNorm(nn.Module):
    """Batch norm over the real positions of (B, L, D); with running statistics in evaluation."""

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, width: int, *, eps: float, momentum: float) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """Normalise with the statistics of the batch and update the running ones; padding comes out as 0."""
        real = context.pack(x)
        normed = F.batch_norm(
            real, self.running_mean, self.running_var, self.weight, self.bias, True, self.momentum, self.eps
        )
        return context.unpack(normed)

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale and shift (D,) that evaluation amounts to."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale


class ConvolutionMixer(nn.Module):
    """Linear, gate, depthwise convolution, batch norm, SiLU, dropout, linear."""

    def __init__(self, config: SpatialFormerConfig) -> None:
        super().__init__()
        width = config.width
        self.expand = nn.Linear(width, 2 * width)
        # Initialised as a convolution layer would be: uniform within 1 / sqrt(taps).
        bound = config.conv_kernel**-0.5
        self.depthwise = nn.Parameter(torch.empty(width, config.conv_kernel).uniform_(-bound, bound))
        self.norm = MaskedBatchNorm(width, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum)
        self.dropout = Dropout(config.conv_dropout)
        self.project = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """Mix x (B, L, D) along L."""
        x = context.zero_padding(gate(self.expand(x)))
        if self.training:
            x = self.norm(depthwise_convolution(x, self.depthwise, None), context)
        else:
            # The running statistics are constants, so the norm folds into the taps.
            scale, shift = self.norm.affine()
            x = depthwise_convolution(x, self.depthwise * scale.unsqueeze(1), shift)
        x = self.project(self.dropout(F.silu(x)))
        assert isinstance(x, torch.Tensor)
        return x
