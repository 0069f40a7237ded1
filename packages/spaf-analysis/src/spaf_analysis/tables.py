"""What every analysis asks of a table of cells: which table, which cells have an embedding, where they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

import spaf_data
import spaf_model
from spaf_analysis.errors import InputError
from spaf_analysis.keys import NO_VALUE, SPATIAL, UNKNOWN
from spaf_data import slides_of_cells
from spaf_model import Model, load_model

if TYPE_CHECKING:
    from spaf_model import Cells

GRID_SPREAD = 1.05  # of distances that are one and the same on a grid: their 90th percentile over their 10th
# The same of uneven grids: 1.17 on three sets of Spatial Transcriptomics; of cells 1.9 to 2.6 on three others.
_UNEVEN_SPREAD = 1.3
_LEAST_SPOTS = 20
MAX_CATEGORIES = 500  # that a column of labels can have


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


def stored_result(table: ad.AnnData, key: str, what: str, writer: str) -> Any:
    """Return what an analysis wrote into `uns`.

    Parameters
    ----------
    table
        Cells.
    key
        Of `uns`.
    what, writer
        What messages call it, and what writes it: "gene pairs" and "tl.gene_pairs writes them".

    Raises
    ------
    InputError
        If it is not there.
    """
    if key not in table.uns:
        raise InputError(f"uns has no {what} {key!r} (spaf_analysis.{writer}).")
    return table.uns[key]


def table_of_file(path: Path) -> pd.DataFrame:
    """Read a ``.parquet``, ``.tsv`` or else ``.csv``, of the latter two every value as text.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}.") from error


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
    """Return the slide of each cell; one without a name where the table says of none.

    Raises
    ------
    InputError
        If the column of slides says nothing for some cells.
    """
    try:
        slides = slides_of_cells(adata.obs)
    except spaf_data.InputError as error:
        # It ends in options of spaf-data, which no analysis has.
        said = str(error).partition("; name another column")[0]
        raise InputError(f"{said}; fill the column in, or take it out of obs.") from error
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


def embed_where_missing(
    adata: ad.AnnData, key: str, model: Model[Any, Any] | str | Path | None, *, where: str = ""
) -> None:
    """Embed the cells of a command into `obsm[key]`, where it is not there and a model is given.

    Parameters
    ----------
    adata
        Cells.
    key
        Of `obsm`.
    model
        What is to embed them.
    where
        The file, for messages about one of several.

    Raises
    ------
    InputError
        If it is not there and no model is named.
    """
    if key in adata.obsm:
        return
    if model is None:
        raise InputError(
            f"{where + ': ' if where else ''}obsm has no embedding {key!r}; it has: "
            f"{', '.join(adata.obsm) or 'nothing'}; name another with --key, or a model that makes it with --model."
        )
    loaded(model).embed(adata, key_added=key)


def loaded(model: Model[Any, Any] | str | Path) -> Model[Any, Any]:
    """Return a model by itself, its directory, or the name of one that comes with spaf-model."""
    return model if isinstance(model, Model) else load_model(model)


def embedding_of(
    model: Model[Any, Any],
    table: ad.AnnData,
    rows: NDArray[np.int64],
    *,
    layer: str | None = None,
    method: str | None = None,
) -> NDArray[np.float64]:
    """Return what a model gives for some cells and leave the table as it is; one that reads whole slides reads all."""
    read = ad.AnnData(table.X if layer is None else table.layers[layer], obs=table.obs, var=table.var)
    whole = model.reads_whole_slides
    read = read if whole else read[rows].copy()
    model.embed(read, key_added="X", method=method)
    found = np.asarray(read.obsm["X"], dtype=np.float64)
    return found[rows] if whole else found


