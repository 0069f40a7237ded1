"""The loops behind `pair_enrichment`: joins of every two genes in cells, and the sums of their moments over cells."""

import numpy as np
from numba import njit

from spaf_data.colocalization.graph import add_neighbours, arrange
from spaf_data.grouping import group_nodes


@njit(cache=True, nogil=True)
def pair_position(a, b, n_genes):  # type: ignore[no-untyped-def]
    """Position of the pair a < b among all pairs of `n_genes` genes in the order (0, 1), (0, 2) ... (1, 2) ..."""
    return a * (2 * n_genes - a - 1) // 2 + b - a - 1


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
def join_counts(graph, labels, n_labels, inside):  # type: ignore[no-untyped-def]
    """Count the joins of every two genes of a cell, and describe the neighbourhoods of each gene.

    `labels` are the genes of the nodes, numbered from 0 without gaps; `inside` is 1.0 in the nucleus, 0.0 outside.
    Returns ``moments``, for each gene a its transcripts outside and inside, then, also for both, the mean of h over the
    N transcripts there that are not of a and their variance divided by N - 1; the transcripts outside and inside; and
    the joins above zero of a < b: those of a are ``b_joined[first_join[a]:first_join[a + 1]]``, ascending, and their
    number in ``joins``.
    """
    n = len(labels)
    members, first = group_nodes(labels, n_labels)
    size = np.zeros(2)
    moments = np.zeros((n_labels, 6))
    for i in range(n):
        size[np.int64(inside[i])] += 1
        moments[labels[i], np.int64(inside[i])] += 1
    near = np.empty(n)
    before = np.zeros(n + 1)
    first_join = np.zeros(n_labels + 1, np.int64)
    b_joined = np.empty(16 * n_labels, np.int32)
    joins = np.empty(16 * n_labels, np.int32)
    n_joined = 0
    for a in range(n_labels):
        near[:] = 0
        for i in members[first[a] : first[a + 1]]:
            add_neighbours(graph, i, near)
        if n_joined + n_labels > len(joins):
            b_joined = np.concatenate((b_joined, np.empty(n_joined + n_labels, np.int32)))
            joins = np.concatenate((joins, np.empty(n_joined + n_labels, np.int32)))
        # Running sums over the transcripts in the order of their genes: genes of few transcripts cost no branch.
        running = 0.0
        for p in range(first[a + 1], n):
            running += near[members[p]]
            before[p + 1] = running
        before[first[a + 1]] = 0.0
        for b in range(a + 1, n_labels):
            of_b = before[first[b + 1]] - before[first[b]]
            b_joined[n_joined] = b
            joins[n_joined] = np.int32(of_b)
            n_joined += of_b > 0
        first_join[a + 1] = n_joined
        for i in members[first[a] : first[a + 1]]:
            near[i] = 0
        total, squares = _sums(near, inside)
        for s in range(2):
            others = size[s] - moments[a, s]
            if others > 0:
                mean = total[s] / others
                moments[a, 2 + s] = mean
                if others > 1:
                    moments[a, 4 + s] = max(squares[s] / others - mean * mean, 0.0) / (others - 1)
    return moments, size, first_join, b_joined, joins


@njit(cache=True, nogil=True)
def sampled_moments(of_a, of_b, size):  # type: ignore[no-untyped-def]
    """Return expectation and variance of the joins of a and b with a held in place, given their ``moments``."""
    expected = of_b[0] * of_a[2] + of_b[1] * of_a[3]
    variance = of_b[0] * (size[0] - of_a[0] - of_b[0]) * of_a[4] + of_b[1] * (size[1] - of_a[1] - of_b[1]) * of_a[5]
    return expected, variance


