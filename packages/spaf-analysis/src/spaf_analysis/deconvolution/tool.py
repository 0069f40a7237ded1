"""Which cell types the spots of an AnnData are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from spaf_analysis.deconvolution.compute import N_REPLICATES, Deconvolution, deconvolve_counts
from spaf_analysis.errors import InputError
from spaf_analysis.genes import checked_counts, shared_genes
from spaf_analysis.keys import PROPORTIONS
from spaf_analysis.tables import labels_of, nearest_means, places_of, slide_names, table_of
from spaf_model import check_key

N_NEAR = 6  # spots around a spot of a hexagonal grid

if TYPE_CHECKING:
    import anndata as ad

    from spaf_analysis.deconvolution.methods import Method
    from spaf_model import Cells


def deconvolve(
    spots: Cells,
    reference: Cells,
    label: str,
    *,
    method: Method | Literal["auto"] = "auto",
    layer: str | None = None,
    reference_layer: str | None = None,
    n_replicates: int = N_REPLICATES,
    smooth: float = 0.0,
    seed: int = 0,
    key_added: str = PROPORTIONS,
    table_key: str | None = None,
) -> Deconvolution:
    """Find the proportions of cell types in spots, by a reference of labelled cells.

    Writes ``obsm[key_added]`` (spots x types, a DataFrame: shares of cells), ``obsm[key_added + "_rna"]`` (shares of
    counts), ``obsm[key_added + "_error"]`` (standard errors over genes), ``obs[key_added + "_misfit"]`` and
    ``obs[key_added + "_fits"]`` (missing where it cannot be told), and what was done into ``uns[key_added]``. Columns
    have "_" where names of types have "/"; ``uns[key_added]["types"]`` holds the names themselves, in the same order.

    Parameters
    ----------
    spots
        With counts, or a SpatialData. Spots without counts of shared genes get NaN.
    reference
        Labelled cells with counts, or a SpatialData with one table. Genes are matched by Ensembl id or symbol.
    label
        Column of its `obs` with the types; cells without one are left out.
    method
        See `deconvolve_counts`.
    layer, reference_layer
        Layers that hold the counts; None: X.
    n_replicates
        Resampled genes behind the standard errors; 0: none.
    smooth
        Weight of the mean counts of the six nearest spots of the slide, beside those of a spot itself; needs
        ``obsm["spatial"]``. 0: each spot for itself.
    seed
        Of everything random.
    key_added
        Key to write.
    table_key
        Table of a SpatialData of spots; may be None where it has only one.

    Returns
    -------
    Deconvolution
        The same as arrays.

    Raises
    ------
    InputError
        If a table holds no counts, the two share too few genes, the column is missing or names fewer than 2 types, or
        an option cannot be used. Nothing is written then.

    Examples
    --------
    ::

        import spaf_analysis as spaf

        spaf.tl.deconvolve(spots, cells, "cell_type")
        spots.obsm["proportions"]
    """
    check_key(key_added)
    table, cells = table_of(spots, table_key), table_of(reference)
    codes, names = labels_of(cells, label, "label")
    labels = np.array([*names, ""])[codes]
    of_spots = checked_counts(table, layer, "the spots", option="layer (--layer)")
    of_cells = checked_counts(cells, reference_layer, "the reference", option="reference_layer (--reference-layer)")
    shared = shared_genes(table, cells, ("the spots", "the reference"))
    read = shared.counts(of_spots, 0)
    seen = read if smooth == 0.0 else _smoothed(read, table, smooth)
    found = deconvolve_counts(
        seen, shared.counts(of_cells, 1), labels,
        method=method, n_replicates=n_replicates, seed=seed, slides=slide_names(table),
        own=None if smooth == 0.0 else read,
    )  # fmt: skip
    _write(table, found, key_added)
    table.uns[key_added] = record(found) | {
        "label": label,
        "seed": seed,
        "smooth": smooth,
        "n_shared_genes": len(shared.names),
        "share_of_counts_read": _share(float(read.sum()), float(of_spots.sum())),
        "n_unlabelled": int((labels == "").sum()),
        "types": np.array(found.types, dtype=object),
    }
    return found


def record(found: Deconvolution) -> dict[str, Any]:
    """Return what was done and found out about it, in the form that an h5ad holds."""
    return {
        "method": found.method,
        "n_empty": int(np.isnan(found.cells[:, 0]).sum()),
        "n_without_fit": int((~found.fits & np.isfinite(found.misfit)).sum()),
        "alike": [f"{one} and {other}: {value:.3f}" for one, other, value in found.alike],
        "judged": {} if found.judged is None else {column: found.judged[column].tolist() for column in found.judged},
    }


def proportions_of(adata: Cells, *, key: str = PROPORTIONS, table_key: str | None = None) -> pd.DataFrame:
    """Return the proportions that `deconvolve` wrote, spots x types.

    Raises
    ------
    InputError
        If there are none.
    """
    table = table_of(adata, table_key)
    if not isinstance(table.obsm.get(key), pd.DataFrame):
        raise InputError(f"obsm has no proportions {key!r}: spaf_analysis.tl.deconvolve writes them.")
    found: pd.DataFrame = table.obsm[key]
    return found


def _write(table: ad.AnnData, found: Deconvolution, key: str) -> None:
    parts = {key: found.cells, f"{key}_rna": found.rna, f"{key}_error": found.error}
    columns = column_names(found.types)
    for name, values in parts.items():
        if values is not None:
            table.obsm[name] = pd.DataFrame(values, index=table.obs_names, columns=columns)
        elif name in table.obsm:
            del table.obsm[name]  # of another run
    table.obs[f"{key}_misfit"] = found.misfit
    fits = pd.array(found.fits, dtype="boolean")
    fits[~np.isfinite(found.misfit)] = pd.NA
    table.obs[f"{key}_fits"] = fits


def column_names(types: list[str]) -> list[str]:
    """Return types as names of columns: with "_" for "/", which anndata is going to refuse in keys, each once."""
    names: list[str] = []
    for kind in types:
        name = kind.replace("/", "_")
        while name in names or (name != kind and name in types):
            name += "_"
        names.append(name)
    return names


def _smoothed(counts: sparse.csr_matrix, table: ad.AnnData, smooth: float) -> sparse.csr_matrix:
    """Add the mean of the nearest spots to each spot that has counts."""
    if not 0.0 < smooth < float("inf"):
        raise InputError(f"smooth must be at least 0, not {smooth:g}.")
    near = nearest_means(places_of(table), slide_names(table), N_NEAR)
    has_counts = sparse.diags_array((np.diff(counts.indptr) > 0).astype(np.float64))
    seen = sparse.csr_matrix(counts + has_counts @ (smooth * (near @ counts)))
    seen.eliminate_zeros()
    seen.sort_indices()
    return seen


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
