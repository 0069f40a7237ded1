"""The loops behind `gene_proximity`: proximal pairs inside cells and between close ones, and what is expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from spaf_data.colocalization.graph import arrange, neighbours, widest_row

if TYPE_CHECKING:
    from spaf_data.colocalization.cells import CellTranscripts


def near_cells(cells: CellTranscripts, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return for each cell the later cells whose bounding box, widened by the radius, meets its own."""
    boxes = _bounding_boxes(cells.x, cells.y, cells.starts, cells.stops)
    order = np.argsort(boxes[:, 0], kind="stable")
    first, second = _meeting_boxes(boxes[order], radius)
    pair = np.sort(np.column_stack([order[first], order[second]]), axis=1)
    pair = pair[np.lexsort((pair[:, 1], pair[:, 0]))]
    indptr = np.zeros(len(boxes) + 1, np.int64)
    np.cumsum(np.bincount(pair[:, 0], minlength=len(boxes)), out=indptr[1:])
    return indptr, np.ascontiguousarray(pair[:, 1])


@njit(cache=True, nogil=True)
def _bounding_boxes(x, y, starts, stops):  # type: ignore[no-untyped-def]
    """Return the least and largest x and y of each cell, shape (n_cells, 4)."""
    boxes = np.empty((len(starts), 4))
    for cell in range(len(starts)):
        boxes[cell, :2] = np.inf
        boxes[cell, 2:] = -np.inf
        for i in range(starts[cell], stops[cell]):
            boxes[cell, 0] = min(boxes[cell, 0], x[i])
            boxes[cell, 1] = min(boxes[cell, 1], y[i])
            boxes[cell, 2] = max(boxes[cell, 2], x[i])
            boxes[cell, 3] = max(boxes[cell, 3], y[i])
    return boxes


@njit(cache=True, nogil=True)
def _meeting_boxes(boxes, radius):  # type: ignore[no-untyped-def]
    """Return the pairs of boxes, sorted by their least x, that come within the radius in x and in y."""
    first = np.empty(1024, np.int64)
    second = np.empty(1024, np.int64)
    n = 0
    for i in range(len(boxes)):
        j = i + 1
        while j < len(boxes) and boxes[j, 0] <= boxes[i, 2] + radius:
            if boxes[j, 1] <= boxes[i, 3] + radius and boxes[i, 1] <= boxes[j, 3] + radius:
                if n == len(first):
                    first = np.concatenate((first, np.empty(n, np.int64)))
                    second = np.concatenate((second, np.empty(n, np.int64)))
                first[n] = i
                second[n] = j
                n += 1
            j += 1
    return first[:n], second[:n]


@njit(cache=True, nogil=True)
def count_pairs(x, y, z, gene, starts, stops, near_indptr, near, first_cell, last_cell, n_genes, radius):  # type: ignore[no-untyped-def]
    """Count the proximal pairs inside some cells and between each and the later cells near it.

    Returns positions ``a * n_genes + b``, a <= b, and numbers of pairs to be added there; and for each cell with
    itself and with each of those near it, the two cells and the number of their pairs.
    """
    positions = np.empty(4096, np.int64)
    numbers = np.empty(4096, np.int64)
    n_positions = 0
    n_joined = (last_cell - first_cell) + (near_indptr[last_cell] - near_indptr[first_cell])
    joined = np.empty((3, n_joined), np.int64)
    j = 0
    slot = np.empty(n_genes, np.int32)
    for cell in range(first_cell, last_cell):
        others = near[near_indptr[cell] : near_indptr[cell + 1]]
        nodes, part = _with_neighbours(x, y, starts, stops, cell, others, radius)
        order, graph = arrange(x[nodes], y[nodes], z[nodes], gene[nodes], radius)
        codes = gene[nodes][order]
        part = part[order]
        present = np.unique(codes)
        slot[present] = np.arange(len(present))
        pairs = np.zeros((len(present), len(present)), np.int64)
        of_part = np.zeros(len(others) + 1, np.int64)
        buffer = np.empty(widest_row(graph), np.int32)
        for i in range(len(codes)):
            if part[i] > 0:
                continue
            row, start, stop = neighbours(graph, i, buffer)
            for k in row[start:stop]:
                if part[k] == 0 and k < i:
                    continue
                a, b = slot[codes[i]], slot[codes[k]]
                pairs[min(a, b), max(a, b)] += 1
                of_part[part[k]] += 1
        for p in range(len(of_part)):
            joined[0, j] = cell
            joined[1, j] = cell if p == 0 else others[p - 1]
            joined[2, j] = of_part[p]
            j += 1
        if n_positions + pairs.size > len(positions):
            positions = np.concatenate((positions, np.empty(n_positions + pairs.size, np.int64)))
            numbers = np.concatenate((numbers, np.empty(n_positions + pairs.size, np.int64)))
        for a in range(len(present)):
            for b in range(a, len(present)):
                if pairs[a, b] > 0:
                    positions[n_positions] = np.int64(present[a]) * n_genes + present[b]
                    numbers[n_positions] = pairs[a, b]
                    n_positions += 1
    return positions[:n_positions], numbers[:n_positions], joined[0], joined[1], joined[2]


