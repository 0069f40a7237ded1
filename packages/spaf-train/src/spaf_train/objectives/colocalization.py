"""Co-localisation: which genes of a cell have their transcripts close together, more than their counts explain.

Two abundant genes meet in one community of transcripts by chance alone, and the smaller of their two counts tells
nearly all pairs that are co-localised (AUROC .98 on Xenium breast). So a pair competes with pairs of like counts: the
best constant logit of its stratum, by both counts in powers of two, is added to its logit in the loss, and what is
left to learn is enrichment. The head has learnt something if it ranks pairs within strata better than the smaller count
does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spaf_train._checks import require_at_least, require_fraction
from spaf_train._csr import csr_rows
from spaf_train.objectives.base import Column, Loss, Objective, ObjectiveConfig, Scores, Total, Verdict
from spaf_train.objectives.chance import LEAST_GAIN, Judgement, auroc_error, least_focal_loss
from spaf_train.objectives.expression_strata import N_STRATA, offsets, strata, within_strata
from spaf_train.objectives.score_summary import ScoreSummary, auroc_of
from spaf_train.objectives.scores import RankedScores, ranked

if TYPE_CHECKING:
    from spaf_data import Corpus
    from spaf_model import CellCounts, SpatialFormerNetwork, TokenBatch, Vocabulary
    from spaf_train.stream.window import Draw


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColocalizationConfig(ObjectiveConfig):
    """The focal loss of gene co-localisation and its weight."""

    enabled: bool = True  # False: the co-localisation head is not trained
    alpha: float = 0.25  # weight of a co-localised pair; the others have 1 - alpha
    gamma: float = 2.0  # how strongly pairs that are already well predicted are passed over
    ramp_down: bool = True  # the term fades linearly from 1 to 0 over the run, as published
    by_expression: bool = True  # pairs compete with pairs of like counts; False: with all, as published

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction("alpha", self.alpha)
        require_at_least("gamma", self.gamma, 0.0)


@dataclasses.dataclass(frozen=True)
class ColocalizedGenes:
    """The genes of the segments of a batch, and which pairs of them are co-localised.

    A gene pair is two places low < high among the N places of one of S segments. The pairs are listed segment after
    segment, by high and then by low. Only the co-localised ones are stored: a segment of 60 genes has 1,770 pairs, of
    which some fifty are, and the network, which has a logit for every pair anyway, needs no list of the others.
    """

    genes: Tensor  # int64 (S, N): positions in the flattened (B, L) batch, ascending; 0 beyond the last gene
    n_genes: Tensor  # int64 (S,)
    colocalized: Tensor  # int64 (n_colocalized,): which pairs of the list are
    length: int  # L
    counts: Tensor | None = None  # float32 (S, N): of each gene in its cell; None where they are not looked at

    @property
    def n_pairs(self) -> int:
        """Number of gene pairs."""
        return int((self.n_genes * (self.n_genes - 1) // 2).sum())

    @property
    def weight(self) -> float:
        """What the summed loss of this batch is divided by: the number of gene pairs."""
        return float(self.n_pairs)

    @property
    def mask(self) -> Tensor:
        """Bool (S, N, N): which [segment, high, low] are gene pairs; in this order they are the list."""
        n = self.genes.shape[1]
        lower = torch.ones((n, n), dtype=torch.bool, device=self.genes.device).tril(-1)
        present = torch.arange(n, device=self.genes.device) < self.n_genes.unsqueeze(1)
        return lower & present.unsqueeze(2)

    @property
    def targets(self) -> Tensor:
        """Float32 (n_pairs,): 1 for co-localised, 0 otherwise."""
        return torch.zeros(self.n_pairs, device=self.genes.device).index_fill_(0, self.colocalized, 1.0)

    @property
    def positions(self) -> Tensor:
        """Int64 (n_pairs,): the positions of the pairs, the earlier gene first, in a flattened (B, L, L)."""
        mask = self.mask
        low = self.genes.unsqueeze(1).expand(mask.shape).masked_select(mask)
        high = self.genes.unsqueeze(2).expand(mask.shape).masked_select(mask)
        return low * self.length + high % self.length

    @property
    def pair_counts(self) -> tuple[Tensor, Tensor]:
        """Float32 (n_pairs,) each: the smaller and the larger of the counts of the two genes."""
        assert self.counts is not None
        one, other = self.counts.unsqueeze(1), self.counts.unsqueeze(2)
        return torch.minimum(one, other).masked_select(self.mask), torch.maximum(one, other).masked_select(self.mask)

    def to(self, device: torch.device) -> ColocalizedGenes:
        """Return the same on another device."""
        counts = None if self.counts is None else self.counts.to(device)
        return ColocalizedGenes(
            self.genes.to(device), self.n_genes.to(device), self.colocalized.to(device), self.length, counts
        )


def colocalized_genes(
    batch: TokenBatch,
    cells: NDArray[np.int64],
    edge_indptr: NDArray[np.int64],
    edges: NDArray[np.int64],
    vocabulary: Vocabulary,
    known_cells: CellCounts | None = None,
) -> ColocalizedGenes:
    """Find the genes of a batch and look up which pairs of them are co-localised.

    Parameters
    ----------
    batch
        Tokens before any masking, B x L, on the CPU.
    cells
        The cell in each segment, B x 2; below 0 where there is no second segment, or nothing is known of which genes
        of the cell are co-localised: its gene pairs are then no targets.
    edge_indptr
        Cell c has the co-localised pairs ``edges[edge_indptr[c]:edge_indptr[c + 1]]``.
    edges
        Token ids of co-localised genes, n_edges x 2; below 0 for a gene without a token. Pairs of which a gene is not
        in the batch (it ranked too low to be kept) are passed over.
    vocabulary
        Says which ids are genes.
    known_cells
        Counts of the cells in the segments of which something is known, in that order; None: they are not looked at.

    Notes
    -----
    Genes are matched by token id and not by rank, so a label cannot end up at another gene. Time and memory grow with
    the number of genes and of co-localised pairs, not with the number of gene pairs.
    """
    ids = batch.ids.numpy()
    n_rows, length = ids.shape
    is_gene = np.zeros(vocabulary.n_tokens, dtype=bool)
    is_gene[vocabulary.gene_token_ids] = True

    # The second segment of a row lies behind the first, so flat positions are ordered by segment already.
    owner = cells.reshape(-1)
    filled = np.flatnonzero(owner >= 0)
    number = np.full(owner.size, -1, dtype=np.int64)  # of a segment among those of which something is known
    number[filled] = np.arange(filled.size)
    real_genes = is_gene[ids]
    flat = np.flatnonzero(real_genes)
    rows = np.repeat(np.arange(n_rows), np.count_nonzero(real_genes, axis=1))
    segment = number[2 * rows + batch.types.numpy().reshape(-1)[flat] - 1]
    if filled.size < owner.size:
        known = segment >= 0
        flat, segment = flat[known], segment[known]
    n_genes = np.bincount(segment, minlength=filled.size)
    place = np.arange(flat.size) - np.repeat(np.cumsum(n_genes) - n_genes, n_genes)
    genes = np.zeros((filled.size, int(n_genes.max(initial=0))), dtype=np.int64)
    genes[segment, place] = flat

    # Column n_tokens is for genes without a token: their id -1 means the last one, which stays empty.
    place_of = np.full((filled.size, vocabulary.n_tokens + 1), -1, dtype=np.int32)
    place_of[segment, ids.reshape(-1)[flat]] = place
    index, counts = csr_rows(edge_indptr, owner[filled])
    of_edge = np.repeat(np.arange(filled.size), counts)
    pairs = edges[index]
    one, other = place_of[of_edge, pairs[:, 0]], place_of[of_edge, pairs[:, 1]]
    low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other).astype(np.int64)
    n_pairs = n_genes * (n_genes - 1) // 2
    listed = (np.cumsum(n_pairs) - n_pairs)[of_edge] + high * (high - 1) // 2 + low
    of_gene = None
    if known_cells is not None:
        values = np.zeros(genes.shape, dtype=np.float32)
        of_entry = np.repeat(np.arange(filled.size), np.diff(known_cells.indptr))
        where = place_of[of_entry, known_cells.tokens]
        kept = where >= 0
        values[of_entry[kept], where[kept]] = known_cells.counts[kept]
        of_gene = torch.from_numpy(values)
    return ColocalizedGenes(
        torch.from_numpy(genes), torch.from_numpy(n_genes), torch.from_numpy(listed[low >= 0]), length, of_gene
    )


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Return the summed focal loss of binary logits.

    With p the probability given to the right answer, a pair adds ``-w (1 - p)^gamma log p``, where w is alpha for a
    positive and 1 - alpha for a negative (Lin et al. 2017, "Focal loss for dense object detection", equation 5).

    Parameters
    ----------
    logits
        n_gene_pairs.
    targets
        1 or 0, n_gene_pairs.
    alpha, gamma
        See `ColocalizationConfig`.
    """
    logits = logits.float()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # 1 - p is a sigmoid too, so it needs no difference of nearly equal numbers.
    wrong = torch.sigmoid(torch.where(targets > 0, -logits, logits))
    weight = torch.where(targets > 0, alpha, 1.0 - alpha)
    return (weight * wrong**gamma * cross_entropy).sum()


