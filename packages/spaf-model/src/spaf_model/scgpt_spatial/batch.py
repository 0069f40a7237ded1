"""The batch of the family: genes with values, padded, and genes whose values are asked for."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class ValueBatch:
    """Cells as sets of genes with values, padded on the right; CLS comes first.

    In perception all genes are known. In generation some are asked for: their values are not given, and they see the
    known ones but not each other. Hidden states have known positions before those asked for.

    Without `asked_ids`, nothing is asked. All is int64 but for what is said to be float32.
    """

    ids: torch.Tensor  # (B, L) token ids; that of padding beyond the length
    values: torch.Tensor  # (B, L) float32, as `spaf_model.scgpt_spatial.values` makes them; -1 where hidden, -2 at CLS
    lengths: torch.Tensor  # (B,) known tokens, CLS included
    technologies: torch.Tensor  # (B,) rows of the technology table; -1 where not known
    totals: torch.Tensor  # (B,) float32, counts over all measured genes of the model
    asked_ids: torch.Tensor | None = None  # (B, A) token ids of genes asked for
    asked_lengths: torch.Tensor | None = None  # (B,) how many

    @property
    def n_known(self) -> int:
        """Known positions, padding included: where those asked for begin in hidden states."""
        return self.ids.shape[1]

    @property
    def mask(self) -> torch.Tensor:
        """Real known positions, bool (B, L)."""
        return _real(self.lengths, self.ids)

    @property
    def asked_mask(self) -> torch.Tensor:
        """Real positions among those asked for, bool (B, A); (B, 0) where nothing is asked."""
        if self.asked_ids is None or self.asked_lengths is None:
            return torch.zeros((self.ids.shape[0], 0), dtype=torch.bool, device=self.ids.device)
        return _real(self.asked_lengths, self.asked_ids)

    @property
    def n_tokens(self) -> int:
        """Real tokens of the batch, known and asked for."""
        return int(self.lengths.sum()) + (0 if self.asked_lengths is None else int(self.asked_lengths.sum()))

    def asking(self, ids: torch.Tensor, lengths: torch.Tensor | None = None) -> ValueBatch:
        """Return the batch with genes asked for.

        Parameters
        ----------
        ids
            Token ids, (B, A), or (A,) for the same genes in every cell.
        lengths
            How many of a row are asked for, (B,); None: all.
        """
        n_cells = self.ids.shape[0]
        ids = ids.expand(n_cells, -1) if ids.ndim == 1 else ids
        if lengths is None:
            lengths = torch.full((n_cells,), ids.shape[1], dtype=torch.int64, device=ids.device)
        return dataclasses.replace(self, asked_ids=ids, asked_lengths=lengths)

    def to(self, device: torch.device) -> ValueBatch:
        """Return the batch on a device."""
        moved: dict[str, Any] = {
            field.name: None if (value := getattr(self, field.name)) is None else value.to(device, non_blocking=True)
            for field in dataclasses.fields(self)
        }
        return ValueBatch(**moved)


def _real(lengths: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)