@njit(cache=True, nogil=True)
def _with_neighbours(x, y, starts, stops, cell, others, radius):  # type: ignore[no-untyped-def]
    """Return the transcripts of a cell and those of others near its bounding box; and 0, or 1, 2 ... for the others."""
    own = np.arange(starts[cell], stops[cell])
    if len(others) == 0:
        return own, np.zeros(len(own), np.int64)
    most = len(own)
    for other in others:
        most += stops[other] - starts[other]
    nodes = np.empty(most, np.int64)
    part = np.zeros(most, np.int64)
    nodes[: len(own)] = own
    n = len(own)
    rows = slice(starts[cell], stops[cell])
    # A little wider than the radius, for these are sums in single precision; the graph decides.
    margin = radius * 1.001 + 1e-3
    left, right = np.float64(x[rows].min()) - margin, np.float64(x[rows].max()) + margin
    low, high = np.float64(y[rows].min()) - margin, np.float64(y[rows].max()) + margin
    for p in range(len(others)):
        for i in range(starts[others[p]], stops[others[p]]):
            if left <= x[i] <= right and low <= y[i] <= high:
                nodes[n] = i
                part[n] = p + 1
                n += 1
    return nodes[:n], part[:n]


@njit(cache=True, nogil=True)
def _count_genes(gene, count):  # type: ignore[no-untyped-def]
    """Return the genes that occur, ascending, and write their numbers into `count`."""
    present = np.unique(gene)
    count[present] = 0
    for g in gene:
        count[g] += 1
    return present


@njit(cache=True, nogil=True)
def add_expected(expected, n_transcripts, gene, starts, stops, cell, other, n_pairs):  # type: ignore[no-untyped-def]
    """Add what the make-up of cells gives to the upper triangle, and the transcripts of each cell to their genes."""
    of_cell = np.zeros(len(expected))
    of_other = np.zeros(len(expected))
    present = np.empty(0, gene.dtype)
    for j in range(len(cell)):
        size = stops[cell[j]] - starts[cell[j]]
        if cell[j] == other[j]:  # comes before those near it
            present = _count_genes(gene[starts[cell[j]] : stops[cell[j]]], of_cell)
            for a in present:
                n_transcripts[a] += np.int64(of_cell[a])
            if n_pairs[j] == 0:
                continue
            share = n_pairs[j] / (0.5 * size * (size - 1))
            for k in range(len(present)):
                a = present[k]
                expected[a, a] += share * 0.5 * of_cell[a] * (of_cell[a] - 1)
                row = expected[a]
                factor = share * of_cell[a]
                for b in present[k + 1 :]:
                    row[b] += factor * of_cell[b]
        elif n_pairs[j] > 0:
            rows = slice(starts[other[j]], stops[other[j]])
            share = n_pairs[j] / (size * (rows.stop - rows.start))
            for b in _count_genes(gene[rows], of_other):
                for a in present:
                    expected[min(a, b), max(a, b)] += share * of_cell[a] * of_other[b]
