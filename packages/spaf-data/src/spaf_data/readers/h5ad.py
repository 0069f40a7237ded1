"""Any AnnData with centroids in ``obsm["spatial"]``: an h5ad file, a zarr store or an object."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem

from spaf_data import keys
from spaf_data._matrices import counts_as_csr
from spaf_data.errors import InputError
from spaf_data.gene_identity import GeneNames
from spaf_data.gene_statistics import check_counts
from spaf_data.readers._context import OURS, constant_of, context_of
from spaf_data.readers._controls import is_control_name
from spaf_data.readers._counts import CellCounts, unique_genes
from spaf_data.readers._lattice import table_pixel_size
from spaf_data.readers._platform import ReadsCounts
from spaf_data.slides import check_slides_apart, slide_column, slides_of_cells
from spaf_data.table_genes import names_and_ids

if TYPE_CHECKING:
    from spaf_data.options import ReadOptions

_RAW = "raw"
_ROWS_LOOKED_AT = 1000
_IS_UM = 0.02  # a lattice whose pixels are so near to 1 um is in um


class AnnDataTable(ReadsCounts[Path | anndata.AnnData]):
    """AnnData with centroids: files, stores and objects."""

    name = "anndata"
    options = ("layer", "pixel_size", "slide_key", "one_slide", "only_slide", "check_places")
    counts_wanted = "*.h5ad"
    knows_unit = False

    def takes(self, run: object) -> bool:
        """Whether a run is a path or an AnnData."""
        return isinstance(run, Path | anndata.AnnData)

    def has_counts(self, source: Path | anndata.AnnData) -> bool:
        """Whether this is an AnnData, an h5ad file or the zarr store of an AnnData."""
        return isinstance(source, anndata.AnnData) or is_anndata(source)

    def slide_name(self, path: Path) -> str:
        """Return the name of the file or the store."""
        return name_of_store(path)

    def read_counts(self, source: Path | anndata.AnnData, options: ReadOptions) -> CellCounts:
        """Read counts and centroids of an AnnData; see `spaf_data.read_counts`."""
        if isinstance(source, anndata.AnnData):
            return counts_of(source, "the AnnData", options)
        try:
            adata = anndata.read_zarr(source) if source.is_dir() else _read_h5ad(source, options)
        except (OSError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            if "does not support dtype" in str(error):  # scipy's words, followed by a list of all that it does
                raise InputError(
                    f"{source} has a sparse matrix of {str(error).partition('dtype ')[2].split('. ')[0]}, which cannot "
                    "be read as it is: write it as integers or float32"
                ) from error
            raise InputError(f"{source} cannot be read as an AnnData: {error}") from error
        return counts_of(adata, str(source), options)

    def known_genes(self, source: Path | anndata.AnnData, options: ReadOptions) -> GeneNames | None:
        """See `ReadsCounts.known_genes`."""
        return read_genes(source, options) if isinstance(source, Path) and source.is_file() else None

    def read_obs(self, source: Path | anndata.AnnData, options: ReadOptions) -> tuple[pd.DataFrame, str | None]:
        """Return the table of cells and nothing else of it; what usual columns say is all it knows of slides."""
        return source.obs if isinstance(source, anndata.AnnData) else _obs(source), None


def is_anndata(path: Path) -> bool:
    """Whether this is an h5ad file or the zarr store of an AnnData."""
    if path.is_dir():
        return (path / "obs").is_dir() and (path / "var").is_dir()
    return path.suffix == ".h5ad"


def name_of_store(path: Path) -> str:
    """Return the name of a file or a store without its ending."""
    return path.stem if path.suffix in (".h5ad", ".zarr") else path.name


def _obs(source: Path) -> pd.DataFrame:
    if source.is_dir():
        obs: pd.DataFrame = anndata.read_zarr(source).obs
        return obs
    with h5py.File(source) as file:
        if isinstance(file["obs"], h5py.Group):
            obs = read_elem(file["obs"])
            return obs
    obs = anndata.read_h5ad(source, backed="r").obs  # as versions before 0.7 wrote it
    return obs


def read_genes(source: Path, options: ReadOptions) -> GeneNames | None:
    """Return the genes of an h5ad file as `read_counts` names them, read alone; None where that fails."""
    try:
        with h5py.File(source) as file:
            var = read_elem(file["raw/var" if options.layer == _RAW and "raw" in file else "var"])
            species = read_elem(file["obs"][keys.SPECIES]) if keys.SPECIES in file["obs"] else ()
        genes, gene_ids, _ = names_and_ids(var)
        genes = unique_genes(str(source), genes, gene_ids)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, InputError):
        return None  # reading it all says why
    kept = [place for place, name in enumerate(genes) if not is_control_name(name)]
    return GeneNames(
        where=str(source),
        names=[genes[place] for place in kept],
        gene_ids=None if gene_ids is None else [gene_ids[place] for place in kept],
        species=constant_of(pd.Series(species, dtype=object)) or "",
    )


def _read_h5ad(source: Path, options: ReadOptions) -> anndata.AnnData:
    if options.only_slide is None:
        return anndata.read_h5ad(source)
    # The counts of other slides stay on the disk.
    adata = anndata.read_h5ad(source, backed="r")
    try:
        column, slide = options.only_slide
        return adata[slides_of_cells(adata.obs, column, where=str(source)) == slide].to_memory()
    finally:
        adata.file.close()


def counts_of(
    adata: anndata.AnnData,
    where: str,
    options: ReadOptions,
    *,
    centroids: np.ndarray | None = None,
    slide_key: str | None = None,
    names: np.ndarray | None = None,
) -> CellCounts:
    """Return what an AnnData says of its cells.

    Parameters
    ----------
    adata
        Cells with integer counts in ``X`` or a layer. Spots that say their places in the array of Visium
        (``array_row``, ``array_col``) are measured by it, unless the size of pixels is given.
    where
        For messages.
    options
        ``layer``, ``pixel_size``, ``slide_key``, ``one_slide``, ``only_slide`` and ``check_places`` are used.
    centroids
        Centroids that are known from elsewhere; else those of ``obsm["spatial"]``.
    slide_key
        Column of ``obs`` with the slides as known from elsewhere, where the options name none.
    names
        Ids of the cells that go before those of the rows.

    Raises
    ------
    InputError
        If there are no counts or no centroids, or which slides the cells are of cannot be told.
    """
    of_cell, key = _slides(adata.obs, options, slide_key, where)
    if centroids is None:
        centroids = _centroids(adata, where)
    names = adata.obs_names.to_numpy(dtype=object).astype(str) if names is None else names
    if options.only_slide is not None and of_cell is not None:
        rows = np.flatnonzero(of_cell == options.only_slide[1])
        adata, centroids, of_cell, names = adata[rows], centroids[rows], of_cell[rows], names[rows]
    # A centroid that is not finite is refused with the name of its cell later.
    ask = options.check_places and not options.one_slide and options.slide_key is None
    if ask and np.isfinite(centroids).all():
        check_slides_apart(centroids, of_cell, adata.obs, where=where)
    pixel, sized = _pixel_sizes(adata, centroids, of_cell, options, where)
    matrix, var, layer = _counts(adata, options.layer, where)
    counts = counts_as_csr(matrix, f"{layer} of {where}")
    genes, gene_ids, symbols = names_and_ids(var)
    metadata, columns = context_of(adata.obs, of_cell, where)
    areas = None
    if keys.AREA in adata.obs:
        areas = pd.to_numeric(adata.obs[keys.AREA], errors="coerce").to_numpy(dtype=np.float64)
    return CellCounts(
        where=where,
        counts=counts,
        other_layers=() if layer != "X" or _are_counts(counts) else _with_counts(adata),
        cells=names,
        genes=genes,
        gene_ids=gene_ids,
        centroids=centroids * pixel[:, None],
        areas=None if areas is None else areas * pixel**2,
        obs={str(name): adata.obs[name].array for name in adata.obs if name not in OURS},
        metadata=metadata,
        of_cell=columns,
        parameters={
            "platform": AnnDataTable.name,
            "file": Path(where).name,
            "layer": layer,
            **sized,
            **({} if key is None else {"slide_key": key}),
            **({} if symbols is None else {"gene_names": symbols}),
        },
    )


def _slides(
    obs: pd.DataFrame, options: ReadOptions, slide_key: str | None, where: str
) -> tuple[np.ndarray | None, str | None]:
    """Return the slide of each cell and the column that says it."""
    if options.one_slide:
        return None, None
    wanted = options.only_slide[0] if options.only_slide is not None else options.slide_key or slide_key
    column = slide_column(obs, wanted, where=where)
    return (None, None) if column is None else (slides_of_cells(obs, column, where=where), column)


def _pixel_sizes(
    adata: anndata.AnnData, centroids: np.ndarray, of_cell: np.ndarray | None, options: ReadOptions, where: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return um a pixel for each cell, and what parameters say of it: the lattice of Visium is measured."""
    pixel = np.full(adata.n_obs, options.pixel_size or 1.0)
    if options.pixel_size is not None:
        return pixel, {"pixel_size": options.pixel_size, "pixel_size_from": "pixel_size"}
    groups = [np.arange(adata.n_obs)] if of_cell is None else [np.flatnonzero(of_cell == v) for v in np.unique(of_cell)]
    found: list[float | None] = []
    for cells in groups:
        try:
            size = table_pixel_size(adata.obs.iloc[cells], centroids[cells], adata.uns, where=where)
        except InputError:
            if options.check_places:
                raise
            size = None
        if size is not None and abs(size - 1.0) < _IS_UM:
            size = 1.0
        pixel[cells] = size or 1.0
        found.append(size)
    measured = [size for size in found if size is not None]
    if not measured or len(measured) < len(found):
        return pixel, {"pixel_size": "not applied: coordinates are um"}
    sizes: Any = measured[0] if len(measured) == 1 else np.array(measured)  # of slides in the order of their names
    return pixel, {"pixel_size": sizes, "pixel_size_from": "the lattice"}


