"""The layers of a scGPT-spatial network, from ids and values to the output of a layer.

Shapes are in names: x_BLD is (B, L, D). The letters here and in `network`, `experts`, `decoders` and `inference`:

=  ======================================================================
B  cells of a batch
L  positions of a cell, padding included: the known ones, then those asked for
A  positions asked for, padding included
D  width
H  attention heads
K  dimensions of a head, D = H K
E  experts
T  technologies
N  some positions of a batch, of any cells
=  ======================================================================
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from spaf_model.attention_bias import AttentionBias, MatrixBias, NoBias
from spaf_model.dropout import Dropout
from spaf_model.kernels import KernelName, attend, select_kernel

if TYPE_CHECKING:
    from spaf_model.scgpt_spatial.batch import ValueBatch
    from spaf_model.scgpt_spatial.config import ScGPTSpatialConfig

LARGEST_VALUE = 512.0  # beyond which values are cut
# Kernels for positions asked for: those that know a bias of any numbers, and padding in the midst of the keys.
_FOR_ASKED: tuple[KernelName, ...] = ("explicit", "sdpa")


class GeneEmbedding(nn.Module):
    """The table of tokens, normalised: also what the decoders of cells ask with."""

    def __init__(self, config: ScGPTSpatialConfig) -> None:
        super().__init__()
        assert config.n_tokens is not None
        self.table = nn.Embedding(config.n_tokens, config.width)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return vectors (..., D) of token ids."""
        vectors: torch.Tensor = self.norm(self.table(ids))
        return vectors


class ValueEmbedding(nn.Module):
    """A vector for a number: two linear maps with a ReLU between them, LayerNorm, dropout."""

    def __init__(self, config: ScGPTSpatialConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(1, config.width)
        self.mix = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, values_BL: torch.Tensor) -> torch.Tensor:
        """Return x_BLD of values."""
        values_BL1 = values_BL.clamp(max=LARGEST_VALUE).unsqueeze(-1)
        x_BLD: torch.Tensor = self.dropout(self.norm(self.mix(F.relu(self.expand(values_BL1)))))
        return x_BLD


class TechnologyEmbedding(nn.Module):
    """The table of technologies, normalised: decoders read it beside the states, and the encoder never."""

    def __init__(self, config: ScGPTSpatialConfig) -> None:
        super().__init__()
        assert config.n_technologies
        self.table = nn.Embedding(config.n_technologies, config.width)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, technologies_B: torch.Tensor) -> torch.Tensor:
        """Return vectors (B, D) of rows of the table."""
        vectors: torch.Tensor = self.norm(self.table(technologies_B))
        return vectors


@dataclasses.dataclass(frozen=True)
class Streams:
    """How the positions of a batch see each other, worked out once for all layers.

    Known positions see the known ones. Those asked for see the known ones, and themselves.
    """

    n_known: int
    kernel: KernelName
    known: AttentionBias
    asked_kernel: KernelName = "explicit"
    asked: AttentionBias | None = None  # of keys [asked, known]; None where nothing is asked

    @classmethod
    def of(
        cls, batch: ValueBatch, *, head_dim: int, dtype: torch.dtype, dropout: bool, forced: KernelName | None
    ) -> Streams:
        """Work them out for a batch.

        Parameters
        ----------
        batch
            On the device where it is computed.
        head_dim, dtype, dropout, forced
            As for `select_kernel`. A forced kernel that knows no such bias is not used for the genes asked for.
        """
        device = batch.ids.device
        mask: torch.Tensor | None = batch.mask
        assert mask is not None
        if bool(mask.all()):
            mask = None
        choice = select_kernel(device, dtype, head_dim, batch.n_known, bias=NoBias.kind, dropout=dropout, forced=forced)
        known = NoBias(mask, device=device)
        if batch.asked_ids is None:
            return cls(batch.n_known, choice.name, known)
        asked_mask = batch.asked_mask
        n_asked = asked_mask.shape[1]
        alone = torch.full((n_asked, n_asked), -math.inf, device=device).fill_diagonal_(0.0)
        matrix = torch.cat([alone, alone.new_zeros((n_asked, batch.n_known))], dim=1)
        all_real = mask is None and bool(asked_mask.all())
        asked = MatrixBias(matrix.unsqueeze(0), None if all_real else torch.cat([asked_mask, batch.mask], dim=1))
        asked_choice = select_kernel(
            device, dtype, head_dim, n_asked + batch.n_known, bias=MatrixBias.kind, dropout=dropout,
            forced=forced if forced in _FOR_ASKED else None,
        )  # fmt: skip
        asked_kernel = asked_choice.name if asked_choice.name in _FOR_ASKED else "sdpa"
        return cls(batch.n_known, choice.name, known, asked_kernel, asked)


