"""How often two genes lie within a short radius of each other, beside what the make-up of each cell gives.

Chance is that of labels: the proximal pairs of transcripts stay where they are, and the genes of a cell are dealt anew
among its transcripts. Of P proximal pairs among the n transcripts of a cell then

    E_ab = P n_a n_b / (n (n - 1) / 2)        E_aa = P n_a (n_a - 1) / (n (n - 1))

hold genes a and b, and of P proximal pairs between the n and m transcripts of two cells

    E_ab = P (n_a m_b + n_b m_a) / (n m)      E_aa = P n_a m_a / (n m).

What cells are made of is in counts and expectations alike, so their ratio says which genes lie together inside cells,
and not which genes the same cells express.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numba import njit

from spaf_data.colocalization._batches import map_batches
from spaf_data.colocalization._watch import Watch
from spaf_data.colocalization.cells import CellTranscripts, select_cells
from spaf_data.colocalization.graph import arrange, check_radius, neighbours, widest_row
from spaf_data.errors import InputError
from spaf_data.gene_identity import GeneNames, join_genes
from spaf_data.transcripts import Transcripts


@dataclass(frozen=True, kw_only=True)
class GeneProximity:
    """Proximal pairs of transcripts by their genes, over the cells of one or several slides.

    Parameters
    ----------
    genes
        Names, unique.
    gene_ids
        Ensembl ids of `genes` ("" where there is none), when known.
    n_transcripts
        Transcripts of each gene in the cells that were looked at, int64.
    n_cells
        Number of these cells.
    observed
        Pairs of transcripts within the radius, one of each of two genes (on the diagonal: both of one), symmetric
        int64, genes x genes.
    expected
        The same if the genes of each cell were dealt anew among its transcripts, float64.
    radius
        Largest distance of the two transcripts in um, inclusive.
    across_cells
        Whether pairs of transcripts of two different cells count too.
    """

    genes: list[str]
    gene_ids: list[str] | None
    n_transcripts: np.ndarray
    n_cells: int
    observed: np.ndarray
    expected: np.ndarray
    radius: float
    across_cells: bool

    @property
    def n_pairs(self) -> int:
        """Number of proximal pairs of transcripts."""
        return int((self.observed.sum() + np.trace(self.observed)) // 2)

    @classmethod
    def total(cls, parts: Iterable[GeneProximity]) -> GeneProximity:
        """Add up several slides; their genes are joined as those of a corpus are (`join_genes`).

        Raises
        ------
        InputError
            If there is none, or they differ in radius or in what counts, or disagree about the id of a gene.
        """
        found: GeneProximity | None = None
        for part in parts:
            found = part if found is None else found._plus(part)
        if found is None:
            raise InputError("there is no slide to count proximal transcripts in")
        return found

    def _plus(self, other: GeneProximity) -> GeneProximity:
        if (self.radius, self.across_cells) != (other.radius, other.across_cells):
            raise InputError("proximal pairs of transcripts were counted with different radius or across_cells")
        union = join_genes(
            [
                GeneNames(where=f"slide {n}", names=part.genes, gene_ids=part.gene_ids)
                for n, part in enumerate((self, other), 1)
            ]
        )
        genes = union.genes
        n = len(genes)
        counts = np.zeros(n, np.int64)
        observed, expected = np.zeros((n, n), np.int64), np.zeros((n, n))
        for part, rows in zip((self, other), union.columns, strict=True):
            np.add.at(counts, rows, part.n_transcripts)
            _add_pairs(observed, part.observed, rows)
            _add_pairs(expected, part.expected, rows)
        return replace(
            self,
            genes=genes,
            gene_ids=union.gene_ids,
            n_transcripts=counts,
            n_cells=self.n_cells + other.n_cells,
            observed=observed,
            expected=expected,
        )


def _add_pairs(total: np.ndarray, part: np.ndarray, rows: np.ndarray) -> None:
    """Add pairs of genes to those of a union, of which several rows of `part` may be one gene."""
    both, one = np.diag(part), part - np.diag(np.diag(part))
    added = np.zeros_like(total)
    np.add.at(added, np.ix_(rows, rows), one)
    # A pair of two names of one gene stands in both triangles, and once on the diagonal.
    np.fill_diagonal(added, np.diag(added) / 2)
    total += added
    np.add.at(total, (rows, rows), both)


def gene_proximity(
    transcripts: Transcripts,
    *,
    cells: np.ndarray | None = None,
    radius: float = 3.0,
    across_cells: bool = False,
    dimensions: int | None = None,
    n_threads: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> GeneProximity:
    """Count the pairs of transcripts that lie within a radius of each other, for every two genes.

    Parameters
    ----------
    transcripts
        Transcripts of a slide. Those in no cell are not among them.
    cells
        Ids of the cells to look at; all if None.
    radius
        Largest distance of two transcripts in um, inclusive.
    across_cells
        Also count pairs of transcripts of two different cells.
    dimensions
        2 or 3; 3 where z varies if None.
    n_threads
        Threads; Numba's number when None. The result does not depend on it.
    progress
        Called with the fraction of the transcripts that are done, from 0 to 1.

    Raises
    ------
    InputError
        If a cell is not among those of the transcripts or is named twice, a coordinate is not finite, or an option is
        out of range.

    Notes
    -----
    Linear in the number of proximal pairs, and, for the expectation, in the squares of the numbers of genes in a cell.
    Beside the transcripts memory holds 32 bytes for each pair of genes, and, for pairs across cells, 20 bytes a cell.

    Examples
    --------
    >>> import numpy as np
    >>> transcripts = Transcripts.from_arrays(
    ...     x=np.array([0.0, 1.0, 9.0, 10.0]), y=np.zeros(4), gene=np.array([0, 1, 0, 1]), cell=np.zeros(4, int),
    ...     genes=["ACTB", "KRT5"], cells=["a"],
    ... )
    >>> found = gene_proximity(transcripts)
    >>> found.observed.tolist(), np.round(found.expected, 2).tolist()
    ([[0, 2], [2, 0]], [[0.33, 1.33], [1.33, 0.33]])
    """
    check_radius(radius)
    chosen = transcripts.cells if cells is None else np.asarray(cells, dtype=object).astype(str)
    if len(np.unique(chosen)) < len(chosen):
        raise InputError("a cell is named twice among those to look at")
    selected = select_cells(transcripts, cells=chosen, genes=pd.Index(transcripts.genes), dimensions=dimensions)
    near_indptr, near = _near_cells(selected, float(radius)) if across_cells else _no_cells(len(chosen))
    n_genes = selected.n_genes

    def count(batch: slice) -> tuple:  # type: ignore[type-arg]
        return _count_pairs(
            selected.x, selected.y, selected.z, selected.gene, selected.starts, selected.stops,
            near_indptr, near, batch.start, batch.stop, n_genes, float(radius),
        )  # fmt: skip

    observed = np.zeros((n_genes, n_genes), np.int64)
    expected = np.zeros((n_genes, n_genes))
    n_transcripts = np.zeros(n_genes, np.int64)
    watch = Watch(transcripts, selected, progress)
    for found in map_batches(count, selected.n_transcripts, n_threads=n_threads, done=watch.after):
        positions, numbers, *joined = found
        _add_at(observed.reshape(-1), positions, numbers)
        _add_expected(expected, n_transcripts, selected.gene, selected.starts, selected.stops, *joined)
    for upper in (observed, expected):
        upper += np.triu(upper, 1).T
    return GeneProximity(
        genes=list(transcripts.genes),
        gene_ids=None if transcripts.gene_ids is None else list(transcripts.gene_ids),
        n_transcripts=n_transcripts,
        n_cells=len(chosen),
        observed=observed,
        expected=expected,
        radius=float(radius),
        across_cells=across_cells,
    )


def _no_cells(n_cells: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(n_cells + 1, np.int64), np.empty(0, np.int64)


def _near_cells(cells: CellTranscripts, radius: float) -> tuple[np.ndarray, np.ndarray]:
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
def _count_pairs(x, y, z, gene, starts, stops, near_indptr, near, first_cell, last_cell, n_genes, radius):  # type: ignore[no-untyped-def]
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
def _add_at(total, positions, numbers):  # type: ignore[no-untyped-def]
    for k in range(len(positions)):
        total[positions[k]] += numbers[k]


@njit(cache=True, nogil=True)
def _count_genes(gene, count):  # type: ignore[no-untyped-def]
    """Return the genes that occur, ascending, and write their numbers into `count`."""
    present = np.unique(gene)
    count[present] = 0
    for g in gene:
        count[g] += 1
    return present


@njit(cache=True, nogil=True)
def _add_expected(expected, n_transcripts, gene, starts, stops, cell, other, n_pairs):  # type: ignore[no-untyped-def]
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
