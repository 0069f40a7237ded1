"""Co-localisation of genes inside cells, written into the AnnData of a slide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
from scipy import sparse

from spaf_data import defaults, keys
from spaf_data._memory import TRANSCRIPTS_AT_A_TIME
from spaf_data._names import check_key
from spaf_data.colocalization._watch import Watch
from spaf_data.colocalization.cells import CellTranscripts, choose_dimensions, select_cells
from spaf_data.colocalization.communities import community_pairs
from spaf_data.colocalization.enrichment import REASON, PairEnrichment, pair_enrichment
from spaf_data.errors import InputError
from spaf_data.options import ColocalizationMethod
from spaf_data.transcripts import Transcripts, cell_ranges

if TYPE_CHECKING:
    from anndata import AnnData

Method = ColocalizationMethod


def colocalize(
    adata: AnnData,
    transcripts: Transcripts,
    *,
    method: Method = "communities",
    radius: float = defaults.COLOCALIZATION_RADIUS,
    min_transcripts: int = defaults.COLOCALIZATION_MIN_TRANSCRIPTS,
    min_expected: float | None = None,
    dimensions: int | None = None,
    cell_scores: bool = True,
    n_threads: int | None = None,
    key_added: str = keys.COLOCALIZATION,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Find the gene pairs whose transcripts lie together, cell by cell.

    Transcripts of a cell within `radius` of each other are joined. ``"communities"`` is the rule of SpatialFormer:
    two genes co-localise in a cell if a Louvain community of that graph holds at least `min_transcripts` of each; it
    favours frequent genes. ``"enrichment"`` compares the number of joins of two genes with what shuffled labels give
    in the same cell and compartment, and so controls for expression; it tests over the whole slide every pair of which
    enough joins are expected.

    Parameters
    ----------
    adata
        Table of a slide; its cells are found in `transcripts` by name, its genes likewise. Transcripts of genes that
        it lacks stay neighbours of the others, but form no pair.
    transcripts
        Transcripts of the slide.
    method
        ``"communities"`` or ``"enrichment"``.
    radius
        Largest distance of two joined transcripts in um, inclusive.
    min_transcripts
        Fewest transcripts of both genes: in one community, or (``"enrichment"``) in a cell for it to have a score.
    min_expected
        For ``"enrichment"``: joins of two genes that must be expected in the slide for the pair to be tested; None: so
        many that twice the number would be significant among all pairs of the panel.
    dimensions
        2 or 3; None uses z where it varies.
    cell_scores
        For ``"enrichment"``: without scores of single cells, ``obsm[key_added]`` is not written (one that is there is
        removed), which saves most of the memory; the statistics of the slide are the same.
    n_threads
        Threads; Numba's number when None. Results do not depend on it.
    key_added
        Key under which results are stored.
    progress
        Called with the fraction of the transcripts that are done, from 0 to 1.

    Returns
    -------
    None. Writes ``obsm[key_added]``, CSR of shape cells x gene pairs: int8 ones for ``"communities"``, float32 z
    scores of the cell's joined pairs for ``"enrichment"``; and ``uns[key_added]`` with ``pairs`` (a row for each
    column: gene_a, gene_b, in the order of ``adata.var``), ``method``, ``parameters`` and, for ``"enrichment"``,
    ``statistics`` of the slide, row by row as ``pairs``: gene_a, gene_b, n_cells, observed, expected, z, p (one-sided)
    and fdr (Benjamini-Hochberg over all pairs tested), of the pairs that were tested and seen; and ``account``:
    ``pairs`` of the panel, ``too_few_expected`` that were not tested and the ``reason``, ``tested`` (with
    ``least_expected`` joins or more), of which ``unseen`` are joined nowhere, and ``seen``.

    Raises
    ------
    InputError
        If an option is not among its choices, a gene name occurs twice, a cell has no transcripts, no gene is shared,
        or a coordinate is not finite.

    Notes
    -----
    Both methods are linear in the number of joins. See `community_pairs` and `pair_enrichment` for rules and sources.

    Examples
    --------
    >>> import numpy as np
    >>> from spaf_data import Transcripts, bin_transcripts
    >>> cluster = np.repeat([0.0, 20.0], 6)
    >>> transcripts = Transcripts.from_arrays(
    ...     x=cluster + np.arange(12) % 6 / 10, y=np.zeros(12), gene=np.tile([0, 0, 0, 1, 1, 1], 2),
    ...     cell=np.zeros(12, int), genes=["ACTB", "KRT5"], cells=["a"],
    ... )
    >>> adata = bin_transcripts(
    ...     transcripts, min_transcripts=1,
    ...     slide="s", tissue="skin", condition="healthy", species="human", assay="Xenium",
    ... )
    >>> colocalize(adata, transcripts)
    >>> adata.uns["colocalization"]["pairs"].to_numpy().tolist()
    [['ACTB', 'KRT5']]
    """
    check_method(method)
    check_key(key_added)
    if not adata.var_names.is_unique:
        raise InputError(f"the table has two genes named {adata.var_names[adata.var_names.duplicated()][0]!r}")
    cells = select_cells(transcripts, cells=adata.obs_names.to_numpy(), genes=adata.var_names, dimensions=dimensions)
    watch = Watch(transcripts, cells, progress)
    record: dict[str, Any] = {
        "method": method,
        "parameters": {
            "radius": float(radius),
            "min_transcripts": int(min_transcripts),
            "dimensions": choose_dimensions(transcripts, dimensions),
        },
    }
    names = adata.var_names.to_numpy()
    if method == "communities":
        occurring, column, indptr = _community_columns(
            cells, watch, radius=radius, min_transcripts=min_transcripts, n_threads=n_threads
        )
        gene_a, gene_b = np.divmod(occurring.astype(np.int64), adata.n_vars)
        entries = (np.ones(len(column), np.int8), column, indptr)
    else:
        tested = pair_enrichment(
            replace(cells, done=watch.after),
            radius=radius,
            min_transcripts=min_transcripts,
            min_expected=min_expected,
            cell_scores=cell_scores,
            n_threads=n_threads,
        )
        gene_a, gene_b = (tested.statistics[name].to_numpy() for name in ("gene_a", "gene_b"))
        entries = (tested.z, tested.pair, tested.indptr)
        record["statistics"] = tested.statistics.assign(gene_a=names[gene_a], gene_b=names[gene_b])
        record["parameters"]["compartments"] = bool(transcripts.nucleus_known)
        if min_expected is not None:
            record["parameters"]["min_expected"] = float(min_expected)
        record["account"] = _account(tested)
    record["pairs"] = pd.DataFrame({"gene_a": names[gene_a], "gene_b": names[gene_b]})
    if method == "communities" or cell_scores:
        adata.obsm[key_added] = sparse.csr_matrix(entries, shape=(adata.n_obs, len(gene_a)))
    elif key_added in adata.obsm:
        # A matrix of an earlier call has other columns than the pairs that are written now.
        del adata.obsm[key_added]
    adata.uns[key_added] = record


