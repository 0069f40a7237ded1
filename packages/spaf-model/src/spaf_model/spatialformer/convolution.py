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
    """Batch norm over the real positions of (B, L, D); with running statistics in evaluation.

    The running statistics move with every batch, unless `gather_statistics` has asked for sums: then batches add up,
    and `move_statistics` moves them by all of these at once. A layer that is computed a second time for its gradients
    says with `counts` that this time nothing is to be counted.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, width: int, *, eps: float, momentum: float) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.counts = True
        self._sums: torch.Tensor | None = None
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """Normalise with the statistics of the batch, which count for the running ones; padding comes out as 0."""
        real = context.pack(x)
        mean, var, momentum = self.running_mean, self.running_var, self.momentum
        if self._sums is not None or not self.counts:
            # With a momentum of 1 torch leaves the mean and the unbiased variance of the batch here.
            mean, var, momentum = torch.zeros_like(mean), torch.ones_like(var), 1.0
        normed = F.batch_norm(real, mean, var, self.weight, self.bias, True, momentum, self.eps)
        if self._sums is not None and self.counts:
            self._add(real.shape[0], mean, var)
        return context.unpack(normed)

    @torch.no_grad()
    def _add(self, n: int, mean: torch.Tensor, var: torch.Tensor) -> None:
        assert self._sums is not None
        mean, var = mean.double(), var.double()
        count = mean.new_full((1,), n)
        self._sums = self._sums.to(mean.device) + torch.cat([count, n * mean, (n - 1) * var + n * mean.square()])

    def gather_statistics(self) -> None:
        """Begin to add up the batches; what was added up before is forgotten."""
        self._sums = torch.zeros(2 * self.running_mean.numel() + 1, dtype=torch.float64)

    def release_statistics(self) -> None:
        """Let the running statistics move with every batch again."""
        self._sums = None

    def gathered_statistics(self) -> torch.Tensor:
        """Return what was added up, float64 (1 + 2 D,): number of positions, their sum, the sum of their squares."""
        assert self._sums is not None
        return self._sums.to(self.running_mean.device)

    @torch.no_grad()
    def move_statistics(self, sums: torch.Tensor) -> None:
        """Move the running statistics by the positions that some sums are of, and begin to add up anew."""
        width = self.running_mean.numel()
        count = float(sums[0])
        if count > 1.0:
            mean = sums[1 : width + 1] / count
            var = ((sums[width + 1 :] - count * mean.square()) / (count - 1.0)).clamp_min(0.0)
            for running, newest in ((self.running_mean, mean), (self.running_var, var)):
                running.copy_((1.0 - self.momentum) * running.double() + self.momentum * newest)
        self.gather_statistics()

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
