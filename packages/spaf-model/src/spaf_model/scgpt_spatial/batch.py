"""The batch of the family: genes with values, padded, and genes whose values are asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F


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

    def split(self, sizes: Sequence[int]) -> list[ValueBatch]:
        """Return the rows as batches of these sizes, each cut to its longest cell."""
        parts, start = [], 0
        for size in sizes:
            rows = slice(start, start + size)
            start += size
            length = int(self.lengths[rows].max()) if size else 0
            part = dataclasses.replace(
                self, ids=self.ids[rows, :length], values=self.values[rows, :length], lengths=self.lengths[rows],
                technologies=self.technologies[rows], totals=self.totals[rows],
            )  # fmt: skip
            if self.asked_ids is not None and self.asked_lengths is not None:
                n_asked = int(self.asked_lengths[rows].max()) if size else 0
                part = part.asking(self.asked_ids[rows, :n_asked], self.asked_lengths[rows])
            parts.append(part)
        return parts

    def joined(self, states: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return hidden states (B, L, D) of the whole batch from those of the batches of `split`."""
        n_asked = 0 if self.asked_ids is None else self.asked_ids.shape[1]
        laid, start = [], 0
        for part in states:
            n_known = int(self.lengths[start : start + part.shape[0]].max()) if part.shape[0] else 0
            start += part.shape[0]
            known, asked = part[:, :n_known], part[:, n_known:]
            known = F.pad(known, (0, 0, 0, self.n_known - n_known))
            laid.append(torch.cat([known, F.pad(asked, (0, 0, 0, n_asked - asked.shape[1]))], dim=1))
        return torch.cat(laid)

    def to(self, device: torch.device) -> ValueBatch:
        """Return the batch on a device."""
        moved: dict[str, Any] = {
            field.name: None if (value := getattr(self, field.name)) is None else value.to(device, non_blocking=True)
            for field in dataclasses.fields(self)
        }
        return ValueBatch(**moved)


def _real(lengths: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)