def _counts(adata: anndata.AnnData, layer: str | None, where: str) -> tuple[Any, pd.DataFrame, str]:
    """Return the matrix that is wanted, the table of its genes, and its name."""
    if layer is None:
        if adata.X is None:
            raise InputError(f"{where} has no X; name a layer with counts (layer) of: {_layers(adata)}")
        return adata.X, adata.var, "X"
    if layer in adata.layers:
        return adata.layers[layer], adata.var, layer
    if layer == _RAW and adata.raw is not None:
        return adata.raw.X, adata.raw.var, _RAW
    raise InputError(f"{where} has no layer {layer!r}; it has: {_layers(adata)}")


def _layers(adata: anndata.AnnData) -> str:
    return ", ".join([*adata.layers, *([_RAW] if adata.raw is not None else [])]) or "none"


def _with_counts(adata: anndata.AnnData) -> tuple[str, ...]:
    """Name the layers that hold counts as far as their first rows show, for a question."""
    found = [name for name, matrix in adata.layers.items() if _are_counts(matrix[:_ROWS_LOOKED_AT])]
    if adata.raw is not None and _are_counts(adata.raw.X[:_ROWS_LOOKED_AT]):
        found.append(_RAW)
    return tuple(found)


def _are_counts(matrix: Any) -> bool:
    try:
        check_counts(counts_as_csr(matrix).data)
    except InputError:
        return False
    return True


