"""Masked genes: some genes of a cell are hidden, and the network says which ones they were."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spaf_train._checks import require, require_fraction
from spaf_train.objectives.base import Column, Loss, Objective, ObjectiveConfig, Scores, Total
from spaf_train.objectives.chance import Judgement, entropy

if TYPE_CHECKING:
    from spaf_model import SpatialFormerNetwork, TokenBatch, Vocabulary
    from spaf_train.stream.loader import BatchStream
    from spaf_train.stream.window import Draw
    from spaf_train.trainer.signals import StopRequest

UNIGRAM = "frequency among genes not in view"
# A multiplication and an addition for each weight forward, and twice that backward.
_OPERATIONS_PER_WEIGHT = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedGenesConfig(ObjectiveConfig):
    """How genes are hidden, and the weight of finding them."""

    enabled: bool = True  # False: nothing is masked and nothing computed
    fraction: float = 0.15  # chance that a position is chosen
    mask_share: float = 0.8  # of the chosen, those replaced by MASK
    random_share: float = 0.1  # of the chosen, those replaced by a random gene; the rest stays as it is
    include_context: bool = False  # choose among species, assay, tissue and condition too, as the published model does

    def __post_init__(self) -> None:
        super().__post_init__()
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

    `positions` are positions in the flattened (B, L) batch in ascending order, `targets` the hidden token ids and
    `shown` those that stand there instead.
    """

    positions: Tensor  # int64 (n_masked,)
    targets: Tensor  # int64 (n_masked,)
    shown: Tensor  # int64 (n_masked,)
    baseline: Tensor | None = None  # float32 (n_masked,): loss of naming genes as often as training has them

    @property
    def weight(self) -> float:
        """What the summed loss of this batch is divided by: the number of hidden genes."""
        return float(self.positions.numel())

    def to(self, device: torch.device) -> MaskedGenes:
        """Return the same on another device."""
        baseline = None if self.baseline is None else self.baseline.to(device)
        return MaskedGenes(self.positions.to(device), self.targets.to(device), self.shown.to(device), baseline)

    def hide_in(self, batch: TokenBatch) -> TokenBatch:
        """Return the batch with what is shown at the positions, and no value of what is not shown."""
        ids = batch.ids.flatten().clone()
        ids[self.positions] = self.shown
        values = batch.values
        if values is not None:
            values = values.flatten().clone()
            values[self.positions[self.shown != self.targets]] = 0.0
            values = values.view_as(batch.ids)
        return dataclasses.replace(batch, ids=ids.view_as(batch.ids), values=values)


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
    ids = batch.ids.flatten()
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
    shown = torch.where(fate < config.mask_share + config.random_share, replacement, targets)
    masked = MaskedGenes(positions, targets, shown)
    return masked.hide_in(batch), masked


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


def unigram_losses(batch: TokenBatch, masked: MaskedGenes, shares: Tensor) -> Tensor:
    """Return -log p of each hidden gene, (n_masked,), by how frequent genes are among those that are not in view.

    Parameters
    ----------
    batch
        Tokens before any masking, on the CPU.
    masked
        What is hidden of them.
    shares
        How frequent each token is, (n_tokens,), adding up to 1; 0 for what is no gene.
    """
    length = batch.ids.shape[1]
    in_view = torch.ones(batch.ids.numel(), dtype=torch.bool).index_fill_(0, masked.positions, False)
    seen = shares[batch.ids.flatten()] * in_view
    segment = torch.arange(batch.ids.numel()) // length * 3 + batch.types.flatten()  # a gene occurs once in a cell
    of_segment = torch.zeros(3 * batch.ids.shape[0]).index_add_(0, segment, seen)
    left = 1.0 - of_segment[segment[masked.positions]]
    return -torch.log(shares[masked.targets] / left.clamp_min(torch.finfo(torch.float32).tiny))


class _Scores(Scores):
    def __init__(self) -> None:
        self.found = 0.0
        self.baseline, self.n_beside = 0.0, 0
        self.classes = np.zeros(0, dtype=np.int64)  # how often each gene was hidden

    def add(self, loss: Loss, targets: MaskedGenes) -> None:
        counts = np.bincount(targets.targets.cpu().numpy(), minlength=loss.answer.shape[-1])
        self.classes = self.classes + counts if self.classes.size else counts
        self.found += float(loss.counted[0])
        if targets.baseline is not None:
            self.baseline += float(targets.baseline.double().sum())
            self.n_beside += targets.baseline.numel()

    def parts(self) -> tuple[float, NDArray[np.int64], float, int]:
        return self.found, self.classes, self.baseline, self.n_beside


