"""Any AnnData with centroids in ``obsm["spatial"]``: an h5ad file, a zarr store or an object."""

from __future__ import annotations

import zipfile
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from spaf_data import keys
from spaf_data.errors import InputError
from spaf_data.options import ReadOptions
from spaf_data.readers._counts import CellCounts

COUNTS_WANTED = "*.h5ad"

# Columns and names of columns that may hold Ensembl ids.
_ID_COLUMNS = (keys.GENE_IDS, "gene_id", "ensembl_id", "feature_id")


def has_counts(path: Path) -> bool:
    """Whether this is an h5ad file or the zarr store of an AnnData."""
    if path.is_dir():
        return (path / "obs").is_dir() and (path / "var").is_dir()
    return path.suffix == ".h5ad"


def read_counts(source: Path | anndata.AnnData, options: ReadOptions) -> CellCounts:
    """Read counts and centroids of an AnnData; see `spaf_data.read_counts`."""
    if isinstance(source, anndata.AnnData):
        return counts_of(source, "the AnnData", options)
    try:
        adata = anndata.read_zarr(source) if source.is_dir() else anndata.read_h5ad(source)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"{source} cannot be read as an AnnData: {error}") from error
    return counts_of(adata, str(source), options)


def counts_of(
    adata: anndata.AnnData, where: str, options: ReadOptions, *, centroids: np.ndarray | None = None
) -> CellCounts:
    """Return what an AnnData says of its cells.

    Parameters
    ----------
    adata
        Cells with integer counts in ``X`` or a layer.
    where
        For messages.
    options
        ``layer`` and ``pixel_size`` are used.
    centroids
        Centroids that are known from elsewhere; else those of ``obsm["spatial"]``.

    Raises
    ------
    InputError
        If there are no counts or no centroids.
    """
    if options.layer is not None and options.layer not in adata.layers:
        there = ", ".join(adata.layers) or "none"
        raise InputError(f"{where} has no layer {options.layer!r}; it has: {there}")
    matrix = adata.X if options.layer is None else adata.layers[options.layer]
    if matrix is None:
        raise InputError(f"{where} has no X; name a layer with counts (layer) of: {', '.join(adata.layers) or 'none'}")
    if centroids is None:
        centroids = _centroids(adata, where)
    ids = next((adata.var[name] for name in _ID_COLUMNS if name in adata.var), None)
    context = {key: _constant(adata.obs[key]) for key in (keys.SLIDE, *keys.CONTEXT) if key in adata.obs}
    areas = None
    if keys.AREA in adata.obs:
        areas = pd.to_numeric(adata.obs[keys.AREA], errors="coerce").to_numpy(dtype=np.float64)
    return CellCounts(
        where=where,
        counts=sparse.csr_matrix(matrix),
        cells=adata.obs_names.to_numpy(dtype=object).astype(str),
        genes=[str(name) for name in adata.var_names],
        gene_ids=None if ids is None else ["" if pd.isna(value) else str(value) for value in ids],
        centroids=centroids * (options.pixel_size or 1.0),
        areas=areas,
        obs={str(name): adata.obs[name].array for name in adata.obs if name not in _OURS},
        metadata={key: value for key, value in context.items() if value is not None},
        parameters={
            "platform": "anndata",
            "file": Path(where).name,
            "layer": options.layer or "X",
            "pixel_size": options.pixel_size or "not applied: coordinates are um",
        },
    )


_OURS = frozenset({keys.SLIDE, *keys.CONTEXT, keys.AREA, keys.SPLIT, keys.N_TRANSCRIPTS, keys.NUCLEUS_FRACTION})


def _centroids(adata: anndata.AnnData, where: str) -> np.ndarray:
    if keys.SPATIAL not in adata.obsm:
        there = ", ".join(adata.obsm) or "nothing"
        raise InputError(f"{where} has no obsm {keys.SPATIAL!r} with the coordinates of its cells; obsm has: {there}")
    found = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)
    if found.ndim != 2 or found.shape[1] < 2:
        raise InputError(f"{where} has an obsm {keys.SPATIAL!r} of shape {found.shape}, which has no x and y")
    return found[:, :2]


def _constant(column: pd.Series) -> str | None:
    values = column.dropna().unique()
    return str(values[0]) if len(values) == 1 else None
