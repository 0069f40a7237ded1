"""The encoder as inference runs it: no gradients, weights laid out for the processor, no row that nobody reads.

It returns what `ScGPTSpatialNetwork.encode` does in evaluation mode, to rounding:

- values that are bins are looked up, not computed;
- activations and residual sums are part of the matrix products where the matmul path can do that (`select_matmul`);
- where CLS alone is read, the last layer asks for it alone. Of one query, q . (W x) is (W' q) . x and the sum of
  weighted W x is W times the weighted sum of x, so neither keys nor values are made: the layer costs next to nothing.

Shapes are named as in `layers`.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import torch

from spaf_model.kernels import KernelName, MatmulName, attend, select_matmul
from spaf_model.packed_linear import Pack, pack_linear
from spaf_model.scgpt_spatial.tokeniser import PREFIX_VALUE

if TYPE_CHECKING:
    from spaf_model.scgpt_spatial.batch import ValueBatch
    from spaf_model.scgpt_spatial.layers import Layer, Streams
    from spaf_model.scgpt_spatial.network import ScGPTSpatialNetwork


class InferenceEncoder:
    """The encoder of a network whose weights no longer change, for batches in which nothing is asked for.

    It holds most weights a second time, in the layout of the matmul path, so it is made for a run and then let go.

    Parameters
    ----------
    network
        A network in evaluation mode. Under autocast, weights are packed in its dtype: encode under the same.
    matmul
        Matmul path to force; None lets `select_matmul` decide.
    """

    @torch.inference_mode()
    def __init__(self, network: ScGPTSpatialNetwork, *, matmul: MatmulName | None = None) -> None:
        device = network.device
        self.network = network
        self.dtype = network.compute_dtype(device)
        self.matmul = select_matmul(device, self.dtype, forced=matmul)
        pack = functools.partial(pack_linear, dtype=self.dtype, matmul=self.matmul.name)
        self._layers = [_PackedLayer(layer, pack) for layer in network.blocks()]
        config = network.config
        self._of_bins: torch.Tensor | None = None
        if config.value_style == "bins":
            bins = torch.arange(PREFIX_VALUE, config.n_bins, device=device)
            self._of_bins = network.values(bins.unsqueeze(0)).squeeze(0).float()

    @torch.inference_mode()
    def encode(self, batch: ValueBatch, *, cls_only: bool = False, kernel: KernelName | None = None) -> torch.Tensor:
        """Return hidden states x_BLD, or (B, 1, D) of CLS alone; those at padding mean nothing.

        Parameters
        ----------
        batch
            Cells on the device of the network.
        cls_only
            Whether nothing but CLS is wanted.
        kernel
            Name of an attention kernel to force; None lets `select_kernel` decide.
        """
        assert not self.network.training
        assert batch.asked_ids is None
        streams = self.network.streams(batch, kernel=kernel)
        x_BLD = self._embed(batch)
        for layer in self._layers[:-1]:
            x_BLD = layer(x_BLD, streams)
        x_BLD = self._layers[-1].first(x_BLD, streams) if cls_only else self._layers[-1](x_BLD, streams)
        hidden_BLD: torch.Tensor = self.network.final_norm(x_BLD)
        return hidden_BLD

    def _embed(self, batch: ValueBatch) -> torch.Tensor:
        if self._of_bins is None:
            return self.network.embed_tokens(batch)
        rows_BL = batch.values.long() - int(PREFIX_VALUE)
        x_BLD: torch.Tensor = self.network.genes(batch.ids) + self._of_bins[rows_BL]
        return x_BLD


class _PackedLayer:
    """A layer with packed weights."""

    def __init__(self, layer: Layer, pack: Pack) -> None:
        attention = layer.attention
        self.layer = layer
        self.n_heads = attention.n_heads
        self.scale = attention.scale
        self.qkv = pack(attention.qkv.weight, attention.qkv.bias)
        self.project = pack(attention.project.weight, attention.project.bias)
        self.expand = pack(layer.expand.weight, layer.expand.bias)
        self.contract = pack(layer.contract.weight, layer.contract.bias)

    def __call__(self, x_BLD: torch.Tensor, streams: Streams) -> torch.Tensor:
        """Transform x."""
        n_cells, length, width = x_BLD.shape
        y_BLD = self.layer.attention_norm(x_BLD) if self.layer.pre_norm else x_BLD
        qkv = self.qkv(y_BLD).view(n_cells, length, 3, self.n_heads, width // self.n_heads)
        q_BHLK, k_BHLK, v_BHLK = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y_BHLK = attend(streams.kernel, q_BHLK, k_BHLK, v_BHLK, streams.known, scale=self.scale)
        return self._after_mixing(x_BLD, y_BHLK.transpose(1, 2).reshape(x_BLD.shape))

    def first(self, x_BLD: torch.Tensor, streams: Streams) -> torch.Tensor:
        """Return the first position, (B, 1, D), and make neither keys nor values."""
        n_cells, _, width = x_BLD.shape
        head_dim = width // self.n_heads
        y_BLD = self.layer.attention_norm(x_BLD) if self.layer.pre_norm else x_BLD
        linear = self.layer.attention.qkv
        weight_q, weight_k, weight_v = linear.weight.view(3, width, width).unbind(0)
        bias_q, _, bias_v = linear.bias.view(3, width).unbind(0)
        q_HBK = torch.addmm(bias_q, y_BLD[:, 0].to(weight_q.dtype), weight_q.t()).view(n_cells, self.n_heads, -1)
        q_HBK = q_HBK.transpose(0, 1)
        # The bias of the keys adds the same to all scores of a query, and softmax takes it away.
        asked_HBD = torch.bmm(q_HBK, weight_k.view(self.n_heads, head_dim, width).to(q_HBK.dtype))
        scores_BHL = torch.bmm(asked_HBD.transpose(0, 1), y_BLD.transpose(1, 2).to(asked_HBD.dtype)) * self.scale
        if streams.known.mask is not None:
            scores_BHL = scores_BHL.masked_fill(~streams.known.mask.unsqueeze(1), -math.inf)
        weights_BHL = scores_BHL.float().softmax(dim=-1)
        mean_BHD = torch.bmm(weights_BHL.to(y_BLD.dtype), y_BLD)
        of_heads = weight_v.view(self.n_heads, head_dim, width)
        v_HBK = torch.bmm(mean_BHD.transpose(0, 1), of_heads.transpose(1, 2).to(mean_BHD.dtype))
        mixed_B1D = (v_HBK.transpose(0, 1).reshape(n_cells, width) + bias_v).unsqueeze(1)
        return self._after_mixing(x_BLD[:, :1].contiguous(), mixed_B1D.to(x_BLD.dtype))

    def _after_mixing(self, x_BLD: torch.Tensor, mixed_BLD: torch.Tensor) -> torch.Tensor:
        x_BLD = self.project.plus(mixed_BLD, x_BLD)
        if self.layer.pre_norm:
            return self.contract.plus(self.expand.relu(self.layer.mlp_norm(x_BLD)), x_BLD)
        x_BLD = self.layer.attention_norm(x_BLD)
        y_BLD: torch.Tensor = self.layer.mlp_norm(self.contract.plus(self.expand.relu(x_BLD), x_BLD))
        return y_BLD