class _Scores(Scores):
    """Of each stratum what ranks its pairs, by the head and by the smaller count."""

    def __init__(self) -> None:
        self._head, self._counts = ([ScoreSummary() for _ in range(N_STRATA)] for _ in range(2))

    def add(self, loss: Loss, targets: ColocalizedGenes) -> None:
        """Add the answers to a batch."""
        smaller, larger = targets.pair_counts
        answers = loss.answer.float().cpu().numpy()
        each = (strata(smaller, larger), smaller, targets.targets)
        of, counts, truth = (values.cpu().numpy() for values in each)
        for number in np.unique(of):
            kept = of == number
            self._head[number].add(answers[kept], truth[kept])
            self._counts[number].add(counts[kept], truth[kept])

    def parts(self) -> Any:
        """Return the summaries of each stratum, by the head and then by the smaller count."""
        return [summary.parts() for summary in (*self._head, *self._counts)]


@dataclasses.dataclass(frozen=True)
class ColocalizationVerdict:
    """How the head stands beside the smaller of two counts, within strata of expression."""

    loss: float
    loss_error: float  # standard error of the loss
    chance: float  # loss of the best answer that is the same for all pairs of a stratum
    auroc: float  # of the head, mean over strata; NaN where no stratum has both classes
    baseline: float  # of the smaller count
    error: float  # standard error of their difference, as if they were independent

    @property
    def learnt(self) -> bool:
        """Whether the head is above the smaller count, and its loss below that of strata, by two standard errors.

        Ranking alone does not count: where few genes are measured, random weights rank their pairs far from .5.
        """
        if math.isnan(self.auroc):
            return False
        gains = self.chance - self.loss > max(2.0 * self.loss_error, LEAST_GAIN * self.chance)
        return gains and self.auroc - max(self.baseline, 0.5) > 2.0 * self.error

    def sentence(self) -> str:
        """Say that nothing was learnt, or that it cannot be told."""
        if math.isnan(self.auroc):
            return (
                "Whether anything was learnt of gene co-localisation cannot be told: in no stratum of expression does "
                "the validation split have pairs that are co-localised and pairs that are not."
            )
        return (
            "Nothing was learnt of gene co-localisation: within strata of expression the AUROC on the validation split "
            f"is {self.auroc:.3f}, and that of the smaller of two counts {self.baseline:.3f} (standard error of the "
            f"difference {self.error:.3f}), and the loss {self.loss:.4f} where expression alone has {self.chance:.4f}; "
            "the model does not offer what this head says."
        )

    def figures(self) -> dict[str, Any]:
        """Return loss and AUROC beside those of expression alone."""
        found: dict[str, Any] = {"loss": self.loss, "chance": self.chance}
        if not math.isnan(self.auroc):
            found |= {"auroc": self.auroc, "baseline": "smaller of two counts", "baseline_auroc": self.baseline}
        return found


