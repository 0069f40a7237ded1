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

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spaf_data import defaults
from spaf_data._batches import map_batches
from spaf_data.colocalization._proximity_kernels import add_expected, count_pairs, near_cells
from spaf_data.colocalization._watch import Watch
from spaf_data.colocalization.cells import select_cells
from spaf_data.colocalization.graph import check_radius
from spaf_data.colocalization.proximal_pairs import GeneProximity
from spaf_data.errors import InputError
from spaf_data.grouping import add_at

if TYPE_CHECKING:
    from spaf_data.transcripts import Transcripts


def gene_proximity(
    transcripts: Transcripts,
    *,
    cells: np.ndarray | None = None,
    radius: float = defaults.PROXIMITY_RADIUS,
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
    >>> from spaf_data import Transcripts, gene_proximity
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
    near_indptr, near = near_cells(selected, float(radius)) if across_cells else _no_cells(len(chosen))
    n_genes = selected.n_genes

    def count(batch: slice) -> Any:
        return count_pairs(selected, near_indptr, near, batch, float(radius))

    observed = np.zeros((n_genes, n_genes), np.int64)
    expected = np.zeros((n_genes, n_genes))
    n_transcripts = np.zeros(n_genes, np.int64)
    watch = Watch(transcripts, selected, progress)
    for found in map_batches(count, selected.n_transcripts, n_threads=n_threads, done=watch.after):
        positions, numbers, *joined = found
        add_at(observed.reshape(-1), positions, numbers)
        add_expected(expected, n_transcripts, selected.gene, selected.starts, selected.stops, *joined)
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
