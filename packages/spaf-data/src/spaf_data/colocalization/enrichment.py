"""Gene pairs with more proximal transcript pairs than shuffled labels give.

The statistic of a pair (a, b) is the join count: edges of the proximity graph between a transcript of a and one of b
(Moran 1948; Cliff & Ord 1981, "Spatial Processes"). Its moments are taken with one gene held in place while the labels
of all the others are permuted over their transcripts, separately in the nucleus and outside it. Every transcript j then
has a fixed number h_j of neighbours of gene a, the join count is the sum of h over a sample without replacement of
n_b of the N transcripts that are not of a, and so (Cochran 1977, "Sampling Techniques", theorem 2.2)

    E = n_b mean(h),    Var = n_b (N - n_b) / (N - 1) var(h),

summed over compartments and, for a slide, over cells. Both directions are taken and the weaker one counts: a gene that
merely sits where transcripts are dense is close to everything, but a second gene that is spread like the rest is then
no closer to it than chance.

The larger of two p-values is conservative where both genes are spread like the rest: 2.3 % of a MERFISH slide with
shuffled labels are at most 0.05, for the two directions agree only in part (correlation of z .79 to .90). It cannot be
made smaller without losing control: where one gene sits in a dense spot its direction says nothing, the other is alone,
and 4.6 % are at most 0.05, 1.1 % at most 0.01. What the first case has to spare, the second has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from spaf_data import defaults
from spaf_data._batches import map_batches
from spaf_data.colocalization._enrichment_kernels import Joins, add_moments, count_joins, pair_position, row_starts
from spaf_data.colocalization.communities import check_min_transcripts
from spaf_data.colocalization.graph import check_radius
from spaf_data.errors import InputError
from spaf_data.grouping import add_at

if TYPE_CHECKING:
    from spaf_data.colocalization.cells import CellTranscripts

# Genes of cells whose moments are held until they are added up: about 100 MB.
_ENTRIES_AT_A_TIME = 1 << 20

# A pair is tested where this many times its expected joins would be significant among all pairs of the panel.
_FOLD, _LEVEL = 2.0, 0.05
_LEAST_EXPECTED = 1.0  # below it the tail of the moments is no good

# Why pairs are left out, for the account of a slide.
REASON = (
    "a pair of which few joins are expected cannot be significant among many tests and makes the others less so; what "
    "is expected does not depend on the outcome"
)


@dataclass(frozen=True, kw_only=True)
class PairEnrichment:
    """Enrichment of gene pairs in a slide and in its cells.

    ``statistics`` has a row for each tested pair that was seen (``observed`` above 0), sorted by (gene_a, gene_b):
    codes ``gene_a`` < ``gene_b``, ``n_cells`` with both genes, ``observed`` and ``expected`` proximal transcript pairs,
    ``z``, one-sided ``p`` and the Benjamini-Hochberg ``fdr`` over all ``n_tested``. Cell ``i`` has the scores
    ``z[indptr[i]:indptr[i + 1]]`` of the rows of ``statistics`` in ``pair``.

    Of the ``n_pairs`` of the panel ``n_too_few`` were not tested, because too few joins are expected (or these cannot
    vary), so that ``n_pairs == n_too_few + n_tested``; ``least_expected`` is the smallest number among the tested, NaN
    where there is none.
    """

    statistics: pd.DataFrame
    indptr: np.ndarray  # int64 (n_cells + 1)
    pair: np.ndarray  # int32 (n_scores), ascending in a cell
    z: np.ndarray  # float32 (n_scores)
    n_pairs: int
    n_too_few: int
    n_tested: int
    least_expected: float


def _add_cells(sums: np.ndarray, parts: Sequence[tuple[np.ndarray, ...]], n_known: int, n_threads: int | None) -> None:
    """Add the moments of the cells of some batches to the sums of all pairs, a range of genes to a thread."""
    n_entries, genes, moments, sizes = (np.concatenate(part) for part in zip(*parts, strict=True))
    indptr = np.concatenate(([0], np.cumsum(n_entries)))
    cell = np.repeat(np.arange(len(n_entries)), n_entries)
    by_gene = np.argsort(genes, kind="stable")
    gene_starts = np.searchsorted(genes[by_gene], np.arange(n_known + 1))
    rows = row_starts(n_known)

    def add(batch: slice) -> None:
        add_moments(sums, rows, batch.start, batch.stop, by_gene, gene_starts, cell, indptr, genes, moments, sizes)

    for _ in map_batches(add, np.diff(gene_starts), n_threads=n_threads):
        pass


def enrichment_p(observed: np.ndarray, expected: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the chance of at least `observed` joins, given their expectation and variance.

    Joins come in clumps, about ``variance / expected`` at a time; a Poisson number of clumps has the skewness
    ``sqrt(variance) / expected``. The tail is that of the Pearson III distribution with these three moments, with a
    continuity correction of half a join. (The normal tail is too light: with labels of a real section shuffled it
    gave 4 times too many p-values below 1e-5, this one fewer than nominal at every level.)
    """
    deviation = np.sqrt(variance)
    p = stats.pearson3.sf((observed - 0.5 - expected) / deviation, deviation / expected)
    return np.clip(np.asarray(p, dtype=np.float64), 0.0, 1.0)