class MaskedGenesObjective(Objective):
    """Find the genes that were hidden."""

    name = "masked_genes"
    title = "masked genes"
    columns = (
        Column("loss_masked_genes", "Masked genes, cross-entropy (nats)", "Masked genes", "cross-entropy (nat)"),
        Column("accuracy_masked_genes", "Masked genes, accuracy", "Masked genes named right", "share"),
    )
    Config = MaskedGenesConfig
    counted = ("accuracy_masked_genes",)
    hides = True
    asks = ("masked_gene_logits", "masked_gene_head")
    trains = ("masked_gene_head",)

    def __init__(self, config: MaskedGenesConfig) -> None:
        super().__init__(config)
        self._shares: Tensor | None = None

    def prepare(self, train: BatchStream, validation: BatchStream | None, stop: StopRequest) -> dict[str, Any]:
        """Return how frequent genes are in training cells, where that is a baseline: contexts have no frequency."""
        if validation is None or self.config.include_context:
            return {}
        n_cells = train.corpus.gene_statistics["n_cells"].reindex(train.corpus.genes).fillna(0).to_numpy()
        known = train.token_of_gene >= 0
        shares = np.zeros(train.vocabulary.n_tokens)
        shares[train.vocabulary.gene_token_ids] = 1.0  # so that a gene that no training cell has is not impossible
        np.add.at(shares, train.token_of_gene[known], n_cells[known])
        return {"shares": torch.from_numpy((shares / shares.sum()).astype(np.float32))}

    def take(self, prepared: Mapping[str, Any], split: str) -> None:
        """Take over the frequencies, for validation."""
        self._shares = prepared["shares"] if split == "validation" else None

    def targets(self, draw: Draw) -> MaskedGenes:
        """Hide genes of the batch."""
        masked = mask_genes(draw.tokens, draw.vocabulary, self.config, draw.generator())[1]
        if self._shares is None:
            return masked
        return dataclasses.replace(masked, baseline=unigram_losses(draw.tokens, masked, self._shares))

    def hide(self, tokens: TokenBatch, targets: MaskedGenes) -> TokenBatch:
        """Put what is shown in the place of the hidden genes."""
        return targets.hide_in(tokens)

    def loss(self, network: SpatialFormerNetwork, hidden: Tensor, targets: MaskedGenes, batch: TokenBatch) -> Loss:
        """Return the cross-entropy, with the number of genes that were found."""
        logits = masked_gene_logits(network, hidden, targets)
        loss, found = masked_genes_loss(logits, targets.targets)
        return Loss(loss, targets.weight, logits, (found,))

    def operations(self, network: SpatialFormerNetwork, targets: MaskedGenes) -> float:
        """Count the matrix of the head for each hidden gene."""
        return float(_OPERATIONS_PER_WEIGHT * network.masked_gene_head.weight.numel() * targets.targets.numel())

    def new_scores(self) -> Scores:
        """Return what counts the genes that were hidden, and found."""
        return _Scores()

    def judge(self, total: Total, parts: Sequence[Any]) -> tuple[dict[str, float], Judgement]:
        """Return the accuracy, and the loss beside that of naming genes as often as they are hidden."""
        found, classes, beside, n_beside = zip(*parts, strict=True)
        counted = [of_rank for of_rank in classes if of_rank.size]
        judgement = Judgement(
            self.name, total.loss, total.error, entropy(np.sum(counted, axis=0)), title=self.title,
            baseline=UNIGRAM, baseline_loss=sum(beside) / sum(n_beside) if sum(n_beside) else None,
        )  # fmt: skip
        return {"accuracy_masked_genes": sum(found) / total.weight}, judgement


def masked_gene_logits(network: SpatialFormerNetwork, hidden: Tensor, targets: MaskedGenes) -> Tensor:
    """Return logits over the vocabulary at the masked positions of a batch, n_masked x V."""
    return network.masked_gene_logits(hidden.flatten(0, 1).index_select(0, targets.positions))
