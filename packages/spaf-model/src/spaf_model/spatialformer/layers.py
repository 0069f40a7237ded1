"""The layers of a SpatialFormer, from token ids to the output of a layer; `network` puts them together.

Shapes are in names: x_BLD is (B, L, D). The letters here and in `network`, `heads` and `inference`:

=  ======================================================
B  sequences of a batch: cells, or pairs of cells
L  positions of a sequence, padding included
N  real positions of a batch, all sequences together
D  width
H  attention heads
K  dimensions of a head, D = H K
T  taps of the convolution
M  width of the gated MLP before its gate
=  ======================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from spaf_model.dropout import Dropout, draws_fast
from spaf_model.errors import InputError
from spaf_model.kernels import AttentionBias, KernelChoice, attend, attention_weights, select_convolution

if TYPE_CHECKING:
    from spaf_model.spatialformer.config import SpatialFormerConfig

N_TYPES = 3  # padding, first cell, second cell

# Of cells x_BLD and their places in the batch, None for all of it.
Branch = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class SequenceContext:
    """What all layers of one forward pass share, worked out once."""

    mask: torch.Tensor | None  # real positions, bool (B, L); None where nothing is padding
    positions: torch.Tensor | None  # positions of the real tokens in the flat batch; None where nothing is padding
    shape: tuple[int, int]  # (B, L)
    bias: AttentionBias
    kernel: KernelChoice

    def take(self, cells: torch.Tensor) -> SequenceContext:
        """Return the context of some cells of the batch."""
        shape = (cells.numel(), self.shape[1])
        if self.mask is None:
            return dataclasses.replace(self, shape=shape)
        mask = self.mask[cells]
        positions = mask.reshape(-1).nonzero().squeeze(1)
        return dataclasses.replace(self, mask=mask, positions=positions, shape=shape, bias=self.bias.take(cells))

    def zero_padding(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """Return x with zeros at padding."""
        return x_BLD if self.mask is None else x_BLD * self.mask.unsqueeze(-1)

    def pack(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """Return the real positions, (N, D)."""
        flat = x_BLD.reshape(-1, x_BLD.shape[-1])
        return flat if self.positions is None else flat.index_select(0, self.positions)

    def unpack(self, x_ND: torch.Tensor) -> torch.Tensor:
        """Undo `pack`, with zeros at padding."""
        if self.positions is not None:
            flat = x_ND.new_zeros((self.shape[0] * self.shape[1], x_ND.shape[-1]))
            x_ND = flat.index_copy(0, self.positions, x_ND)
        return x_ND.reshape(*self.shape, x_ND.shape[-1])


class TokenEmbedding(nn.Module):
    """Sum of the tables over tokens, types and (optionally) pre-trained gene vectors; dropout; LayerNorm.

    With values beside the ranks, a further table is added, each row times the value at its position: what a linear map
    of all values of a cell would have as its columns.
    """

    def __init__(self, config: SpatialFormerConfig) -> None:
        super().__init__()
        assert config.n_tokens is not None
        self.tokens = nn.Embedding(config.n_tokens, config.width)
        self.types = nn.Embedding(N_TYPES, config.width)
        self.types.weight.requires_grad_(config.train_type_embedding)
        self.gene_spatial = nn.Embedding(config.n_tokens, config.width) if config.gene_spatial_embedding else None
        self.gene_values = nn.Embedding(config.n_tokens, config.width) if config.gene_values != "none" else None
        self.dropout = Dropout(config.embedding_dropout)
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self, ids_BL: torch.Tensor, types_BL: torch.Tensor, values_BL: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return x_BLD of ids, types and, where the model reads them, values."""
        x_BLD = self.tokens(ids_BL) + self.types(types_BL)
        if self.gene_spatial is not None:
            x_BLD = x_BLD + self.gene_spatial(ids_BL)
        if self.gene_values is not None:
            if values_BL is None:
                raise InputError("The model reads values of genes beside their ranks, and these cells have none.")
            x_BLD = x_BLD + values_BL.unsqueeze(-1) * self.gene_values(ids_BL)
        normed_BLD: torch.Tensor = self.norm(self.dropout(x_BLD))
        return normed_BLD


def gate(x: torch.Tensor) -> torch.Tensor:
    """Return the first half of the last dimension times SiLU of the second."""
    value, control = x.chunk(2, dim=-1)
    if torch.is_grad_enabled():
        return value * F.silu(control)
    # Without gradients nothing needs the SiLU afterwards, so its memory, the widest there is, is used again.
    return F.silu(control).mul_(value)


