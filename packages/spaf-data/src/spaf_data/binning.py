"""Count the transcripts of every cell: from `Transcripts` to the AnnData of a slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy.sparse import csr_matrix

from spaf_data import defaults, keys
from spaf_data.errors import InputError
from spaf_data.slide_table import slide_table
from spaf_data.transcripts import Transcripts, cell_ranges

if TYPE_CHECKING:
    from anndata import AnnData


def bin_transcripts(
    transcripts: Transcripts,
    *,
    min_transcripts: int = defaults.MIN_TRANSCRIPTS,
    slide: str | None = None,
    tissue: str | None = None,
    condition: str | None = None,
    species: str | None = None,
    assay: str | None = None,
) -> AnnData:
    """Count genes per cell and return the AnnData of a slide.

    Parameters
    ----------
    transcripts
        The kept transcripts of one slide.
    min_transcripts
        Cells with fewer are dropped and counted.
    slide, tissue, condition, species, assay
        What the slide is; where None, what the run says of itself, else ``"unknown"``.

    Returns
    -------
    AnnData
        ``X``
            Counts, CSR int32, cells x genes; gene indices sorted in each row.
        ``obs``
            Index: cell ids. ``n_transcripts``; ``nucleus_fraction``, the share of transcripts in the nucleus (NaN
            where the run does not say); ``area`` in um2 if known; categorical ``slide``, ``tissue``,
            ``condition``, ``species``, ``assay``.
        ``var``
            Index: gene names. ``gene_ids`` if known.
        ``obsm["spatial"]``
            Centroids in um, float64, shape (n_cells, 2): of the segmentation if known, else the mean position of
            the cell's transcripts.
        ``uns["spaf"]``
            ``versions``, ``parameters`` and ``account``: transcripts ``read``, ``controls``, ``low_quality``,
            ``unassigned``, ``kept``, of these ``in_small_cells`` and ``binned``; ``cells``, of these ``small_cells``
            and ``kept_cells``.

    Raises
    ------
    InputError
        If no cell has `min_transcripts` transcripts.

    Examples
    --------
    >>> import numpy as np
    >>> transcripts = Transcripts.from_arrays(
    ...     x=np.arange(3.0), y=np.zeros(3), gene=np.array([1, 1, 0]), cell=np.array([0, 0, 1]),
    ...     genes=["ACTB", "KRT5"], cells=["a", "b"],
    ... )
    >>> slide = bin_transcripts(transcripts, min_transcripts=2, tissue="Skin")
    >>> slide.obs_names.tolist(), slide.X.toarray().tolist(), slide.obsm["spatial"].tolist()
    (['a'], [[0, 2]], [[0.5, 0.0]])
    """
    depth = np.diff(transcripts.offsets)
    kept = np.flatnonzero(depth >= min_transcripts)
    if len(kept) == 0:
        raise InputError(
            f"no cell has {min_transcripts} transcripts (min_transcripts): of {transcripts.n_cells} cells "
            f"the largest has {depth.max(initial=0)}"
        )
    # Rows of the table whose transcripts are looked at before their memory is given back.
    parts = [slice(*np.searchsorted(kept, (cells.start, cells.stop))) for cells in cell_ranges(transcripts.offsets)]
    indptr = np.zeros(len(kept) + 1, np.int64)
    nuclear = np.empty(len(kept), np.int64)
    means = np.empty((len(kept), 2))
    for rows in parts:
        indptr[1:][rows] = _count_genes(transcripts.offsets, transcripts.gene, kept[rows])
        nuclear[rows], means[rows] = _cell_sums(
            transcripts.offsets, transcripts.x, transcripts.y, transcripts.in_nucleus, kept[rows]
        )
        transcripts.release()
    np.cumsum(indptr, out=indptr)
    genes = np.empty(indptr[-1], np.int32)
    counts = np.empty(indptr[-1], np.int32)
    for rows in parts:
        _fill_counts(transcripts.offsets, transcripts.gene, kept[rows], indptr[:-1][rows], genes, counts)
        transcripts.release()

    return slide_table(
        counts=csr_matrix((counts, genes, indptr), shape=(len(kept), transcripts.n_genes)),
        cells=transcripts.cells[kept],
        genes=transcripts.genes,
        gene_ids=transcripts.gene_ids,
        centroids=means if transcripts.centroids is None else transcripts.centroids[kept],
        areas=None if transcripts.areas is None else transcripts.areas[kept],
        nucleus_fraction=nuclear / depth[kept] if transcripts.nucleus_known else np.full(len(kept), np.nan),
        n_cells=transcripts.n_cells,
        account=transcripts.account,
        described={
            keys.SLIDE: slide,
            keys.TISSUE: tissue,
            keys.CONDITION: condition,
            keys.SPECIES: species,
            keys.ASSAY: assay,
        },
        metadata=transcripts.metadata,
        parameters={
            **transcripts.parameters,
            "min_transcripts": min_transcripts,
            "centroids": "transcripts" if transcripts.centroids is None else "segmentation",
        },
    )


@njit(cache=True)
def _count_genes(offsets: np.ndarray, gene: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the number of different genes of each kept cell; transcripts of a cell are sorted by gene."""
    found = np.zeros(len(kept), np.int64)
    for row in range(len(kept)):
        start, stop = offsets[kept[row]], offsets[kept[row] + 1]
        n = 0
        for i in range(start, stop):
            if i == start or gene[i] != gene[i - 1]:
                n += 1
        found[row] = n
    return found


@njit(cache=True)
def _fill_counts(
    offsets: np.ndarray,
    gene: np.ndarray,
    kept: np.ndarray,
    indptr: np.ndarray,
    genes: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Write the runs of equal genes of each kept cell as the entries of its CSR row."""
    for row in range(len(kept)):
        start, stop = offsets[kept[row]], offsets[kept[row] + 1]
        entry = indptr[row] - 1
        for i in range(start, stop):
            if i == start or gene[i] != gene[i - 1]:
                entry += 1
                genes[entry] = gene[i]
                counts[entry] = 0
            counts[entry] += 1


@njit(cache=True)
def _cell_sums(
    offsets: np.ndarray, x: np.ndarray, y: np.ndarray, in_nucleus: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nuclear transcripts and the mean position, shape (n, 2), of each kept cell."""
    nuclear = np.zeros(len(kept), np.int64)
    means = np.zeros((len(kept), 2), np.float64)
    for row in range(len(kept)):
        start, stop = offsets[kept[row]], offsets[kept[row] + 1]
        for i in range(start, stop):
            nuclear[row] += in_nucleus[i]
            means[row, 0] += x[i]
            means[row, 1] += y[i]
        means[row, 0] /= stop - start
        means[row, 1] /= stop - start
    return nuclear, means
