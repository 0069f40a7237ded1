"""Co-localisation: which genes of a cell have their transcripts close together."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spaf_model import TokenBatch, Vocabulary
from spaf_train._checks import require_at_least, require_fraction
from spaf_train._csr import csr_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColocalizationConfig:
    """The focal loss of gene co-localisation and its weight."""

    enabled: bool = True  # False: the co-localisation head is not trained
    weight: float = 1.0  # factor of this loss in the total
    alpha: float = 0.25  # weight of a co-localised pair; the others have 1 - alpha
    gamma: float = 2.0  # how strongly pairs that are already well predicted are passed over
    ramp_down: bool = True  # the term fades linearly from 1 to 0 over the run, as published

    def __post_init__(self) -> None:
        require_at_least("weight", self.weight, 0.0)
        require_fraction("alpha", self.alpha)
        require_at_least("gamma", self.gamma, 0.0)


@dataclasses.dataclass(frozen=True)
class ColocalizedGenes:
    """Gene pairs of a batch and whether they are co-localised.

    A gene pair is two positions i < j of one row and one segment that both hold genes. `positions` are positions in
    the flattened (B, L, L) logits.
    """

    positions: Tensor  # int64 (n_gene_pairs,)
    targets: Tensor  # float32 (n_gene_pairs,): 1 for co-localised, 0 otherwise

    @property
    def weight(self) -> float:
        """What the summed loss of this batch is divided by: the number of gene pairs."""
        return float(self.positions.numel())

    def to(self, device: torch.device) -> ColocalizedGenes:
        """Return the same on another device."""
        return ColocalizedGenes(self.positions.to(device), self.targets.to(device))


@functools.lru_cache(maxsize=4)
def _triangle(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all i < j below n, ordered by j: the pairs of a smaller n are a prefix of those of a larger one."""
    high, low = np.tril_indices(n, -1)
    return low, high


def colocalized_genes(
    batch: TokenBatch,
    cells: NDArray[np.int64],
    edge_indptr: NDArray[np.int64],
    edges: NDArray[np.int64],
    vocabulary: Vocabulary,
) -> ColocalizedGenes:
    """List the gene pairs of a batch and look up which are co-localised.

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

    Notes
    -----
    Genes are matched by token id and not by rank, so a label cannot end up at another gene. Time and memory grow with
    the number of gene pairs, and no B x L x L array is made.
    """
    ids = batch.ids.numpy()
    n_rows, length = ids.shape
    is_gene = np.zeros(vocabulary.n_tokens, dtype=bool)
    is_gene[vocabulary.gene_token_ids] = True

    # Genes of each segment in ascending position: (segment, place within the segment) <-> column.
    owner = cells.reshape(-1)
    rows, columns = np.nonzero(is_gene[ids])
    segments = 2 * rows + batch.types.numpy()[rows, columns] - 1
    known_cell = owner[segments] >= 0
    segments, columns = segments[known_cell], columns[known_cell]
    n_genes = np.bincount(segments, minlength=2 * n_rows)
    first_gene = np.cumsum(n_genes) - n_genes
    columns = columns[np.argsort(segments, kind="stable")]
    n_pairs = n_genes * (n_genes - 1) // 2
    first_pair = np.cumsum(n_pairs) - n_pairs

    # Every pair of places low < high of every segment, ordered by segment, then high, then low.
    low, high = _triangle(1 << int(max(n_genes.max(initial=0), 2) - 1).bit_length())
    of_pair = np.repeat(np.arange(2 * n_rows), n_pairs)
    within = np.arange(n_pairs.sum()) - first_pair[of_pair]
    start = first_gene[of_pair]
    positions = (of_pair // 2 * length + columns[start + low[within]]) * length + columns[start + high[within]]

    place = np.full((2 * n_rows, vocabulary.n_tokens), -1, dtype=np.int64)
    order = np.arange(columns.size)
    sorted_segments = np.repeat(np.arange(2 * n_rows), n_genes)
    place[sorted_segments, ids[sorted_segments // 2, columns]] = order - first_gene[sorted_segments]

    filled = np.flatnonzero(owner >= 0)
    index, counts = csr_rows(edge_indptr, owner[filled])
    of_edge = np.repeat(filled, counts)
    genes = edges[index]
    known = (genes >= 0).all(axis=1)
    of_edge, genes = of_edge[known], genes[known]
    one, other = place[of_edge, genes[:, 0]], place[of_edge, genes[:, 1]]
    present = (one >= 0) & (other >= 0)
    of_edge, one, other = of_edge[present], one[present], other[present]
    top = np.maximum(one, other)
    targets = np.zeros(positions.size, dtype=np.float32)
    targets[first_pair[of_edge] + top * (top - 1) // 2 + np.minimum(one, other)] = 1.0
    return ColocalizedGenes(torch.from_numpy(positions), torch.from_numpy(targets))


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