def _account(tested: PairEnrichment) -> dict[str, Any]:
    """Return what became of the gene pairs of the panel."""
    seen = len(tested.statistics)
    # Without a test there is no least number, and JSON has no NaN.
    least = {"least_expected": tested.least_expected} if tested.n_tested else {}
    return {
        "pairs": tested.n_pairs,
        "too_few_expected": tested.n_too_few,
        "reason": REASON,
        "tested": tested.n_tested,
        **least,
        "unseen": tested.n_tested - seen,
        "seen": seen,
    }


def check_method(method: str) -> None:
    """Raise `InputError` unless a method of co-localisation has this name."""
    if method not in get_args(Method):
        raise InputError(f"method is {method!r}; the choices are {', '.join(get_args(Method))}")


def _community_columns(
    cells: CellTranscripts, watch: Watch, *, radius: float, min_transcripts: int, n_threads: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gene pairs that occur, ``a * n_known + b``, sorted, and for each cell which of them co-localise.

    Some cells at a time, so that beside the result there are only the pairs of these.
    """
    width = np.dtype(np.uint32 if cells.n_known <= 1 << 16 else np.int64)
    indptr = np.zeros(len(cells.starts) + 1, np.int64)
    parts = []
    occurring: np.ndarray = np.empty(0, width)
    for part in cell_ranges(np.concatenate(([0], np.cumsum(cells.n_transcripts))), TRANSCRIPTS_AT_A_TIME):
        found = community_pairs(
            replace(cells, starts=cells.starts[part], stops=cells.stops[part]),
            radius=radius,
            min_transcripts=min_transcripts,
            n_threads=n_threads,
        )
        indptr[1:][part] = np.diff(found.indptr)
        parts.append((found.gene_a.astype(np.int64) * cells.n_known + found.gene_b).astype(width))
        occurring = np.union1d(occurring, parts[-1])
        watch.after(part)
    np.cumsum(indptr, out=indptr)
    column = np.empty(indptr[-1], np.int32)
    end = 0
    for positions in parts:
        column[end : end + len(positions)] = np.searchsorted(occurring, positions)
        end += len(positions)
    return occurring, column, indptr
