"""What every analysis asks of a table of cells: which table, which cells have an embedding, where they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
from numpy.typing import NDArray

import spaf_model
from spaf_analysis.errors import InputError
from spaf_analysis.keys import SPATIAL
from spaf_data import slides_of_cells
from spaf_model import Model, load_model

if TYPE_CHECKING:
    from spaf_model import Cells


def table_of(data: Cells, table_key: str | None = None) -> ad.AnnData:
    """Return the table of cells: the AnnData itself, or the table of a SpatialData that is named or is its only one.

    Raises
    ------
    InputError
        If it is neither, there is no such table, or it is not said which of several is meant.
    """
    try:
        return spaf_model.table_of(data, table_key)
    except spaf_model.InputError as error:
        raise InputError(str(error)) from error


def embedded_cells(adata: ad.AnnData, key: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the embedding of the cells that have one (finite in all dimensions) and their positions.

    Raises
    ------
    InputError
        If `obsm` has no such key or fewer than 3 cells are embedded.
    """
    if key not in adata.obsm:
        raise InputError(f"obsm has no embedding {key!r}; it has: {', '.join(adata.obsm) or 'nothing'}.")
    embedding = np.asarray(adata.obsm[key], dtype=np.float64)
    embedded = np.flatnonzero(np.isfinite(embedding).all(axis=1))
    if len(embedded) < 3:
        raise InputError(f"only {len(embedded)} cells have an embedding in obsm[{key!r}]; at least 3 are needed.")
    return embedding[embedded], embedded


def places_of(adata: ad.AnnData) -> NDArray[np.float64]:
    """Return where the cells are, (n_cells, 2) in um.

    Raises
    ------
    InputError
        If `obsm` has no coordinates, or some are not finite.
    """
    if SPATIAL not in adata.obsm:
        raise InputError(f"obsm has no coordinates {SPATIAL!r}; it has: {', '.join(adata.obsm) or 'nothing'}.")
    xy = np.asarray(adata.obsm[SPATIAL], dtype=np.float64)[:, :2]
    if not np.isfinite(xy).all():
        raise InputError(f"obsm[{SPATIAL!r}] holds coordinates that are not finite.")
    return xy


def slide_names(adata: ad.AnnData) -> NDArray[np.str_]:
    """Return the slide of each cell; one without a name where the table says of none."""
    slides = slides_of_cells(adata.obs)
    return np.full(adata.n_obs, "") if slides is None else np.asarray(slides, dtype=str)


def cells_of_slide(adata: ad.AnnData, slide: str | None) -> NDArray[np.int64]:
    """Return the cells of a slide; all where none is named and there is only one.

    Raises
    ------
    InputError
        If there is no such slide, or it is not said which of several is meant.
    """
    names = slide_names(adata)
    found = np.unique(names)
    if slide is None:
        if len(found) > 1:
            raise InputError(f"say with slide= which of {len(found)} slides to draw; there are: {', '.join(found)}.")
        return np.arange(adata.n_obs)
    if slide not in found:
        raise InputError(
            f"there is no slide {slide!r}; there are: {', '.join(name or 'one unnamed' for name in found)}."
        )
    return np.flatnonzero(names == slide)


def read_table(path: Path) -> ad.AnnData:
    """Read an h5ad.

    Raises
    ------
    InputError
        If there is no such file, or it is no h5ad.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}.")
    try:
        return ad.read_h5ad(path)
    except (OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read as an h5ad file: {str(error).splitlines()[0]}") from error


def embed_where_missing(adata: ad.AnnData, key: str, model: Model[Any, Any] | str | Path | None) -> None:
    """Embed the cells into `obsm[key]`, where it is not there and a model is given."""
    if key not in adata.obsm and model is not None:
        loaded(model).embed(adata, key_added=key)


def loaded(model: Model[Any, Any] | str | Path) -> Model[Any, Any]:
    """Return a model by itself, its directory, or the name of one that comes with spaf-model."""
    return model if isinstance(model, Model) else load_model(model)