@njit(cache=True, nogil=True)
def batch_joins(x, y, z, gene, compartment, starts, stops, n_genes, radius, min_transcripts):  # type: ignore[no-untyped-def]
    n_cells = len(starts)
    n_entries = np.zeros(n_cells, np.int64)
    most = np.int64(0)
    for cell in range(n_cells):
        most += min(stops[cell] - starts[cell], n_genes)
    genes = np.empty(most, np.int32)
    moments = np.empty((most, 6))
    sizes = np.zeros((n_cells, 2))
    positions = np.empty(4096, np.int64)
    joins = np.empty(4096, np.int64)
    n_scores = np.zeros(n_cells, np.int64)
    scored = np.empty(256, np.int64)
    scores = np.empty(256, np.float32)
    slot = np.empty(n_genes, np.int32)
    e = 0
    k = 0
    m = 0
    for cell in range(n_cells):
        rows = slice(starts[cell], stops[cell])
        order, graph = arrange(x[rows], y[rows], z[rows], gene[rows], radius)
        codes = gene[rows][order]
        present = np.unique(codes)
        n_present = len(present)
        slot[present] = np.arange(n_present)
        inside = compartment[rows][order].astype(np.float64)
        of_cell, size, first_join, b_joined, number = join_counts(graph, slot[codes], n_present, inside)
        n_entries[cell] = n_present
        genes[e : e + n_present] = present
        moments[e : e + n_present] = of_cell
        sizes[cell] = size
        e += n_present
        n_joined = first_join[n_present]
        if k + n_joined > len(positions):
            positions = np.concatenate((positions, np.empty(k + n_joined, np.int64)))
            joins = np.concatenate((joins, np.empty(k + n_joined, np.int64)))
        if m + n_joined > len(scored):
            scored = np.concatenate((scored, np.empty(m + n_joined, np.int64)))
            scores = np.concatenate((scores, np.empty(m + n_joined, np.float32)))
        for a in range(n_present):
            frequent = of_cell[a, 0] + of_cell[a, 1] >= min_transcripts
            row = pair_position(present[a], present[a] + 1, n_genes) - present[a] - 1
            for t in range(first_join[a], first_join[a + 1]):
                b = b_joined[t]
                position = row + present[b]
                positions[k] = position
                joins[k] = number[t]
                k += 1
                if not frequent or of_cell[b, 0] + of_cell[b, 1] < min_transcripts:
                    continue
                expected_a, variance_a = sampled_moments(of_cell[a], of_cell[b], size)
                expected_b, variance_b = sampled_moments(of_cell[b], of_cell[a], size)
                if variance_a > 0 and variance_b > 0:
                    z_a = (number[t] - expected_a) / np.sqrt(variance_a)
                    z_b = (number[t] - expected_b) / np.sqrt(variance_b)
                    scored[m] = position
                    scores[m] = min(z_a, z_b)
                    n_scores[cell] += 1
                    m += 1
    # Copies, for the arrays are sized for the worst case.
    return (
        n_entries,
        genes[:e].copy(),
        moments[:e].copy(),
        sizes,
        positions[:k],
        joins[:k],
        n_scores,
        scored[:m].copy(),
        scores[:m].copy(),
    )


@njit(cache=True, nogil=True)
def add_moments(sums, first_gene, last_gene, by_gene, gene_starts, cell, indptr, genes, moments, sizes):  # type: ignore[no-untyped-def]
    """Add the moments of some cells, in their order, to the sums of all pairs of some genes with later ones.

    `sums` has a row for each pair in the order of `pair_position`: cells with both, then expectation and variance with
    a held in place, and with b.
    """
    n_known = len(gene_starts) - 1
    for a in range(first_gene, last_gene):
        row = pair_position(a, a + 1, n_known) - a - 1
        for entry in by_gene[gene_starts[a] : gene_starts[a + 1]]:
            c = cell[entry]
            size = sizes[c]
            of_a = moments[entry]
            for other in range(entry + 1, indptr[c + 1]):
                b = genes[other]
                if b >= n_known:
                    break
                of_b = moments[other]
                expected_a, variance_a = sampled_moments(of_a, of_b, size)
                expected_b, variance_b = sampled_moments(of_b, of_a, size)
                of_pair = sums[row + b]
                of_pair[0] += 1
                of_pair[1] += expected_a
                of_pair[2] += variance_a
                of_pair[3] += expected_b
                of_pair[4] += variance_b
