"""A block: one branch that mixes along the sequence and one gated MLP, each with its residual."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from spaf_model.config import SpatialFormerConfig
from spaf_model.dropout import draws_fast
from spaf_model.spatialformer.attention import SelfAttention
from spaf_model.spatialformer.convolution import ConvolutionMixer
from spaf_model.spatialformer.gating import GatedMLP
from spaf_model.spatialformer.sequences import SequenceContext

# Of cells (n, L, D) and their places in the batch, None for all of it.
Branch = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


class DropPath(nn.Module):
    """Leave a branch out for some cells of a batch in training, and scale it up for the others.

    A branch that reads each cell by itself is not computed for the cells that it is left out for, on a CPU: there less
    work is less time, while GPUs and compilers would rather have batches of one shape.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: torch.Tensor, branch: Branch, *, by_cell: bool) -> torch.Tensor:
        """Return what a branch adds to x (B, L, D); `by_cell` says that the branch reads each cell by itself."""
        if not self.training or self.probability == 0.0:
            return branch(x, None)
        kept = 1.0 - self.probability
        drawn = torch.rand(x.shape[0], device=x.device) < kept
        if not (by_cell and draws_fast(x)):
            return branch(x, None) * (drawn.to(x.dtype) / kept)[:, None, None]
        cells = drawn.nonzero().squeeze(1)
        y = branch(x.index_select(0, cells), cells) * (1.0 / kept)
        return y.new_zeros(x.shape).index_copy(0, cells, y)


class ChannelAffine(nn.Module):
    """Learnt scale and bias of each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale and shift x (..., D)."""
        return torch.addcmul(self.bias, x, self.scale)


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

    def forward(self, x: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """Transform x (B, L, D)."""
        return self.after_mixing(x, self._mix(self.mixer_norm(x) if self.pre_norm else x, context))

    def after_mixing(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Return the output of the block from its input and that of its mixer, (B, L, D), each position apart."""
        if self.pre_norm:
            x = x + self.mixer_affine(mixed)
            return x + self.mlp_affine(self._transform(self.mlp_norm(x)))
        x = self.mixer_norm(x + self.mixer_affine(mixed))
        x = self.mlp_norm(x + self.mlp_affine(self._transform(x)))
        assert isinstance(x, torch.Tensor)
        return x

    def _mix(self, x: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        def mix(x: torch.Tensor, cells: torch.Tensor | None) -> torch.Tensor:
            y = self.mixer(x, context if cells is None else context.take(cells))
            assert isinstance(y, torch.Tensor)
            return y

        # Batch norm makes the convolution of a cell depend on the others.
        y = self.drop_path(x, mix, by_cell=isinstance(self.mixer, SelfAttention))
        assert isinstance(y, torch.Tensor)
        return y

    def _transform(self, x: torch.Tensor) -> torch.Tensor:
        y = self.drop_path(x, lambda x, cells: self.mlp(x), by_cell=True)
        assert isinstance(y, torch.Tensor)
        return y


class Layer(nn.Module):
    """One convolution block, then one attention block."""

    def __init__(self, config: SpatialFormerConfig) -> None:
        super().__init__()
        self.convolution = Block(config, ConvolutionMixer(config))
        self.attention = Block(config, SelfAttention(config))

    def forward(self, x: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """Transform x (B, L, D)."""
        x = self.attention(self.convolution(x, context), context)
        assert isinstance(x, torch.Tensor)
        return x