def labels_of(adata: ad.AnnData, column: str, option: str, *, least: int = 2) -> tuple[NDArray[np.int64], list[str]]:
    """Return the code of each cell in a column of `obs`, -1 where it has no value, and the names of the codes.

    Parameters
    ----------
    adata
        Cells.
    column
        Of `obs`; words for no value, such as "nan", are none, and what `annotate` could not tell has none.
    option
        What names the column, for messages.
    least
        Different values that are needed.

    Raises
    ------
    InputError
        If there is no such column, it has too few values to compare, or so many that it is no label.
    """
    if column not in adata.obs:
        raise InputError(
            f"obs has no column {column!r} ({option}); it has: {', '.join(map(str, adata.obs)) or 'nothing'}."
        )
    values = adata.obs[column]
    texts = values.astype(object).where(values.notna(), "").astype(str).str.strip()
    texts = texts.where(~texts.str.casefold().isin(NO_VALUE), "")
    told = adata.uns.get(column)
    if isinstance(told, Mapping) and "share_unknown" in told:  # predicted by `annotate`
        texts = texts.where(texts != UNKNOWN, "")
    names = sorted(set(texts) - {""})
    if len(names) > MAX_CATEGORIES:
        raise InputError(
            f"obs column {column!r} ({option}) has {len(names):,} different values among {adata.n_obs:,} cells, and at "
            f"most {MAX_CATEGORIES} can be labels; name a column of groups."
        )
    if len(names) < least:
        said = f"only {names[0]!r}" if names else "no value"
        raise InputError(
            f"obs column {column!r} ({option}) holds {said}; at least {least} different values are needed."
        )
    rank = {name: code for code, name in enumerate(names)}
    return np.array([rank.get(text, -1) for text in texts], dtype=np.int64), names


def check_cell_names(adata: ad.AnnData) -> None:
    """Raise `InputError` where two cells have one name: results could not be told apart."""
    if not adata.obs_names.is_unique:
        twice = adata.obs_names[adata.obs_names.duplicated()]
        raise InputError(
            f"{len(twice)} cells have the name of another one, the first is {str(twice[0])!r}; make names unique "
            "(obs_names_make_unique) first."
        )


def nearest_distances(coordinates: NDArray[np.float64], slide: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the distance from each cell to the nearest other one of its slide; none of a slide with one cell."""
    nearest = [np.zeros(0)]
    for name in np.unique(slide):
        of_slide = coordinates[slide == name]
        if len(of_slide) > 1:
            nearest.append(np.asarray(cKDTree(of_slide).query(of_slide, k=2)[0])[:, 1])
    return np.concatenate(nearest)


def nearest_means(coordinates: NDArray[np.float64], slide: NDArray[np.generic], n: int) -> sparse.csr_matrix:
    """Return what averages over the n nearest other cells of the slide of each cell, (n_cells, n_cells).

    The row of a cell that is alone on its slide is empty.
    """
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for name in np.unique(slide):
        own = np.flatnonzero(slide == name)
        some = min(n, own.size - 1)
        if some > 0:
            found = np.asarray(cKDTree(coordinates[own]).query(coordinates[own], k=some + 1)[1])
            # Of cells in one place any may come first, so that a cell is not always its own nearest.
            other = found != np.arange(own.size)[:, None]
            other[other.all(axis=1), -1] = False
            rows.append(np.repeat(own, some))
            columns.append(own[found[other]])
    at, of = np.concatenate(rows), np.concatenate(columns)
    means = sparse.csr_matrix((np.ones(at.size), (at, of)), shape=(slide.size, slide.size))
    means.data /= np.repeat(np.diff(means.indptr), np.diff(means.indptr))
    return means


def grid_spacing(coordinates: NDArray[np.float64], slide: NDArray[np.generic]) -> float | None:
    """Return how far apart spots on a grid are, in the unit of the coordinates; None of cells, which lie anywhere.

    The grid may be uneven, as where places of spots were read off images: the spacing is that of the far ones.
    """
    nearest = nearest_distances(coordinates, slide)
    if len(nearest) < _LEAST_SPOTS:
        return None
    low, high = np.percentile(nearest, [10, 90])
    return float(high) if 0 < high <= low * _UNEVEN_SPREAD else None


def check_radius(coordinates: NDArray[np.float64], slide: NDArray[np.generic], radius: float, option: str) -> None:
    """Raise `InputError` for a radius that is not above 0, or within which most cells have no other one.

    Such a radius is mostly one in um for coordinates in pixels.
    """
    if not 0 < radius < float("inf"):
        raise InputError(f"{option} must be above 0 um, not {radius:g}.")
    nearest = nearest_distances(coordinates, slide)
    median = float(np.median(nearest)) if len(nearest) else float("inf")
    if median > radius:
        raise InputError(
            f"{option} {radius:g} reaches no other cell for most cells: the nearest one is {median:.4g} away in the "
            f"median; obsm[{SPATIAL!r}] must be in um (is it in pixels?), or give a larger radius."
        )
