"""Gene pairs that share a community of the proximity graph of a cell's transcripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spaf_data import defaults
from spaf_data._batches import map_batches
from spaf_data.colocalization.graph import MAX_DENSE, MAX_STORED, arrange, check_radius
from spaf_data.colocalization.louvain import label_nodes
from spaf_data.errors import InputError

if TYPE_CHECKING:
    from spaf_data.colocalization.cells import CellTranscripts


@dataclass(frozen=True, kw_only=True)
class CellPairs:
    """Co-localised gene pairs of each cell; cell ``i`` has the rows ``indptr[i]:indptr[i + 1]``, sorted by (a, b)."""

    indptr: np.ndarray  # int64 (n_cells + 1)
    gene_a: np.ndarray  # int32 (n_rows), always less than gene_b
    gene_b: np.ndarray  # int32 (n_rows)


def pairs_of_communities(
    gene: np.ndarray,
    community: np.ndarray,
    cell: np.ndarray,
    *,
    n_genes: int,
    n_known: int,
    min_transcripts: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Apply the rule: return the cell of each co-localised gene pair and its key ``a * n_genes + b`` (a < b).

    `community` is that of each transcript, of all cells together, and `cell` the cell of each community, ascending.
    The pairs of a cell are sorted and distinct. Genes from `n_known` on form no pair.
    """
    genes, n = np.unique(community * np.int64(n_genes) + gene, return_counts=True)
    community, gene = np.divmod(genes, n_genes)
    frequent = (n >= min_transcripts) & (gene < n_known)
    community, gene = community[frequent], gene[frequent]
    # Sorted by community and gene: the partners of a gene are those after it in its community.
    place = np.arange(len(gene))
    n_later = np.searchsorted(community, community, side="right") - place - 1
    b = np.arange(n_later.sum()) - np.repeat(np.cumsum(n_later) - n_later - place - 1, n_later)
    keys = np.repeat((cell[community] * n_genes + gene) * n_genes, n_later) + gene[b]
    found: tuple[np.ndarray, np.ndarray] = np.divmod(np.unique(keys), n_genes**2)
    return found


def _pairs_of_cells(
    cells: CellTranscripts, batch: slice, radius: float, *, min_transcripts: int, max_dense: int, max_stored: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of pairs of each cell of a batch, and the keys of all."""
    # Where a pair has no room, no community is looked for.
    large = np.flatnonzero(cells.n_transcripts[batch] >= 2 * min_transcripts)
    rows, first = cells.rows(np.arange(batch.start, batch.stop)[large])
    gene = cells.gene[rows]
    nodes = arrange(cells.x[rows], cells.y[rows], cells.z[rows], gene, first, radius)
    labels, n_labels = label_nodes(nodes, first, radius, max_dense=max_dense, max_stored=max_stored)
    owner, keys = pairs_of_communities(
        gene[nodes.order],
        labels + np.repeat(np.cumsum(n_labels) - n_labels, np.diff(first)),
        np.repeat(large, n_labels),
        n_genes=cells.n_genes,
        n_known=cells.n_known,
        min_transcripts=min_transcripts,
    )
    return np.bincount(owner, minlength=batch.stop - batch.start), keys


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
        return _pairs_of_cells(
            cells, batch, float(radius), min_transcripts=min_transcripts, max_dense=max_dense, max_stored=max_stored
        )

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