class ColocalizationObjective(Objective):
    """Tell which genes of a cell have their transcripts close together."""

    name = "colocalization"
    title = "gene co-localisation"
    columns = (
        Column("loss_colocalization", "Gene co-localisation, focal loss", "Gene co-localisation", "focal loss"),
        Column(
            "auroc_colocalization", "Gene co-localisation, AUROC over gene pairs of like counts", "gene pairs", "AUROC"
        ),
    )
    Config = ColocalizationConfig
    left_out_because = "the corpus does not tell which genes lie together in its cells"
    asks = ("colocalization_head",)
    trains = ("colocalization_head",)

    def unanswerable(self, corpus: Corpus, split: str, skip_shards: Collection[str]) -> str | None:
        """Say that nothing is known of any slide: trained all the same, the head would show a loss of 0."""
        slides = {ref.slide for ref in corpus.block_refs(split) if ref.shard not in skip_shards}
        if any(corpus.knows_gene_pairs(slide) for slide in slides):
            return None
        return f"no slide of the split {split!r} tells which genes lie together in its cells"

    def targets(self, draw: Draw) -> ColocalizedGenes:
        """Look up which pairs of genes of the batch are co-localised, where that is known."""
        cells, known = draw.inputs.segments, draw.cells.has_edges
        cells = np.where((cells >= 0) & known[cells], cells, -1)
        counts = None
        if self.config.by_expression:
            owner = cells.reshape(-1)
            counts = draw.cells.take(owner[owner >= 0])
        return colocalized_genes(draw.tokens, cells, draw.cells.edge_indptr, draw.cells.edges, draw.vocabulary, counts)

    def loss(self, network: SpatialFormerNetwork, hidden: Tensor, targets: ColocalizedGenes, batch: TokenBatch) -> Loss:
        """Return the focal loss, of logits beside the best ones of the strata of expression where these count."""
        logits = colocalization_logits(network, hidden, targets)
        labels, alpha, gamma = targets.targets, self.config.alpha, self.config.gamma
        whole = logits.float()
        if targets.counts is not None:
            whole = whole + offsets(strata(*targets.pair_counts), labels, alpha=alpha, gamma=gamma)
        loss = focal_loss(whole, labels, alpha=alpha, gamma=gamma)
        return Loss(loss, targets.weight, logits)

    def factor(self, progress: float) -> float:
        """Return the weight, fading over the run where that is asked for."""
        return super().factor(progress) * (1.0 - progress if self.config.ramp_down else 1.0)

    @classmethod
    def unlearnt(cls, model: Any) -> Any:
        """Return a configuration that says that the head is worth nothing, so that the model does not offer it."""
        has_head = hasattr(model, "colocalization_learnt")
        return dataclasses.replace(model, colocalization_learnt=False) if has_head else model

    def new_scores(self) -> Scores:
        """Return what ranks gene pairs."""
        return _Scores() if self.config.by_expression else RankedScores(labels="targets")

    def judge(self, total: Total, parts: Sequence[Any]) -> tuple[dict[str, float], Verdict]:
        """Return the AUROC, and whether the head beats the smaller of two counts, within strata of expression.

        Where pairs compete with all others, the loss is held beside that of a logit that is the same always: ranking
        alone does not count as learnt, since random weights rank gene pairs by how abundant their genes are.
        """
        if self.config.by_expression:
            found = [auroc_of(of_stratum) for of_stratum in zip(*parts, strict=True)]
            (head, head_error), (counts, counts_error) = (
                within_strata(each) for each in (found[:N_STRATA], found[N_STRATA:])
            )
            alpha, gamma = self.config.alpha, self.config.gamma
            chance = sum(
                (n + p) * least_focal_loss(p, n, alpha=alpha, gamma=gamma) for _, n, p in found[:N_STRATA] if n + p
            )
            error = math.hypot(head_error, counts_error)
            verdict = ColocalizationVerdict(total.loss, total.error, chance / total.weight, head, counts, error)
            return {"auroc_colocalization": head}, verdict
        auroc, n_negative, n_positive, _ = ranked(parts)
        constant = least_focal_loss(n_positive, n_negative, alpha=self.config.alpha, gamma=self.config.gamma)
        error = auroc_error(auroc, n_negative, n_positive)
        judgement = Judgement(self.name, total.loss, total.error, constant, auroc, error, title=self.title)
        return {"auroc_colocalization": auroc}, judgement


def colocalization_logits(network: SpatialFormerNetwork, hidden: Tensor, targets: ColocalizedGenes) -> Tensor:
    """Return the co-localisation logits of the gene pairs of a batch, n_gene_pairs, in the order of its targets."""
    # Genes alone, segment by segment: an (L, L) of both cells of a pair would be mostly logits between two cells.
    genes = targets.genes
    states = hidden.flatten(0, 1).index_select(0, genes.flatten()).view(*genes.shape, hidden.shape[-1])
    logits: Tensor = network.colocalization_head(states)
    return logits.transpose(1, 2).masked_select(targets.mask)
