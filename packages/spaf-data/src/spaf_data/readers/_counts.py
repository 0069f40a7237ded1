"""Counts of cells, spots or bins as a reader finds them, and the slide table that becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from spaf_data import keys
from spaf_data.errors import InputError
from spaf_data.gene_identity import without_genome
from spaf_data.gene_statistics import check_counts
from spaf_data.readers._cell_table import check_centroids
from spaf_data.readers._controls import is_control_name
from spaf_data.slide_table import slide_table
from spaf_data.transcripts import Account

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, eq=False, kw_only=True)
class GenePairs:
    """Co-localised gene pairs of cells as somebody else has found them."""

    genes: np.ndarray  # (n_pairs, 2), features a < b, sorted
    of_cell: sparse.csr_matrix  # int8 ones, cells x pairs
    parameters: dict[str, Any]  # what is known of how they were found


@dataclass(frozen=True, eq=False, kw_only=True)
class CellCounts:
    """What a run without transcripts says of its cells, spots or bins."""

    where: str  # file or object, for messages
    counts: sparse.csr_matrix | sparse.csr_array  # cells x features
    cells: np.ndarray  # ids, str
    genes: list[str]
    centroids: np.ndarray  # um, shape (n_cells, 2)
    control: np.ndarray | None = None  # features that the run says are controls, beside those so named
    gene_ids: list[str] | None = None
    listed: np.ndarray | None = None  # cells that are not are dropped and counted; None: all are
    outside: int = 0  # counts of the run that are in no cell of `cells`
    outside_controls: int = 0  # counts of controls among those
    areas: np.ndarray | None = None  # um2
    obs: dict[str, Any] = field(default_factory=dict)  # further columns of the cells, kept as they are
    metadata: dict[str, str] = field(default_factory=dict)
    of_cell: dict[str, np.ndarray] = field(default_factory=dict)  # slide and context where they differ between cells
    other_layers: tuple[str, ...] = ()  # that hold counts, where `counts` are none
    parameters: dict[str, Any] = field(default_factory=dict)
    gene_pairs: GenePairs | None = None  # which are co-localised, where the run says it


def count_table(found: CellCounts, *, min_transcripts: int, described: dict[str, str | None]) -> AnnData:
    """Check counts and return the AnnData of the slide, without controls and small cells.

    Raises
    ------
    InputError
        If ids repeat, two genes have one name, a count or a centroid cannot be used, or no cell has
        `min_transcripts` counts.
    """
    where = found.where
    if keys.SLIDE in found.of_cell and described[keys.SLIDE] is not None:
        raise InputError(
            f"{where} holds {len(np.unique(found.of_cell[keys.SLIDE]))} slides by obs column "
            f"{found.parameters['slide_key']!r}, which cannot all be named {described[keys.SLIDE]!r}: give no name "
            "(slide, --slide) or another column (slide_key, --slide-key), or say that they are one (one_slide, "
            "--one-slide)"
        )
    several = keys.SLIDE in found.of_cell
    _check_unique(where, "cells", found.cells.tolist(), "; are they of two slides? Then make names unique" * several)
    genes = unique_genes(where, without_genome(found.genes), found.gene_ids)
    matrix = sparse.csr_matrix(found.counts)
    if not matrix.has_canonical_format or not matrix.data.all():
        matrix = matrix.copy()  # these work in place, and the arrays may be those of the user's AnnData
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    _check_counts(where, matrix, found.cells, genes, found.other_layers)
    listed = np.ones(len(found.cells), bool) if found.listed is None else found.listed
    check_centroids(where, found.cells[listed], found.centroids[listed])

    control = np.array([is_control_name(gene) for gene in genes], bool)
    if found.control is not None:
        control |= found.control
    in_controls = int(matrix[:, control].sum())
    matrix = matrix[:, ~control].astype(np.int32)
    depth = np.asarray(matrix.sum(axis=1, dtype=np.int64)).reshape(-1)
    kept_counts, unlisted = int(depth[listed].sum()), int(depth[~listed].sum())
    kept = np.flatnonzero((depth >= min_transcripts) & listed)
    if len(kept) == 0:
        raise InputError(
            f"no cell of {where} has {min_transcripts} transcripts (min_transcripts): of {int(listed.sum())} cells "
            f"the largest has {depth[listed].max(initial=0)}"
        )
    keep = np.flatnonzero(~control)
    adata = slide_table(
        counts=matrix[kept],
        cells=found.cells[kept],
        genes=[genes[i] for i in keep],
        gene_ids=None if found.gene_ids is None else [found.gene_ids[i] for i in keep],
        centroids=found.centroids[kept],
        areas=None if found.areas is None else found.areas[kept],
        nucleus_fraction=np.full(len(kept), np.nan),
        n_cells=int(listed.sum()),
        account=Account(
            read=kept_counts + unlisted + in_controls + found.outside,
            controls=in_controls + found.outside_controls,
            low_quality=0,
            unassigned=found.outside - found.outside_controls,
            kept=kept_counts,
            unlisted=unlisted,
        ),
        described=described,
        metadata=found.metadata,
        of_cell={name: values[kept] for name, values in found.of_cell.items()},
        parameters={**found.parameters, "min_transcripts": min_transcripts, "centroids": "table of cells"},
        extra={name: values[kept] for name, values in found.obs.items()},
    )
    if found.gene_pairs is not None:
        _write_gene_pairs(adata, found.gene_pairs, kept, keep)
    return adata


def _write_gene_pairs(adata: AnnData, found: GenePairs, cells: np.ndarray, features: np.ndarray) -> None:
    """Write the pairs that some cell that is kept has, of features that are, under the keys of `colocalize`."""
    matrix = found.of_cell[cells]
    is_kept = np.isin(found.genes, features).all(axis=1) & (np.bincount(matrix.indices, minlength=matrix.shape[1]) > 0)
    columns = np.flatnonzero(is_kept)
    names = adata.var_names.to_numpy()[np.searchsorted(features, found.genes[columns])]
    adata.obsm[keys.COLOCALIZATION] = sparse.csr_matrix(matrix[:, columns])
    adata.uns[keys.COLOCALIZATION] = {
        "method": "published",
        "parameters": found.parameters,
        "pairs": pd.DataFrame({"gene_a": names[:, 0], "gene_b": names[:, 1]}),
    }


def unique_genes(where: str, genes: Sequence[str], gene_ids: Sequence[str] | None) -> list[str]:
    """Return names of genes that are unique.

    References of 10x hold a few symbols under several Ensembl ids. Which of these genes a symbol means cannot be told,
    so each of them goes by its id.

    Raises
    ------
    InputError
        If genes share a name and have no ids that differ.
    """
    names = list(genes)
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    if gene_ids is not None:
        names = [gene_id if seen[name] > 1 and gene_id else name for name, gene_id in zip(names, gene_ids, strict=True)]
    _check_unique(where, "genes", names)
    return names


def _check_unique(where: str, kind: str, names: list[str], hint: str = "") -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{where} has two {kind} named {name!r}{hint}")
        seen.add(name)


def _check_counts(
    where: str, matrix: sparse.csr_matrix, cells: np.ndarray, genes: list[str], other_layers: tuple[str, ...]
) -> None:
    try:
        check_counts(matrix.data)
    except InputError:
        bad = ~np.isfinite(matrix.data) | (matrix.data < 0) | (matrix.data != np.floor(matrix.data))
        entry = int(np.argmax(bad)) if bad.any() else int(np.argmax(matrix.data))
        cell = str(cells[np.searchsorted(matrix.indptr, entry, side="right") - 1])
        raise InputError(
            f"counts must be integers of at least 0, but in {where} cell {cell!r} has {matrix.data[entry]:g} of gene "
            f"{genes[matrix.indices[entry]]!r}; {_layer_wanted(other_layers)}"
        ) from None


def _layer_wanted(layers: tuple[str, ...]) -> str:
    if not layers:
        return "give the layer with counts (layer) if there is one"
    has = "has" if len(layers) == 1 else "have"
    return f"{' and '.join(map(repr, layers))} {has} counts: name the layer (layer, --layer {layers[0]})"
