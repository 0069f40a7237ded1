"""Masked genes: some genes of a cell are hidden, and the network says which ones they were."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from spaf_model import TokenBatch, Vocabulary
from spaf_train._checks import require, require_at_least, require_fraction


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedGenesConfig:
    """How genes are hidden, and the weight of finding them."""

    enabled: bool = True  # False: nothing is masked and nothing computed
    weight: float = 1.0  # factor of this loss in the total
    fraction: float = 0.15  # chance that a position is chosen
    mask_share: float = 0.8  # of the chosen, those replaced by MASK
    random_share: float = 0.1  # of the chosen, those replaced by a random gene; the rest stays as it is
    include_context: bool = False  # choose among species, assay, tissue and condition too, as the published model does

    def __post_init__(self) -> None:
        require_at_least("weight", self.weight, 0.0)
        require(0.0 < self.fraction < 1.0, f"fraction must be above 0 and below 1, not {self.fraction}.")
        require_fraction("mask_share", self.mask_share)
        require_fraction("random_share", self.random_share)
        require(
            self.mask_share + self.random_share <= 1.0,
            f"mask_share and random_share must not exceed 1 together, not {self.mask_share + self.random_share}.",
        )


@dataclasses.dataclass(frozen=True)
class MaskedGenes:
    """The chosen positions of a batch and what stood there.

    `positions` are positions in the flattened (B, L) batch in ascending order, `targets` the hidden token ids.
    """

    positions: Tensor  # int64 (n_masked,)
    targets: Tensor  # int64 (n_masked,)

    @property
    def weight(self) -> float:
        """What the summed loss of this batch is divided by: the number of hidden genes."""
        return float(self.positions.numel())

    def to(self, device: torch.device) -> MaskedGenes:
        """Return the same on another device."""
        return MaskedGenes(self.positions.to(device), self.targets.to(device))


def mask_genes(
    batch: TokenBatch, vocabulary: Vocabulary, config: MaskedGenesConfig, generator: torch.Generator
) -> tuple[TokenBatch, MaskedGenes]:
    """Hide genes of a batch.

    Parameters
    ----------
    batch
        Tokens, B x L, on the CPU; it is left as it is.
    vocabulary
        Says which ids are genes and which is MASK.
    config
        Shares.
    generator
        Source of randomness. The same generator state gives the same positions.

    Returns
    -------
    tuple
        The batch with replaced ids, and the chosen positions with the ids that stood there. A batch with anything to
        choose from has at least one chosen position, so that a small batch still has a loss.
    """
    choosable = torch.zeros(vocabulary.n_tokens, dtype=torch.bool)
    genes = torch.from_numpy(vocabulary.gene_token_ids)
    choosable[genes] = True
    if config.include_context:
        special = torch.tensor([vocabulary.pad, vocabulary.cls, vocabulary.mask, vocabulary.sep])
        choosable[:] = True
        choosable[special] = False
    ids = batch.ids.flatten().clone()
    candidates = choosable[ids]
    draw = torch.rand(ids.shape, generator=generator)
    chosen = (draw < config.fraction).logical_and_(candidates)
    if not bool(chosen.any()) and bool(candidates.any()):
        chosen[draw.masked_fill_(~candidates, 2.0).argmin()] = True
    positions = chosen.nonzero().squeeze(1)
    targets = ids[positions]
    fate = torch.rand(positions.shape, generator=generator)
    random_genes = genes[torch.randint(genes.numel(), positions.shape, generator=generator)]
    replacement = torch.where(fate < config.mask_share, torch.full_like(targets, vocabulary.mask), random_genes)
    ids[positions] = torch.where(fate < config.mask_share + config.random_share, replacement, targets)
    return dataclasses.replace(batch, ids=ids.view_as(batch.ids)), MaskedGenes(positions, targets)


def masked_genes_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy and the number of right answers.

    Parameters
    ----------
    logits
        n_masked x V, computed at the chosen positions only.
    targets
        Hidden token ids, n_masked.
    """
    loss = functional.cross_entropy(logits.float(), targets, reduction="sum")
    return loss, (logits.argmax(dim=-1) == targets).sum()
