"""What all layers of one forward pass share: the mask, the attention bias and the kernel."""

from __future__ import annotations

import dataclasses

import torch

from spaf_model.kernels import AttentionBias, KernelChoice


@dataclasses.dataclass(frozen=True)
class SequenceContext:
    """Shape of a batch of sequences, worked out once for all layers."""

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

    def zero_padding(self, x: torch.Tensor) -> torch.Tensor:
        """Return x (B, L, D) with zeros at padding."""
        return x if self.mask is None else x * self.mask.unsqueeze(-1)

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """Return the real positions of x (B, L, D) as (n_tokens, D)."""
        flat = x.reshape(-1, x.shape[-1])
        return flat if self.positions is None else flat.index_select(0, self.positions)

    def unpack(self, x: torch.Tensor) -> torch.Tensor:
        """Undo `pack`, with zeros at padding."""
        if self.positions is not None:
            flat = x.new_zeros((self.shape[0] * self.shape[1], x.shape[-1]))
            x = flat.index_copy(0, self.positions, x)
        return x.reshape(*self.shape, x.shape[-1])