class TwoStreamAttention(nn.Module):
    """Attention in two streams: among known positions, and from those asked for to the known ones and themselves.

    The rows of `qkv` are laid out as [q|k|v][head][dim].
    """

    def __init__(self, config: ScGPTSpatialConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.scale = config.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.asked_projection = config.asked_projection
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.project = nn.Linear(config.width, config.width)

    def forward(self, x_BLD: torch.Tensor, streams: Streams) -> torch.Tensor:
        """Attend; positions asked for are not projected where the configuration says so."""
        n_cells, length, width = x_BLD.shape
        qkv = self.qkv(x_BLD).view(n_cells, length, 3, self.n_heads, width // self.n_heads)
        q_BHLK, k_BHLK, v_BHLK = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        n_known = streams.n_known
        q, k, v = (part[:, :, :n_known] for part in (q_BHLK, k_BHLK, v_BHLK))
        y_BLD = _joined(attend(streams.kernel, q, k, v, streams.known, scale=self.scale, dropout=dropout))
        if streams.asked is None:
            projected_BLD: torch.Tensor = self.project(y_BLD)
            return projected_BLD
        # Kernels take the first keys for those of the queries, so the positions asked for come first.
        k_BHLK, v_BHLK = (torch.cat([part[:, :, n_known:], part[:, :, :n_known]], dim=2) for part in (k_BHLK, v_BHLK))
        asked_BHAK = attend(
            streams.asked_kernel, q_BHLK[:, :, n_known:], k_BHLK, v_BHLK, streams.asked,
            scale=self.scale, dropout=dropout,
        )  # fmt: skip
        asked_BAD = _joined(asked_BHAK)
        if self.asked_projection:
            asked_BAD = self.project(asked_BAD)
        return torch.cat([self.project(y_BLD), asked_BAD], dim=1)


def _joined(y_BHLK: torch.Tensor) -> torch.Tensor:
    """Put the heads of each position behind each other, (B, L, D)."""
    return y_BHLK.transpose(1, 2).flatten(2)


class Layer(nn.Module):
    """Attention and MLP with residuals, normalised before each branch ("pre") or after each sum ("post")."""

    def __init__(self, config: ScGPTSpatialConfig) -> None:
        super().__init__()
        assert config.mlp_width is not None
        self.pre_norm = config.norm == "pre"
        self.attention = TwoStreamAttention(config)
        self.attention_norm = nn.LayerNorm(config.width)
        self.expand = nn.Linear(config.width, config.mlp_width)
        self.contract = nn.Linear(config.mlp_width, config.width)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BLD: torch.Tensor, streams: Streams) -> torch.Tensor:
        """Transform x."""
        return self.after_mixing(x_BLD, self.attention(self.attention_norm(x_BLD) if self.pre_norm else x_BLD, streams))

    def after_mixing(self, x_BLD: torch.Tensor, mixed_BLD: torch.Tensor) -> torch.Tensor:
        """Return the output of the layer from its input and that of its attention, each position apart."""
        x_BLD = x_BLD + self.dropout(mixed_BLD)
        if self.pre_norm:
            return x_BLD + self._mlp(self.mlp_norm(x_BLD))
        x_BLD = self.attention_norm(x_BLD)
        y_BLD: torch.Tensor = self.mlp_norm(x_BLD + self._mlp(x_BLD))
        return y_BLD

    def _mlp(self, x_BLD: torch.Tensor) -> torch.Tensor:
        y_BLD: torch.Tensor = self.dropout(self.contract(self.dropout(F.relu(self.expand(x_BLD)))))
        return y_BLD
