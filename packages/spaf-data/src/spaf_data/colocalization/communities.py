"""Gene pairs that share a community of the proximity graph of a cell's transcripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from spaf_data import defaults
from spaf_data.colocalization._batches import map_batches
from spaf_data.colocalization.graph import MAX_DENSE, MAX_STORED, arrange, check_radius
from spaf_data.colocalization.louvain import find_communities
from spaf_data.errors import InputError
from spaf_data.grouping import group_nodes

if TYPE_CHECKING:
    from spaf_data.colocalization.cells import CellTranscripts


@dataclass(frozen=True, kw_only=True)
class CellPairs:
    """Co-localised gene pairs of each cell; cell ``i`` has the rows ``indptr[i]:indptr[i + 1]``, sorted by (a, b)."""

    indptr: np.ndarray  # int64 (n_cells + 1)
    gene_a: np.ndarray  # int32 (n_rows), always less than gene_b
    gene_b: np.ndarray  # int32 (n_rows)


@njit(cache=True, nogil=True)
def pairs_of_labels(gene, labels, n_labels, min_transcripts, n_known, gene_count):  # type: ignore[no-untyped-def]
    """Apply the rule to one cell: sorted, distinct keys ``a * n_genes + b`` (a < b) of its co-localised gene pairs.

    Genes from `n_known` on form no pair. `gene_count` is scratch of one zero a gene, and is left so.
    """
    n_genes = np.int64(len(gene_count))
    members, starts = group_nodes(labels, n_labels)
    keys = np.empty(16, np.int64)
    n_keys = 0
    for c in range(n_labels):
        if starts[c + 1] - starts[c] < 2 * min_transcripts:
            continue
        present = np.sort(gene[members[starts[c] : starts[c + 1]]])
        for g in present:
            gene_count[g] += 1
        n_frequent = 0
        for g in present:
            if gene_count[g] >= min_transcripts and g < n_known:
                present[n_frequent] = g
                n_frequent += 1
            gene_count[g] = 0
        n_new = n_frequent * (n_frequent - 1) // 2
        if n_keys + n_new > len(keys):
            keys = np.concatenate((keys, np.empty(n_keys + n_new, np.int64)))
        for a in range(n_frequent):
            for b in range(a + 1, n_frequent):
                keys[n_keys] = present[a] * n_genes + present[b]
                n_keys += 1
    return np.unique(keys[:n_keys])


@njit(cache=True, nogil=True)
def _batch_pairs(x, y, z, gene, starts, stops, n_genes, n_known, radius, min_transcripts, max_dense, max_stored):  # type: ignore[no-untyped-def]
    n_cells = len(starts)
    counts = np.zeros(n_cells, np.int64)
    pairs = np.empty(64 * n_cells, np.int64)
    n_pairs = 0
    gene_count = np.zeros(n_genes, np.int32)
    for cell in range(n_cells):
        rows = slice(starts[cell], stops[cell])
        if stops[cell] - starts[cell] < 2 * min_transcripts:
            continue
        order, graph = arrange(x[rows], y[rows], z[rows], gene[rows], radius)
        labels, n_labels = find_communities(graph, max_dense, max_stored)
        keys = pairs_of_labels(gene[rows][order], labels, n_labels, min_transcripts, n_known, gene_count)
        if n_pairs + len(keys) > len(pairs):
            pairs = np.concatenate((pairs, np.empty(n_pairs + len(keys), np.int64)))
        pairs[n_pairs : n_pairs + len(keys)] = keys
        counts[cell] = len(keys)
        n_pairs += len(keys)
    return counts, pairs[:n_pairs].copy()


def community_pairs(
    cells: CellTranscripts,
    *,
    radius: float = defaults.COLOCALIZATION_RADIUS,
    min_transcripts: int = defaults.COLOCALIZATION_MIN_TRANSCRIPTS,
    n_threads: int | None = None,
    max_dense: int = MAX_DENSE,
    max_stored: int = MAX_STORED,
) -> CellPairs:
    """Find the gene pairs of each cell that share a community of nearby transcripts.

    The rule of SpatialFormer: join the transcripts of a cell that lie within `radius` of each other, split that graph
    into Louvain communities (resolution 1), and take in each community the genes with at least `min_transcripts`
    transcripts; every unordered pair of two such genes is co-localised.

    Parameters
    ----------
    cells
        Transcripts of the cells, `gene` below ``cells.n_genes``. Only pairs of the first ``cells.n_known`` count.
    radius
        Largest distance of two joined transcripts in um, inclusive.
    min_transcripts
        Fewest transcripts of a gene in a community.
    n_threads
        Threads over cells; Numba's number when None. The result does not depend on it.
    max_dense
        Transcripts of a cell above which its graph is no longer a matrix (one byte an entry) but lists of neighbours.
        The moves of Louvain then come in another order, and end in other communities of like modularity.
    max_stored
        Candidate neighbours of such a larger cell above which they are searched again at each visit instead of stored;
        the result does not depend on it.

    Raises
    ------
    InputError
        If `radius`, `min_transcripts` or `n_threads` is not positive.

    Notes
    -----
    Time and memory of a cell grow with the square of its transcripts up to `max_dense` (16 MB a thread), beyond it with
    its proximal transcript pairs, memory up to 4 bytes x `max_stored` a thread.
    """
    check_radius(radius)
    check_min_transcripts(min_transcripts)

    def kernel(batch: slice) -> Any:
        return _batch_pairs(
            cells.x, cells.y, cells.z, cells.gene, cells.starts[batch], cells.stops[batch],
            cells.n_genes, cells.n_known, float(radius), min_transcripts, max_dense, max_stored,
        )  # fmt: skip

    results = list(map_batches(kernel, cells.n_transcripts, n_threads=n_threads))
    indptr = np.zeros(len(cells.starts) + 1, np.int64)
    if results:
        np.cumsum(np.concatenate([counts for counts, _ in results]), out=indptr[1:])
    keys = np.concatenate([np.empty(0, np.int64), *(keys for _, keys in results)])
    gene_a, gene_b = np.divmod(keys, max(cells.n_genes, 1))
    return CellPairs(indptr=indptr, gene_a=gene_a.astype(np.int32), gene_b=gene_b.astype(np.int32))


def check_min_transcripts(min_transcripts: int) -> None:
    """Raise `InputError` unless at least one transcript is asked for."""
    if min_transcripts < 1:
        raise InputError(f"min_transcripts is {min_transcripts}; it must be at least 1")
