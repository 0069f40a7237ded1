"""The encoder as inference runs it: no gradients, constants folded into the weights, no row computed that nobody reads.

It returns what `SpatialFormerNetwork.encode` does in evaluation mode, to rounding:

- the running statistics of the batch norm, and scale and bias of each branch, are folded into the weights beside them;
- gates and residual sums are part of the matrix products where the matmul path can do that (`select_matmul`);
- where CLS alone is read, the last attention block makes keys and values everywhere and all else for CLS alone.

Shapes are named as in `layers`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

from spaf_model.kernels import KernelName, MatmulName, attend, select_matmul
from spaf_model.packed_linear import Pack, PackedLinear, pack_linear
from spaf_model.spatialformer.layers import (
    Block,
    ChannelAffine,
    ConvolutionMixer,
    SelfAttention,
    SequenceContext,
    depthwise_convolution,
)

if TYPE_CHECKING:
    from spaf_model.spatialformer.network import SpatialFormerNetwork
    from spaf_model.spatialformer.tokeniser import TokenBatch


class InferenceEncoder:
    """The encoder of a network whose weights no longer change.

    It holds most weights a second time, in the layout of the matmul path, so it is made for a run and then let go.

    Parameters
    ----------
    network
        A network in evaluation mode. Under autocast, weights are packed in its dtype: encode under the same.
    matmul
        Matmul path to force; None lets `select_matmul` decide.
    """

    @torch.inference_mode()
    def __init__(self, network: SpatialFormerNetwork, *, matmul: MatmulName | None = None) -> None:
        device = network.embedding.tokens.weight.device
        self.network = network
        self.dtype = network.compute_dtype(device)
        self.matmul = select_matmul(device, self.dtype, forced=matmul)
        pack = functools.partial(pack_linear, dtype=self.dtype, matmul=self.matmul.name)
        self._blocks: list[_ConvolutionBlock | _AttentionBlock] = []
        for layer in network.blocks():
            self._blocks.append(_ConvolutionBlock(layer.convolution, pack))
            self._blocks.append(_AttentionBlock(layer.attention, pack))

    @torch.inference_mode()
    def encode(self, batch: TokenBatch, *, cls_only: bool = False, kernel: KernelName | None = None) -> torch.Tensor:
        """Return hidden states x_BLD, or (B, 1, D) of CLS alone; those at padding mean nothing.

        Parameters
        ----------
        batch
            Sequences on the device of the network.
        cls_only
            Whether nothing but CLS is wanted.
        kernel
            Name of an attention kernel to force; None lets `select_kernel` decide.
        """
        assert not self.network.training
        context = self.network.sequence_context(batch, kernel=kernel)
        x_BLD = self.network.embedding(batch.ids, batch.types, batch.values)
        for block in self._blocks[:-1]:
            x_BLD = block(x_BLD, context)
        x_BLD = self._blocks[-1](x_BLD, context, n_wanted=1 if cls_only else None)
        return self.network.finish(x_BLD, batch)


class _Block:
    """Residuals, norms and MLP of a block; sub-classes give the mixer.

    A mixer returns the first `n_wanted` positions of residual plus branch, of the normalised or the plain input.
    """

    def __init__(self, block: Block, pack: Pack) -> None:
        self.pre_norm = block.pre_norm
        self.mixer_norm = block.mixer_norm
        self.mlp_norm = block.mlp_norm
        self.value, self.control = _halves(block.mlp.expand, pack)
        self.project = pack(*_scaled(block.mlp.project, block.mlp_affine))

    def __call__(self, x_BLD: torch.Tensor, context: SequenceContext, *, n_wanted: int | None = None) -> torch.Tensor:
        """Transform x, and return the first `n_wanted` positions, or all."""
        if self.pre_norm:
            x_BLD = self.mix(self.mixer_norm(x_BLD), x_BLD, context, n_wanted)
            y_BLD = self.mlp_norm(x_BLD)
            return self.project.plus(self.value.times(y_BLD, self.control.silu(y_BLD)), x_BLD)
        x_BLD = self.mixer_norm(self.mix(x_BLD, x_BLD, context, n_wanted))
        x_BLD = self.mlp_norm(self.project.plus(self.value.times(x_BLD, self.control.silu(x_BLD)), x_BLD))
        return x_BLD

    def mix(
        self, x_BLD: torch.Tensor, residual_BLD: torch.Tensor, context: SequenceContext, n_wanted: int | None
    ) -> torch.Tensor:
        raise NotImplementedError


class _ConvolutionBlock(_Block):
    def __init__(self, block: Block, pack: Pack) -> None:
        super().__init__(block, pack)
        mixer = cast("ConvolutionMixer", block.mixer)
        self.mixer_value, self.mixer_control = _halves(mixer.expand, pack)
        scale, self.shift = mixer.norm.affine()
        self.taps = mixer.depthwise * scale.unsqueeze(1)
        self.mixer_project = pack(*_scaled(mixer.project, block.mixer_affine))

    def mix(
        self, x_BLD: torch.Tensor, residual_BLD: torch.Tensor, context: SequenceContext, n_wanted: int | None
    ) -> torch.Tensor:
        assert n_wanted is None
        gated_BLD = context.zero_padding(self.mixer_value.times(x_BLD, self.mixer_control.silu(x_BLD)))
        mixed_BLD = F.silu(depthwise_convolution(gated_BLD, self.taps, self.shift), inplace=True)
        return self.mixer_project.plus(mixed_BLD, residual_BLD)


class _AttentionBlock(_Block):
    def __init__(self, block: Block, pack: Pack) -> None:
        super().__init__(block, pack)
        mixer = cast("SelfAttention", block.mixer)
        self.n_heads = mixer.n_heads
        self.scale = mixer.scale
        weight, bias = mixer.qkv.weight, mixer.qkv.bias
        width = weight.shape[1]
        self.query = pack(weight[:width], bias[:width])
        self.key_value = pack(weight[width:], bias[width:])
        self.mixer_project = pack(*_scaled(mixer.project, block.mixer_affine))

    def mix(
        self, x_BLD: torch.Tensor, residual_BLD: torch.Tensor, context: SequenceContext, n_wanted: int | None
    ) -> torch.Tensor:
        k_BHLK, v_BHLK = self._heads(self.key_value(x_BLD), 2)
        if n_wanted is not None:
            x_BLD, residual_BLD = x_BLD[:, :n_wanted].contiguous(), residual_BLD[:, :n_wanted].contiguous()
        (q_BHLK,) = self._heads(self.query(x_BLD), 1)
        y_BHLK = attend(context.kernel.name, q_BHLK, k_BHLK, v_BHLK, context.bias, scale=self.scale)
        return self.mixer_project.plus(y_BHLK.transpose(1, 2).reshape(residual_BLD.shape), residual_BLD)

    def _heads(self, x_BLD: torch.Tensor, n_parts: int) -> tuple[torch.Tensor, ...]:
        """Split (B, L, parts D) into parts (B, H, L, K)."""
        n_cells, length, width = x_BLD.shape
        parts = x_BLD.view(n_cells, length, n_parts, self.n_heads, width // n_parts // self.n_heads)
        return parts.permute(2, 0, 3, 1, 4).unbind(0)


def _halves(linear: nn.Linear, pack: Pack) -> tuple[PackedLinear, PackedLinear]:
    """Return the two maps of a gate: the value, and what controls it."""
    (value, control), (value_bias, control_bias) = linear.weight.chunk(2), linear.bias.chunk(2)
    return pack(value, value_bias), pack(control, control_bias)


def _scaled(linear: nn.Linear, affine: ChannelAffine) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of a linear map followed by scale and shift of each channel."""
    return linear.weight * affine.scale.unsqueeze(1), linear.bias * affine.scale + affine.bias
