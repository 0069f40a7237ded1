"""What genes do to the score of pairs of cells: single genes, interactions of gene pairs, and their statistics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from spaf_model import PerturbedPair

_BINS = 10  # of genes by how often they are detected
_MOST_VALUES = 1 << 28  # gene pairs x pairs of cells that are held, 1 GiB
_COLUMNS_AT_ONCE = 4_096
_RIDGE = 1e-6  # of the variance of amounts
CONTROLS = 20  # gene pairs of the same expression that each is ranked among


@dataclass(frozen=True)
class GenePairSet:
    """Gene pairs that are looked at: a gene of the left cell and one of the right, columns of the table.

    Attributes
    ----------
    first, second
        The two genes. Where both cells are of one type a pair has no order, and ``first <= second``.
    has_order
        Whether it has.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    has_order: bool

    def __len__(self) -> int:
        """Return the number of gene pairs."""
        return len(self.first)

    def take(self, rows: NDArray[np.int64]) -> GenePairSet:
        """Return some of the gene pairs."""
        return GenePairSet(self.first[rows], self.second[rows], self.has_order)

    def wanted(self, n_genes: int) -> NDArray[np.bool_]:
        """Return the gene pairs as a table (n_genes, n_genes) of left x right."""
        wanted = np.zeros((n_genes, n_genes), dtype=bool)
        wanted[self.first, self.second] = True
        return wanted if self.has_order else wanted | wanted.T


@dataclass(frozen=True)
class Perturbed:
    """What a model said of pairs of cells.

    Attributes
    ----------
    score
        (n_pairs,), NaN where a cell has no gene of the model.
    single_left, single_right
        (n_pairs, n_genes) changes by single genes; NaN where the model reads no such gene of the cell.
    interaction
        (n_pairs, n of the gene pairs), one value a pair of cells; NaN where it has not both genes.
    additive_r2
        Share of the variance of what gene pairs change that the sum of both single changes explains.
    n_values
        Changes by gene pairs behind it.
    """

    score: NDArray[np.float64]
    single_left: NDArray[np.float32]
    single_right: NDArray[np.float32]
    interaction: NDArray[np.float32]
    additive_r2: float
    n_values: int


def seen_gene_pairs(
    left: NDArray[np.bool_], right: NDArray[np.bool_], near: NDArray[np.bool_], *, min_pairs: int, has_order: bool
) -> GenePairSet:
    """Return the gene pairs that enough near and enough far pairs of cells have.

    Parameters
    ----------
    left, right
        (n_pairs, n_genes), which genes the two cells have.
    near
        Which pairs of cells are near.
    min_pairs
        Of either kind.
    has_order
        Whether a gene of the left cell is another thing than one of the right.
    """
    seen = np.ones((left.shape[1], left.shape[1]), dtype=bool)
    for rows in (near, ~near):
        one, other = left[rows].astype(np.float32), right[rows].astype(np.float32)
        both = one.T @ other
        if not has_order:
            both = both + both.T - (one * other).T @ (one * other)
        seen &= both >= min_pairs
    if not has_order:
        seen = np.triu(seen)
    first, second = np.nonzero(seen)
    return GenePairSet(first.astype(np.int64), second.astype(np.int64), has_order)


def is_too_much(n_pairs: int, n_gene_pairs: int) -> bool:
    """Return whether so many values are more than are held at once."""
    return n_pairs * n_gene_pairs > _MOST_VALUES


def collect(asked: Iterable[PerturbedPair], n_pairs: int, n_genes: int, gene_pairs: GenePairSet) -> Perturbed:
    """Put what a model says, pair by pair, into tables of the genes and gene pairs that are looked at."""
    score = np.full(n_pairs, np.nan)
    single_left, single_right = np.full((2, n_pairs, n_genes), np.nan, dtype=np.float32)
    interaction = np.full((n_pairs, len(gene_pairs)), np.nan, dtype=np.float32)
    n, total, square, apart = 0, 0.0, 0.0, 0.0
    for row, pair in enumerate(asked):
        score[row] = pair.score
        single_left[row, pair.genes_left] = pair.delta_left
        single_right[row, pair.genes_right] = pair.delta_right
        interaction[row] = _of_gene_pairs(pair, gene_pairs, n_genes)
        both = pair.interaction + pair.delta_left[:, None] + pair.delta_right
        known = np.isfinite(both)
        n += int(known.sum())
        total += float(both[known].sum())
        square += float((both[known] ** 2).sum())
        apart += float((pair.interaction[known] ** 2).sum())
    variance = square - total**2 / max(n, 1)
    r2 = 1 - apart / variance if variance > 0 else float("nan")
    return Perturbed(score, single_left, single_right, interaction, r2, n)


def _of_gene_pairs(pair: PerturbedPair, gene_pairs: GenePairSet, n_genes: int) -> NDArray[np.float64]:
    """Return one value for each gene pair that two cells have."""
    rows, columns = np.full((2, n_genes), -1, dtype=np.int64)
    rows[pair.genes_left], columns[pair.genes_right] = np.arange(len(pair.genes_left)), np.arange(len(pair.genes_right))
    framed = np.pad(pair.interaction, ((0, 1), (0, 1)), constant_values=np.nan)  # -1 is what no cell has
    value = framed[rows[gene_pairs.first], columns[gene_pairs.second]]
    if not gene_pairs.has_order:
        other = framed[rows[gene_pairs.second], columns[gene_pairs.first]]
        value = np.where(np.isnan(value), other, np.where(np.isnan(other), value, (value + other) / 2))
    return np.asarray(value)