class GatedMLP(nn.Module):
    """Linear D to M, gate, dropout, linear M / 2 to D, at each position apart."""

    def __init__(self, config: SpatialFormerConfig) -> None:
        super().__init__()
        hidden = config.mlp_expansion * config.width
        self.expand = nn.Linear(config.width, hidden)
        self.dropout = Dropout(config.mlp_dropout)
        self.project = nn.Linear(hidden // 2, config.width)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """Transform each position of x."""
        y_BLD: torch.Tensor = self.project(self.dropout(gate(self.expand(x_BLD))))
        return y_BLD


def depthwise_convolution(x_BLD: torch.Tensor, taps_DT: torch.Tensor, bias_D: torch.Tensor | None) -> torch.Tensor:
    """Convolve each channel of x along L with its own taps; zeros beyond the ends.

    The result has the dtype of x, or that of autocast; `select_convolution` says in which precision it is computed.
    """
    on = x_BLD.device.type
    dtype = torch.get_autocast_dtype(on) if torch.is_autocast_enabled(on) else x_BLD.dtype
    if select_convolution(x_BLD.device, dtype).name == "single":
        with torch.autocast(on, enabled=False):
            taps_DT, bias_D = taps_DT.float(), None if bias_D is None else bias_D.float()
            return _convolve(x_BLD.float(), taps_DT, bias_D).to(dtype)
    return _convolve(x_BLD, taps_DT, bias_D)


def _convolve(x_BLD: torch.Tensor, taps_DT: torch.Tensor, bias_D: torch.Tensor | None) -> torch.Tensor:
    n_channels, n_taps = taps_DT.shape
    # As an image of height 1 in channels-last order, x is convolved as it lies in memory: on a CPU 6 to 16 times the
    # speed of conv1d, which copies to channels-first and back.
    x_BD1L = x_BLD.transpose(1, 2).unsqueeze(2)
    y_BD1L = F.conv2d(x_BD1L, taps_DT[:, None, None, :], bias_D, padding=(0, n_taps // 2), groups=n_channels)
    return y_BD1L.squeeze(2).transpose(1, 2)


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

    def forward(self, x_BLD: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """Normalise with the statistics of the batch, which count for the running ones; padding comes out as 0."""
        real_ND = context.pack(x_BLD)
        mean, var, momentum = self.running_mean, self.running_var, self.momentum
        if self._sums is not None or not self.counts:
            # With a momentum of 1 torch leaves the mean and the unbiased variance of the batch here.
            mean, var, momentum = torch.zeros_like(mean), torch.ones_like(var), 1.0
        normed_ND = F.batch_norm(real_ND, mean, var, self.weight, self.bias, True, momentum, self.eps)
        if self._sums is not None and self.counts:
            self._add(real_ND.shape[0], mean, var)
        return context.unpack(normed_ND)

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
        scale_D = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale_D, self.bias - self.running_mean * scale_D


class ConvolutionMixer(nn.Module):
    """Linear, gate, depthwise convolution along the ranks, batch norm, SiLU, dropout, linear."""

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

    def forward(self, x_BLD: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """Mix x along L."""
        x_BLD = context.zero_padding(gate(self.expand(x_BLD)))
        if self.training:
            x_BLD = self.norm(depthwise_convolution(x_BLD, self.depthwise, None), context)
        else:
            # The running statistics are constants, so the norm folds into the taps.
            scale_D, shift_D = self.norm.affine()
            x_BLD = depthwise_convolution(x_BLD, self.depthwise * scale_D.unsqueeze(1), shift_D)
        y_BLD: torch.Tensor = self.project(self.dropout(F.silu(x_BLD)))
        return y_BLD


class SelfAttention(nn.Module):
    """Self-attention with a bias over the ranks, whose qkv rows are laid out as [q|k|v][head][dim]."""

    def __init__(self, config: SpatialFormerConfig) -> None:
        super().__init__()
        assert config.attention_scale is not None
        self.n_heads = config.n_heads
        self.scale = config.attention_scale
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.project = nn.Linear(config.width, config.width)

    def _split(self, x_BLD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        n_cells, length, width = x_BLD.shape
        qkv = self.qkv(x_BLD).view(n_cells, length, 3, self.n_heads, width // self.n_heads)
        q_BHLK, k_BHLK, v_BHLK = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q_BHLK, k_BHLK, v_BHLK

    def forward(self, x_BLD: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """Attend within each sequence."""
        q_BHLK, k_BHLK, v_BHLK = self._split(x_BLD)
        y_BHLK = attend(
            context.kernel.name,
            q_BHLK,
            k_BHLK,
            v_BHLK,
            context.bias,
            scale=self.scale,
            dropout=self.dropout if self.training else 0.0,
        )
        y_BLD: torch.Tensor = self.project(y_BHLK.transpose(1, 2).reshape(x_BLD.shape))
        return y_BLD

    def weights(self, x_BLD: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """Return the attention weights (B, H, L, L); 0 towards padding."""
        q_BHLK, k_BHLK, _ = self._split(x_BLD)
        return attention_weights(q_BHLK, k_BHLK, context.bias, scale=self.scale)


class DropPath(nn.Module):
    """Leave a branch out for some cells of a batch in training, and scale it up for the others.

    A branch that reads each cell by itself is not computed for the cells that it is left out for, on a CPU: there less
    work is less time, while GPUs and compilers would rather have batches of one shape.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x_BLD: torch.Tensor, branch: Branch, *, by_cell: bool) -> torch.Tensor:
        """Return what a branch adds to x; `by_cell` says that the branch reads each cell by itself."""
        if not self.training or self.probability == 0.0:
            return branch(x_BLD, None)
        kept = 1.0 - self.probability
        drawn_B = torch.rand(x_BLD.shape[0], device=x_BLD.device) < kept
        if not (by_cell and draws_fast(x_BLD)):
            return branch(x_BLD, None) * (drawn_B.to(x_BLD.dtype) / kept)[:, None, None]
        cells = drawn_B.nonzero().squeeze(1)
        y = branch(x_BLD.index_select(0, cells), cells) * (1.0 / kept)
        return y.new_zeros(x_BLD.shape).index_copy(0, cells, y)


class ChannelAffine(nn.Module):
    """Learnt scale and bias of each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """Scale and shift x."""
        return torch.addcmul(self.bias, x_BLD, self.scale)


class Block(nn.Module):
    """Mixer branch and MLP branch with residuals, normalised before each branch ("pre") or after each sum ("post")."""

    def __init__(self, config: SpatialFormerConfig, mixer: ConvolutionMixer | SelfAttention) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.mixer = mixer
        self.mixer_affine = ChannelAffine(config.width)
        self.mixer_norm = nn.LayerNorm(config.width)
        self.mlp = GatedMLP(config)
        self.mlp_affine = ChannelAffine(config.width)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.drop_path = DropPath(config.drop_path)

    def forward(self, x_BLD: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """Transform x."""
        return self.after_mixing(x_BLD, self._mix(self.mixer_norm(x_BLD) if self.pre_norm else x_BLD, context))

    def after_mixing(self, x_BLD: torch.Tensor, mixed_BLD: torch.Tensor) -> torch.Tensor:
        """Return the output of the block from its input and that of its mixer, each position apart."""
        if self.pre_norm:
            x_BLD = x_BLD + self.mixer_affine(mixed_BLD)
            y_BLD: torch.Tensor = x_BLD + self.mlp_affine(self._transform(self.mlp_norm(x_BLD)))
        else:
            x_BLD = self.mixer_norm(x_BLD + self.mixer_affine(mixed_BLD))
            y_BLD = self.mlp_norm(x_BLD + self.mlp_affine(self._transform(x_BLD)))
        return y_BLD

    def _mix(self, x_BLD: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        def mix(x: torch.Tensor, cells: torch.Tensor | None) -> torch.Tensor:
            y: torch.Tensor = self.mixer(x, context if cells is None else context.take(cells))
            return y

        # Batch norm makes the convolution of a cell depend on the others.
        y_BLD: torch.Tensor = self.drop_path(x_BLD, mix, by_cell=isinstance(self.mixer, SelfAttention))
        return y_BLD

    def _transform(self, x_BLD: torch.Tensor) -> torch.Tensor:
        y_BLD: torch.Tensor = self.drop_path(x_BLD, lambda x, cells: self.mlp(x), by_cell=True)
        return y_BLD


class Layer(nn.Module):
    """One convolution block, then one attention block."""

    def __init__(self, config: SpatialFormerConfig) -> None:
        super().__init__()
        self.convolution = Block(config, ConvolutionMixer(config))
        self.attention = Block(config, SelfAttention(config))

    def forward(self, x_BLD: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """Transform x."""
        y_BLD: torch.Tensor = self.attention(self.convolution(x_BLD, context), context)
        return y_BLD
