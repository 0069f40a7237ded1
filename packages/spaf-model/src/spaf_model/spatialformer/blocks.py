"""A block: one branch that mixes along the sequence and one gated MLP, each with its residual."""

from __future__ import annotations

import torch
from torch import nn

from spaf_model.config import SpatialFormerConfig
from spaf_model.spatialformer.attention import SelfAttention
from spaf_model.spatialformer.convolution import ConvolutionMixer
from spaf_model.spatialformer.gating import GatedMLP
from spaf_model.spatialformer.sequences import SequenceContext


class DropPath(nn.Module):
    """Leave a branch out for some cells of a batch in training, and scale it up for the others."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop whole cells of x (B, L, D)."""
        if not self.training or self.probability == 0.0:
            return x
        kept = 1.0 - self.probability
        return x * (x.new_empty((x.shape[0], 1, 1)).bernoulli_(kept) / kept)


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
        return self.after_mixing(x, self.mixer(self.mixer_norm(x) if self.pre_norm else x, context))

    def after_mixing(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Return the output of the block from its input and that of its mixer, both (B, L, D), each position apart."""
        if self.pre_norm:
            x = x + self.mixer_affine(self.drop_path(mixed))
            return x + self.mlp_affine(self.drop_path(self.mlp(self.mlp_norm(x))))
        x = self.mixer_norm(x + self.mixer_affine(self.drop_path(mixed)))
        x = self.mlp_norm(x + self.mlp_affine(self.drop_path(self.mlp(x))))
        assert isinstance(x, torch.Tensor)
        return x


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
