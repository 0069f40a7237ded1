"""The loops behind `gene_proximity`: proximal pairs inside cells and between close ones, and what is expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from spaf_data.colocalization.graph import arrange, find_neighbours

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


def count_pairs(
    cells: CellTranscripts, near_indptr: np.ndarray, near: np.ndarray, batch: slice, radius: float
) -> tuple[np.ndarray, ...]:
    """Count the proximal pairs inside the cells of a batch and between each and the later cells near it.

    Returns positions ``a * n_genes + b``, a <= b, and numbers of pairs to be added there; and for each cell with
    itself and with each of those near it, the two cells and the number of their pairs.
    """
    rows, part, first = _with_neighbours(cells, near_indptr, near, batch, radius)
    n_cells, n = len(first) - 1, np.diff(first)
    gene = cells.gene[rows]
    nodes = arrange(cells.x[rows], cells.y[rows], cells.z[rows], gene, first, radius)
    # The genes of a cell and its neighbours, numbered from 0.
    owner = np.repeat(np.arange(n_cells), n)
    entries, slot = np.unique(owner * cells.n_genes + gene[nodes.order], return_inverse=True)
    entry_cell, genes = np.divmod(entries, cells.n_genes)
    n_present = np.bincount(entry_cell, minlength=n_cells)
    first_entry = np.concatenate(([0], np.cumsum(n_present)))
    first_part = near_indptr[batch.start : batch.stop + 1] - near_indptr[batch.start] + np.arange(n_cells + 1)
    of_part = np.zeros(first_part[-1], np.int64)
    candidates = (nodes.high - nodes.low).sum(axis=1)
    # No more than the pairs of genes, nor than the candidates; what is not written takes no memory.
    most = min(int((n_present * (n_present + 1) // 2).sum()), int(candidates.sum()))
    positions, numbers = np.empty(most, np.int64), np.empty(most, np.int64)
    n_positions = _count(
        nodes.x, nodes.y, nodes.z, nodes.low, nodes.high, radius, first, part[nodes.order],
        slot - first_entry[owner], genes, first_entry, first_part, cells.n_genes,
        np.empty(candidates.max(initial=0), np.int32), np.empty(n_present.max(initial=0) ** 2, np.int64),
        positions, numbers, of_part,
    )  # fmt: skip
    one = np.repeat(np.arange(batch.start, batch.stop), np.diff(first_part))
    other = one.copy()
    other[np.delete(np.arange(len(other)), first_part[:-1])] = near[near_indptr[batch.start] : near_indptr[batch.stop]]
    return positions[:n_positions].copy(), numbers[:n_positions].copy(), one, other, of_part


def _with_neighbours(
    cells: CellTranscripts, near_indptr: np.ndarray, near: np.ndarray, batch: slice, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the transcripts of each cell and those of others near its bounding box, and where those of a cell begin.

    Between them, the part of each transcript: 0, or 1, 2 ... for the other cells.
    """
    if near_indptr[batch.start] == near_indptr[batch.stop]:
        rows, first = cells.rows(np.arange(batch.start, batch.stop))
        return rows, np.zeros(len(rows), np.int64), first
    n = cells.n_transcripts
    most = int(n[batch].sum() + n[near[near_indptr[batch.start] : near_indptr[batch.stop]]].sum())
    rows, part = np.empty(most, np.int64), np.empty(most, np.int64)
    first = np.zeros(batch.stop - batch.start + 1, np.int64)
    _gather(cells.x, cells.y, cells.starts, cells.stops, near_indptr, near, batch.start, radius, rows, part, first)
    return rows[: first[-1]], part[: first[-1]], first


@njit(cache=True, nogil=True)
def _gather(x, y, starts, stops, near_indptr, near, first_cell, radius, rows, part, first):  # type: ignore[no-untyped-def]
    # A little wider than the radius, for these are sums in single precision; the graph decides.
    margin = radius * 1.001 + 1e-3
    n = 0
    for k in range(len(first) - 1):
        cell = first_cell + k
        left, right, low, high = np.inf, -np.inf, np.inf, -np.inf
        for i in range(starts[cell], stops[cell]):
            left, right = min(left, x[i]), max(right, x[i])
            low, high = min(low, y[i]), max(high, y[i])
            rows[n] = i
            part[n] = 0
            n += 1
        for p in range(near_indptr[cell], near_indptr[cell + 1]):
            for i in range(starts[near[p]], stops[near[p]]):
                inside = left - margin <= x[i] <= right + margin and low - margin <= y[i] <= high + margin
                if inside:
                    rows[n] = i
                    part[n] = p - near_indptr[cell] + 1
                    n += 1
        first[k + 1] = n


@njit(cache=True, nogil=True)
def _count(  # type: ignore[no-untyped-def]
    x, y, z, low, high, radius, first, part, slot, genes, first_entry, first_part, n_genes,
    buffer, table, positions, numbers, of_part,
):  # fmt: skip
    """Write the proximal pairs of genes of each cell and how many there are, and add those of its parts.

    `slot` is the gene of each node among the ``genes[first_entry[cell]:first_entry[cell + 1]]`` of its cell; `buffer`
    and `table` are scratch for the candidates of a node and for the pairs of the genes of a cell.
    """
    n = 0
    for cell in range(len(first) - 1):
        start = first[cell]
        nodes = slice(start, first[cell + 1])
        x_, y_, z_, low_, high_ = x[nodes], y[nodes], z[nodes], low[nodes], high[nodes]
        of_cell = genes[first_entry[cell] : first_entry[cell + 1]]
        n_present = len(of_cell)
        table[: n_present * n_present] = 0
        for i in range(first[cell + 1] - start):
            if part[start + i] > 0:
                continue
            n_found = find_neighbours(x_, y_, z_, low_, high_, radius, i, buffer)
            for k in buffer[:n_found]:
                if part[start + k] == 0 and k < i:
                    continue
                a, b = slot[start + i], slot[start + k]
                if a > b:
                    a, b = b, a
                table[a * n_present + b] += 1
                of_part[first_part[cell] + part[start + k]] += 1
        for a in range(n_present):
            for b in range(a, n_present):
                if table[a * n_present + b] > 0:
                    positions[n] = of_cell[a] * n_genes + of_cell[b]
                    numbers[n] = table[a * n_present + b]
                    n += 1
    return n


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
