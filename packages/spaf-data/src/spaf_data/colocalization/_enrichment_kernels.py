"""The loops behind `pair_enrichment`: joins of every two genes in cells, and the sums of their moments over cells."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from spaf_data.colocalization.graph import add_neighbours, arrange

if TYPE_CHECKING:
    from spaf_data.colocalization.cells import CellTranscripts


class Joins(NamedTuple):
    """Joins of the genes of some cells. An entry is a gene that a cell has; those of a cell are sorted by gene."""

    n_entries: np.ndarray  # int64 (n_cells)
    genes: np.ndarray  # int32 (n_entries)
    moments: np.ndarray  # float64 (n_entries, 6), see `_join_cells`
    sizes: np.ndarray  # float64 (n_cells, 2), transcripts outside the nucleus and inside
    positions: np.ndarray  # int64 (n_joined), the pairs of genes with joins, by `pair_position`
    joins: np.ndarray  # int32 (n_joined), how many
    n_scores: np.ndarray  # int64 (n_cells)
    scored: np.ndarray  # int64 (n_scores), the pairs of genes with a score
    scores: np.ndarray  # float32 (n_scores)


def pair_position(a, b, n_genes):  # type: ignore[no-untyped-def]
    """Position of the pair a < b among all pairs of `n_genes` genes in the order (0, 1), (0, 2) ... (1, 2) ..."""
    return a * (2 * n_genes - a - 1) // 2 + b - a - 1


def row_starts(n_genes: int) -> np.ndarray:
    """Return for each gene a what is added to a later gene b for the position of their pair."""
    a = np.arange(n_genes, dtype=np.int64)
    starts: np.ndarray = pair_position(a, 0, n_genes)
    return starts


def count_joins(cells: CellTranscripts, batch: slice, radius: float, min_transcripts: int | None) -> Joins:
    """Count the joins of the cells of a batch; score pairs of genes with `min_transcripts` each in a cell, if given."""
    n_genes = cells.n_genes
    rows, first = cells.rows(np.arange(batch.start, batch.stop))
    n_cells = len(first) - 1
    gene = cells.gene[rows]
    nodes = arrange(cells.x[rows], cells.y[rows], cells.z[rows], gene, first, radius)
    # The nodes of a cell by their genes; entries begin where the gene or the cell changes.
    key = np.repeat(np.arange(n_cells) * n_genes, np.diff(first)) + gene[nodes.order]
    members = np.argsort(key)
    entries, first_member = np.unique(key[members], return_index=True)
    first_member = np.append(first_member, len(members))
    entry_cell, genes = np.divmod(entries, n_genes)
    n_entries = np.bincount(entry_cell, minlength=n_cells)
    first_entry = np.concatenate(([0], np.cumsum(n_entries)))
    moments, sizes = np.zeros((len(genes), 6)), np.zeros((n_cells, 2))
    # No more than the pairs of entries of a cell, nor than its candidates; what is not written takes no memory.
    candidates = np.concatenate(([0], np.cumsum((nodes.high - nodes.low).sum(axis=1))))
    most = int(np.minimum(n_entries * (n_entries - 1) // 2, np.diff(candidates[first])).sum()) + int(n_entries.sum())
    first_join = np.zeros(len(genes) + 1, np.int64)
    b_joined, joins = np.empty(most, np.int32), np.empty(most, np.int32)
    widest = int(np.diff(first).max(initial=0))
    n_joined = _join_cells(
        nodes.x, nodes.y, nodes.z, nodes.low, nodes.high, radius, first,
        cells.compartment[rows][nodes.order].astype(np.float64), members, first_member, first_entry,
        np.empty(widest), np.empty(widest + 1), moments, sizes, first_join, b_joined, joins,
    )  # fmt: skip
    b_joined, joins = b_joined[:n_joined], joins[:n_joined].copy()
    positions = np.repeat(row_starts(n_genes)[genes], np.diff(first_join)) + genes[b_joined]
    n_scores = np.zeros(n_cells, np.int64)
    scored, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    if min_transcripts is not None:
        scored, scores = np.empty(n_joined, np.int64), np.empty(n_joined, np.float32)
        n_scored = _score_joins(
            first_entry, moments, sizes, first_join, b_joined, joins, positions, min_transcripts,
            n_scores, scored, scores,
        )  # fmt: skip
        scored, scores = scored[:n_scored].copy(), scores[:n_scored].copy()
    return Joins(n_entries, genes.astype(np.int32), moments, sizes, positions, joins, n_scores, scored, scores)


# Sums of whole numbers are exact in any order, so the loops may be split over the lanes of vector instructions.
@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _sums(near, inside):  # type: ignore[no-untyped-def]
    """Sum and sum of squares of `near` outside and inside, `inside` being 0 or 1."""
    total = 0.0
    squares = 0.0
    total_inside = 0.0
    squares_inside = 0.0
    for j in range(len(near)):
        total += near[j]
        squares += near[j] * near[j]
        total_inside += near[j] * inside[j]
        squares_inside += near[j] * near[j] * inside[j]
    return (total - total_inside, total_inside), (squares - squares_inside, squares_inside)


@njit(cache=True, nogil=True)
def _join_cells(  # type: ignore[no-untyped-def]
    x, y, z, low, high, radius, first, inside, members, first_member, first_entry,
    near, before, moments, sizes, first_join, b_joined, joins,
):  # fmt: skip
    """Count the joins of every two genes of each cell, and describe the neighbourhoods of each gene.

    `members` are the nodes of all cells by cell and gene, those of entry e from ``first_member[e]`` on; `inside` is 1.0
    in the nucleus, 0.0 outside; `near` and `before` are scratch for the nodes of a cell.
    Writes ``moments``, for each gene a its transcripts outside and inside, then, also for both, the mean of h over the
    N transcripts there that are not of a and their variance divided by N - 1; ``sizes``, the transcripts outside and
    inside; and the joins above zero of a < b: those of a are ``b_joined[first_join[a]:first_join[a + 1]]``, entries,
    ascending, and their number in ``joins``. Returns how many there are.
    """
    n_joined = 0
    for cell in range(len(first) - 1):
        start = first[cell]
        n = first[cell + 1] - start
        rows = slice(start, first[cell + 1])
        x_, y_, z_, low_, high_, inside_ = x[rows], y[rows], z[rows], low[rows], high[rows], inside[rows]
        members_, near_ = members[rows], near[:n]
        size = sizes[cell]
        for i in range(n):
            members_[i] -= start
            size[np.int64(inside_[i])] += 1
        for a in range(first_entry[cell], first_entry[cell + 1]):
            of_a = moments[a]
            begin, end = first_member[a] - start, first_member[a + 1] - start
            near_[:] = 0
            for i in members_[begin:end]:
                add_neighbours(x_, y_, z_, low_, high_, radius, i, near_)
                of_a[np.int64(inside_[i])] += 1
            # Running sums over the transcripts in the order of their genes: genes of few transcripts cost no branch.
            running = 0.0
            before[end] = 0.0
            for p in range(end, n):
                running += near_[members_[p]]
                before[p + 1] = running
            for b in range(a + 1, first_entry[cell + 1]):
                of_b = before[first_member[b + 1] - start] - before[first_member[b] - start]
                b_joined[n_joined] = b
                joins[n_joined] = np.int32(of_b)
                n_joined += of_b > 0
            first_join[a + 1] = n_joined
            for i in members_[begin:end]:
                near_[i] = 0
            total, squares = _sums(near_, inside_)
            for s in range(2):
                others = size[s] - of_a[s]
                if others > 0:
                    mean = total[s] / others
                    of_a[2 + s] = mean
                    if others > 1:
                        variance = squares[s] / others - mean * mean
                        of_a[4 + s] = variance / (others - 1) if variance > 0.0 else 0.0
    return n_joined


@njit(cache=True, nogil=True)
def _sampled_moments(of_a, of_b, size):  # type: ignore[no-untyped-def]
    """Return expectation and variance of the joins of a and b with a held in place, given their ``moments``."""
    expected = of_b[0] * of_a[2] + of_b[1] * of_a[3]
    variance = of_b[0] * (size[0] - of_a[0] - of_b[0]) * of_a[4] + of_b[1] * (size[1] - of_a[1] - of_b[1]) * of_a[5]
    return expected, variance


@njit(cache=True, nogil=True)
def _score_joins(  # type: ignore[no-untyped-def]
    first_entry, moments, sizes, first_join, b_joined, joins, positions, min_transcripts, n_scores, scored, scores
):
    """Write the scores of the joins of genes that are frequent in a cell, and return how many there are."""
    n = 0
    for cell in range(len(n_scores)):
        size = sizes[cell]
        for a in range(first_entry[cell], first_entry[cell + 1]):
            of_a = moments[a]
            if of_a[0] + of_a[1] < min_transcripts:
                continue
            for t in range(first_join[a], first_join[a + 1]):
                of_b = moments[b_joined[t]]
                if of_b[0] + of_b[1] < min_transcripts:
                    continue
                expected_a, variance_a = _sampled_moments(of_a, of_b, size)
                expected_b, variance_b = _sampled_moments(of_b, of_a, size)
                if variance_a > 0 and variance_b > 0:
                    z_a = (joins[t] - expected_a) / math.sqrt(variance_a)
                    z_b = (joins[t] - expected_b) / math.sqrt(variance_b)
                    scored[n] = positions[t]
                    scores[n] = z_a if z_a < z_b else z_b
                    n_scores[cell] += 1
                    n += 1
    return n


@njit(cache=True, nogil=True)
def add_moments(sums, rows, first_gene, last_gene, by_gene, gene_starts, cell, indptr, genes, moments, sizes):  # type: ignore[no-untyped-def]
    """Add the moments of some cells, in their order, to the sums of all pairs of some genes with later ones.

    `sums` has a row for each pair in the order of `pair_position`: cells with both, then expectation and variance with
    a held in place, and with b; `rows` are `row_starts` of these genes.
    """
    n_known = len(gene_starts) - 1
    for a in range(first_gene, last_gene):
        row = rows[a]
        for entry in by_gene[gene_starts[a] : gene_starts[a + 1]]:
            c = cell[entry]
            size = sizes[c]
            of_a = moments[entry]
            for other in range(entry + 1, indptr[c + 1]):
                b = genes[other]
                if b >= n_known:
                    break
                of_b = moments[other]
                expected_a, variance_a = _sampled_moments(of_a, of_b, size)
                expected_b, variance_b = _sampled_moments(of_b, of_a, size)
                of_pair = sums[row + b]
                of_pair[0] += 1
                of_pair[1] += expected_a
                of_pair[2] += variance_a
                of_pair[3] += expected_b
                of_pair[4] += variance_b