def leading(found: Perturbed, gene_pairs: GenePairSet, share: float) -> NDArray[np.int64]:
    """Return the share of gene pairs whose single changes have the largest product, whatever is near and far.

    The mean of |delta_i delta_j| over all pairs of cells that have both genes.
    """
    left, right = (np.nan_to_num(np.abs(single)) for single in (found.single_left, found.single_right))
    has_left, has_right = (np.isfinite(each).astype(np.float32) for each in (found.single_left, found.single_right))
    total, n = left.T @ right, has_left.T @ has_right
    if not gene_pairs.has_order:
        total, n = total + total.T, n + n.T
    product = (total / np.maximum(n, 1))[gene_pairs.first, gene_pairs.second]
    kept = max(int(np.ceil(share * len(gene_pairs))), 1)
    return np.sort(np.argsort(-product, kind="stable")[:kept])


def beyond_amounts(
    values: NDArray[np.float32], gene_pairs: GenePairSet, left: NDArray[np.float32], right: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return interactions less what follows, linearly, from how much there is of either gene.

    A model's interaction of two genes grows with the amount of each, so near cells that have more of one gene would
    differ from far ones without that the two genes act together. What is left of a product of amounts is its
    covariance.

    Parameters
    ----------
    values
        (n_pairs, n of the gene pairs); NaN where a pair of cells has not both.
    gene_pairs
        What the columns are.
    left, right
        (n_pairs, n_genes), logarithms of the counts of the two cells.
    """
    result = np.empty_like(values)
    for start in range(0, len(gene_pairs), _COLUMNS_AT_ONCE):
        some = slice(start, start + _COLUMNS_AT_ONCE)
        first, second = gene_pairs.first[some], gene_pairs.second[some]
        one, other = left[:, first], right[:, second]
        if not gene_pairs.has_order:
            one, other = one + right[:, first], left[:, second] + other
        value = values[:, some]
        known = np.isfinite(value)
        n = np.maximum(known.sum(axis=0), 1)
        centred = []
        for each in (value, one, other):
            filled = np.where(known, each, 0.0).astype(np.float64)
            centred.append(np.where(known, filled - filled.sum(axis=0) / n, 0.0))
        y, a, b = centred
        aa, bb, ab = (a * a).sum(axis=0), (b * b).sum(axis=0), (a * b).sum(axis=0)
        ya, yb = (y * a).sum(axis=0), (y * b).sum(axis=0)
        # Two amounts that are one and the same, or do not vary, take nothing away twice.
        aa, bb = aa + _RIDGE * n, bb + _RIDGE * n
        determinant = aa * bb - ab * ab
        of_a, of_b = (ya * bb - yb * ab) / determinant, (yb * aa - ya * ab) / determinant
        result[:, some] = np.where(known, y - of_a * a - of_b * b, np.nan)
    return result


def expression_controls(
    gene_pairs: GenePairSet, left: NDArray[np.bool_], right: NDArray[np.bool_], usable: NDArray[np.bool_], *, seed: int
) -> NDArray[np.int64]:
    """Return for each gene pair others whose genes are detected as often, at random.

    Parameters
    ----------
    gene_pairs
        All of them.
    left, right
        (n_pairs, n_genes), which genes the cells have.
    usable
        Which gene pairs may be controls.
    seed
        Of the choice.

    Returns
    -------
    array
        (n of the gene pairs, 20), positions; -1 where there are not so many.
    """
    rng = np.random.default_rng(seed)
    if not gene_pairs.has_order:
        left = right = np.concatenate([left, right])
    bins = np.stack([_bins(left.mean(axis=0))[gene_pairs.first], _bins(right.mean(axis=0))[gene_pairs.second]])
    if not gene_pairs.has_order:
        bins = np.sort(bins, axis=0)
    group = bins[0] * _BINS + bins[1]
    controls = np.full((len(gene_pairs), CONTROLS), -1, dtype=np.int64)
    for one in np.unique(group):
        members = np.flatnonzero(group == one)
        others = members[usable[members]]
        if len(others) < 2:
            continue
        drawn = others[rng.integers(0, len(others), (len(members), CONTROLS))]
        # A gene pair is no control of itself.
        controls[members] = np.where(drawn == members[:, None], -1, drawn)
    return controls


def control_rank(size: NDArray[np.float64], controls: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return where each size stands among those of its controls: 1 / (n + 1) is the largest; NaN without controls."""
    there = controls >= 0
    as_large = (size[controls] >= size[:, None]) & there
    n = there.sum(axis=1)
    return np.where((n > 0) & np.isfinite(size), (1 + as_large.sum(axis=1)) / (1 + n), np.nan)


def _bins(rate: NDArray[np.floating]) -> NDArray[np.int64]:
    seen = rate[rate > 0]
    edges = np.quantile(seen, np.linspace(0, 1, _BINS + 1)[1:-1]) if seen.size else np.zeros(_BINS - 1)
    return np.searchsorted(edges, rate, side="right").astype(np.int64)