def _centroids(adata: anndata.AnnData, where: str) -> np.ndarray:
    if keys.SPATIAL not in adata.obsm:
        there = ", ".join(adata.obsm) or "nothing"
        raise InputError(f"{where} has no obsm {keys.SPATIAL!r} with the coordinates of its cells; obsm has: {there}")
    found = _xy(adata.obsm[keys.SPATIAL], where)
    if found.ndim != 2 or found.shape[1] < 2:
        raise InputError(f"{where} has an obsm {keys.SPATIAL!r} of shape {found.shape}, which has no x and y")
    return found[:, :2]


def _xy(places: Any, where: str) -> np.ndarray:
    """Return places as numbers: of columns x and y where they have names, and of any array."""
    named = getattr(places, "columns", None)
    named = getattr(getattr(places, "dtype", None), "names", None) if named is None else named
    if named is not None:
        called = {str(name).casefold(): name for name in named}
        if {"x", "y"} <= set(called):
            places = np.column_stack([np.asarray(places[called[axis]]) for axis in "xy"])
        elif not hasattr(places, "columns"):
            raise InputError(
                f"{where} has an obsm {keys.SPATIAL!r} of the fields {', '.join(map(str, named))}, and none of them x "
                "and y"
            )
    if hasattr(places, "toarray"):  # sparse
        places = places.toarray()
    try:
        return np.asarray(places, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} has an obsm {keys.SPATIAL!r} that does not hold numbers: {error}") from error