def pair_enrichment(
    cells: CellTranscripts,
    *,
    radius: float = defaults.COLOCALIZATION_RADIUS,
    min_transcripts: int = defaults.COLOCALIZATION_MIN_TRANSCRIPTS,
    min_expected: float | None = None,
    cell_scores: bool = True,
    n_threads: int | None = None,
) -> PairEnrichment:
    """Test every gene pair for more proximal transcript pairs than shuffled labels give.

    Parameters
    ----------
    cells
        Transcripts of the cells, `gene` below ``cells.n_genes``. Pairs of the first ``cells.n_known`` are tested.
    radius
        Largest distance of two proximal transcripts in um, inclusive.
    min_transcripts
        Fewest transcripts of both genes in a cell for a score of that cell. Tests of the slide use all transcripts.
    min_expected
        Smallest expected join count of the slide, in both directions, for a pair to be tested. None finds it for each
        pair from the moments: a pair is tested where twice its expected joins would be significant (p at most 0.05 over
        the number of all pairs, in both directions). Either depends on the numbers of transcripts and the graph, hardly
        on the outcome, so that leaving pairs out does not bias the others (independent filtering: Bourgon et al. 2010,
        https://doi.org/10.1073/pnas.0914005107), and every pair that cannot be significant makes the others less so. In
        a panel of 1,000 genes it comes to about 50 joins, in one of 140 to 20; a fixed number of 50 loses two thirds of
        what is planted in a slide of 150 cells.
    cell_scores
        Whether single cells are scored. Without, ``pair`` and ``z`` are empty, and memory does not grow with the cells.
    n_threads
        Threads over cells, then over genes; Numba's number when None. The result does not depend on it.

    Raises
    ------
    InputError
        If `radius`, `min_transcripts`, `min_expected` or `n_threads` is not positive.

    Notes
    -----
    Cells in which both genes are present count although they hold no join. Time grows with the number of proximal
    transcript pairs and with the square of the genes in a cell; memory with 48 bytes x number of pairs of the panel
    and 12 bytes x scores of the cells.
    """
    check_radius(radius)
    check_min_transcripts(min_transcripts)
    if min_expected is not None and not min_expected > 0:
        raise InputError(f"min_expected is {min_expected}; it must be positive")
    n_genes, n_known = cells.n_genes, cells.n_known

    def join(batch: slice) -> Joins:
        return count_joins(cells, batch, float(radius), min_transcripts if cell_scores else None)

    observed = np.zeros(n_genes * (n_genes - 1) // 2, np.int64)
    sums = np.zeros((n_known * (n_known - 1) // 2, 5))
    # So that a table without cells has arrays of the right type.
    kept = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    waiting, n_waiting = [], 0
    for found in map_batches(join, cells.n_transcripts, n_threads=n_threads, done=cells.done):
        add_at(observed, found.positions, found.joins)
        waiting.append((found.n_entries, found.genes, found.moments, found.sizes))
        n_waiting += len(found.genes)
        if cell_scores:
            kept.append((found.n_scores, found.scored, found.scores))
        if n_waiting >= _ENTRIES_AT_A_TIME:
            _add_cells(sums, waiting, n_known, n_threads)
            waiting, n_waiting = [], 0
    if waiting:
        _add_cells(sums, waiting, n_known, n_threads)
    n_scores, scored, scores = (np.concatenate(part) for part in zip(*kept, strict=True))
    if not cell_scores:
        n_scores = np.zeros(len(cells.starts), np.int64)
    del kept, waiting
    gene_a, gene_b = (codes.astype(np.int64) for codes in np.triu_indices(n_known, 1))
    n_both, expected_a, variance_a, expected_b, variance_b = sums.T
    least = np.minimum(expected_a, expected_b)
    tested = (least >= (_LEAST_EXPECTED if min_expected is None else min_expected)) & (
        np.minimum(variance_a, variance_b) > 0
    )
    if min_expected is None:
        twice = _FOLD * np.maximum(expected_a, expected_b)[tested]
        within_reach = np.maximum(
            enrichment_p(twice, expected_a[tested], variance_a[tested]),
            enrichment_p(twice, expected_b[tested], variance_b[tested]),
        )
        tested[tested] = within_reach <= _LEVEL / max(len(tested), 1)
    positions = pair_position(gene_a[tested], gene_b[tested], n_genes)
    joins = observed[positions]
    moments = [(expected_a[tested], variance_a[tested]), (expected_b[tested], variance_b[tested])]
    z = np.stack([(joins - expected) / np.sqrt(variance) for expected, variance in moments])
    weaker = z.argmin(axis=0)
    p = np.maximum(*(enrichment_p(joins, expected, variance) for expected, variance in moments))
    fdr = stats.false_discovery_control(p) if len(p) else p
    # Pairs that are nowhere joined count among the tests, and say nothing else.
    seen = joins > 0
    statistics = pd.DataFrame(
        {
            "gene_a": gene_a[tested].astype(np.int32),
            "gene_b": gene_b[tested].astype(np.int32),
            "n_cells": n_both[tested].astype(np.int64),
            "observed": joins,
            "expected": np.where(weaker == 0, moments[0][0], moments[1][0]),
            "z": z.min(axis=0),
            "p": p,
            "fdr": fdr,
        }
    )[seen].reset_index(drop=True)
    number = np.full(len(observed), -1, np.int32)
    number[positions[seen]] = np.arange(len(statistics), dtype=np.int32)
    pair = number[scored]
    owner = np.repeat(np.arange(len(n_scores)), n_scores)[pair >= 0]
    score_indptr = np.zeros(len(n_scores) + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=len(n_scores)), out=score_indptr[1:])
    n_tested = int(tested.sum())
    return PairEnrichment(
        statistics=statistics,
        indptr=score_indptr,
        pair=pair[pair >= 0],
        z=scores[pair >= 0],
        n_pairs=len(tested),
        n_too_few=len(tested) - n_tested,
        n_tested=n_tested,
        least_expected=float(least[tested].min()) if n_tested else float("nan"),
    )
