"""One slide, checked and in canonical order: what blocks are cut from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import anndata as ad
import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata.io import read_elem
from scipy import sparse

from spaf_data import keys
from spaf_data._matrices import counts_as_csr
from spaf_data.coordinates import check_coordinates
from spaf_data.corpus.sizes import MAX_NAME_BYTES
from spaf_data.errors import InputError
from spaf_data.gene_identity import GeneNames
from spaf_data.gene_statistics import check_counts

Slide: TypeAlias = ad.AnnData | str | Path


@dataclass(frozen=True, kw_only=True)
class SlideHeader:
    """What a corpus must know of a slide before it reads the slide."""

    name: str
    context: dict[str, str]  # tissue, condition, species, assay
    genes: tuple[str, ...]
    gene_ids: tuple[str, ...] | None

    def gene_names(self) -> GeneNames:
        """Return the genes of the slide as it names them."""
        return GeneNames(
            where=f"slide {self.name}", names=self.genes, gene_ids=self.gene_ids, species=self.context[keys.SPECIES]
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class SlideTable:
    """The cells of a slide that are in a split, in an order that does not depend on that of the rows.

    Cells are sorted by x, y and name. Gene codes are those of the corpus.
    """

    header: SlideHeader
    cell_ids: npt.NDArray[np.str_]  # (n_cells,)
    coordinates: npt.NDArray[np.float32]  # (n_cells, 2), um
    split: npt.NDArray[np.str_]  # (n_cells,)
    counts: sparse.csr_matrix  # int32, cells x genes of the corpus, no explicit zeros, columns sorted
    colocalized: sparse.csr_matrix  # bool, cells x gene pairs, columns sorted
    gene_pairs: npt.NDArray[np.int32]  # (n_gene_pairs, 2), codes a < b, sorted

    def fingerprint(self) -> str:
        """Return a SHA-256 of everything that the blocks of this slide are made from."""
        digest = hashlib.sha256(repr(self.header).encode())
        for text in (self.cell_ids, self.split):
            digest.update("\0".join(text).encode() + b"\0\0")
        for array in (
            self.coordinates,
            *(getattr(m, part) for m in (self.counts, self.colocalized) for part in ("indptr", "indices", "data")),
            self.gene_pairs,
        ):
            digest.update(f"{array.shape}".encode())
            # A part at a time: the wider type of all of a slide is larger than the slide.
            for start in range(0, len(array), _FINGERPRINT_ROWS):
                part = array[start : start + _FINGERPRINT_ROWS]
                digest.update(np.ascontiguousarray(part, dtype=_FINGERPRINT_TYPE[array.dtype.kind]).data)
        return digest.hexdigest()


# Index arrays of scipy are int32 or int64 as it sees fit; a fingerprint must not depend on that.
_FINGERPRINT_TYPE = {"f": "<f4", "i": "<i8", "b": "?"}
_FINGERPRINT_ROWS = 1 << 20


def read_headers(slide: Slide) -> list[SlideHeader]:
    """Read the names, contexts and genes of the slides of a table, without its matrices; most tables hold one.

    Raises
    ------
    InputError
        If the file cannot be read, a column is missing, has no value or several for one slide, or two genes have one
        name.
    """
    adata = _open(slide, matrices=False)
    where = _where(slide)
    missing = [column for column in (keys.SLIDE, *keys.CONTEXT) if column not in adata.obs]
    if missing:
        raise InputError(
            f"{where} has no obs column {missing[0]!r}; a slide needs: {', '.join((keys.SLIDE, *keys.CONTEXT))}."
        )
    genes = pd.Index(adata.var_names.astype(str))
    if genes.has_duplicates:
        raise InputError(f"{where} has two genes named {genes[genes.duplicated()][0]!r}.")
    gene_ids = None
    if keys.GENE_IDS in adata.var:
        gene_ids = tuple("" if pd.isna(value) else str(value) for value in adata.var[keys.GENE_IDS])
    if adata.obs[keys.SLIDE].isna().any() or adata.n_obs == 0:
        _constant(adata.obs[keys.SLIDE], keys.SLIDE, where)
    headers = []
    for name, obs in adata.obs.groupby(adata.obs[keys.SLIDE].astype(str), observed=True, sort=True):
        context = {column: _constant(obs[column], column, where) for column in keys.CONTEXT}
        headers.append(SlideHeader(name=str(name), context=context, genes=tuple(genes), gene_ids=gene_ids))
    return headers


def read_slide(
    slide: Slide,
    header: SlideHeader,
    to_corpus: npt.NDArray[np.int32],
    n_genes: int,
    *,
    split_key: str,
    colocalization_key: str | None,
    min_colocalization: float,
) -> SlideTable:
    """Read a slide and check everything that goes into blocks.

    Parameters
    ----------
    slide
        Slide AnnData, or the path of its h5ad file.
    header
        Of the slide to read, where the table holds several.
    to_corpus
        For each gene of the slide its code in the corpus. Counts of genes of one code are added up, and a pair of genes
        is co-localised where some pair of these codes is.
    n_genes
        Number of genes of the corpus.
    split_key
        Column of ``obs`` with the split of each cell; cells of the split ``gap`` are left out.
    colocalization_key
        Key of ``obsm`` and ``uns`` of the co-localised gene pairs; with ``None`` blocks have none.
    min_colocalization
        Entries above this are co-localised pairs.

    Raises
    ------
    InputError
        If something is missing, or counts, coordinates, names or gene pairs cannot be used.
    """
    adata = _open(slide, colocalization_key=colocalization_key)
    where = _where(slide)
    here = (adata.obs[keys.SLIDE].astype(str) == header.name).to_numpy()
    if not here.all():
        adata = adata[here]
    if split_key not in adata.obs:
        raise InputError(f"{where} has no obs column {split_key!r}; it has: {', '.join(adata.obs.columns)}.")
    if keys.SPATIAL not in adata.obsm:
        raise InputError(f"{where} has no obsm {keys.SPATIAL!r} with the coordinates of its cells in um.")
    if adata.obs[split_key].isna().any():
        raise InputError(f"{where} has cells without a split in obs column {split_key!r}.")
    split = adata.obs[split_key].astype(str).to_numpy()
    cell_ids = adata.obs_names.astype(str)
    if cell_ids.has_duplicates:
        raise InputError(f"{where} has two cells named {cell_ids[cell_ids.duplicated()][0]!r}.")
    names = cell_ids.to_numpy(dtype=str)
    too_long = next((name for name in names if len(name.encode()) > MAX_NAME_BYTES), None)
    if too_long is not None:
        raise InputError(f"{where} has a cell name of more than {MAX_NAME_BYTES} bytes: {too_long[:40]!r}...")
    try:
        coordinates = check_coordinates(adata.obsm[keys.SPATIAL]).astype(np.float32)
        counts = _counts(adata, names)
        colocalized, gene_pairs = _colocalized(adata, to_corpus, colocalization_key, min_colocalization)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error

    order = np.lexsort((names, coordinates[:, 1], coordinates[:, 0]))
    order = order[split[order] != keys.GAP]
    return SlideTable(
        header=header,
        cell_ids=names[order],
        coordinates=coordinates[order],
        split=split[order],
        counts=_take(counts, order, to_corpus, n_genes),
        colocalized=_take(colocalized, order, np.arange(len(gene_pairs)), len(gene_pairs)),
        gene_pairs=gene_pairs,
    )


def _open(slide: Slide, *, matrices: bool = True, colocalization_key: str | None = None) -> ad.AnnData:
    """Return a slide with what a corpus is made of: the cell graph of a file, for one, stays on the disk."""
    if isinstance(slide, ad.AnnData):
        return slide
    if not Path(slide).is_file():
        raise InputError(f"there is no slide {slide}.")
    try:
        with h5py.File(slide) as file:
            parts: dict[str, Any] = {name: read_elem(file[name]) for name in ("obs", "var")}
            if matrices:
                parts["X"] = read_elem(file["X"])
                wanted = {"obsm": (keys.SPATIAL, colocalization_key), "uns": (colocalization_key,)}
                for name, members in wanted.items():
                    parts[name] = {key: read_elem(file[name][key]) for key in members if key in file.get(name, {})}
        return ad.AnnData(**parts)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{Path(slide).name} cannot be read as an h5ad file ({error}).") from error


def _where(slide: Slide) -> str:
    return "the slide AnnData" if isinstance(slide, ad.AnnData) else Path(slide).name


def _constant(column: pd.Series, name: str, where: str) -> str:
    values = column.unique()
    if len(values) != 1 or pd.isna(values[0]):
        shown = ", ".join(repr(value) for value in values[:5])
        raise InputError(f"{where} must have one value in obs column {name!r}, not {len(values)}: {shown}.")
    return str(values[0])


def _counts(adata: ad.AnnData, names: npt.NDArray[np.str_]) -> sparse.csr_matrix:
    matrix = counts_as_csr(adata.X)
    try:
        check_counts(matrix.data)
    except InputError:
        bad = np.flatnonzero((matrix.data < 0) | (matrix.data != np.floor(matrix.data)) | ~np.isfinite(matrix.data))
        # A count beyond int32 is the one kind that is not among these.
        entry = bad[0] if len(bad) else int(np.argmax(matrix.data))
        cell = names[np.searchsorted(matrix.indptr, entry, side="right") - 1]
        gene = adata.var_names[matrix.indices[entry]]
        raise InputError(
            f"counts must be integers of at least 0, but cell {cell!r} has {matrix.data[entry]} of gene {gene!r}."
        ) from None
    return matrix.astype(np.int32, copy=False)


def _colocalized(
    adata: ad.AnnData, to_corpus: npt.NDArray[np.int32], key: str | None, minimum: float
) -> tuple[sparse.csr_matrix, npt.NDArray[np.int32]]:
    """Return cells x gene pairs with columns in the order of the corpus' gene codes, and the pairs."""
    if key is None:
        return sparse.csr_matrix(np.empty((adata.n_obs, 0), bool)), np.empty((0, 2), np.int32)
    if key not in adata.obsm or key not in adata.uns:
        raise InputError(
            f"co-localised gene pairs are missing: no {key!r} in both obsm and uns (None leaves them out)."
        )
    names = pd.DataFrame(adata.uns[key]["pairs"])
    matrix = sparse.csr_matrix(adata.obsm[key])
    if matrix.shape[1] != len(names):
        raise InputError(f"obsm {key!r} has {matrix.shape[1]} columns, but uns {key!r} names {len(names)} gene pairs.")
    index = adata.var_names.astype(str)
    columns = np.stack([index.get_indexer(pd.Index(names[c].astype(str))) for c in ("gene_a", "gene_b")], axis=1)
    if (columns < 0).any():
        row, column = np.argwhere(columns < 0)[0]
        raise InputError(f"uns {key!r} names the gene {names.iloc[row, column]!r}, which the slide does not have.")
    columns.sort(axis=1)
    if (columns[:, 0] == columns[:, 1]).any() or len(np.unique(columns, axis=0)) < len(columns):
        raise InputError(f"uns {key!r} names a gene pair twice, or a gene with itself.")
    codes = np.sort(to_corpus[columns], axis=1)
    # Two columns of the slide that are one gene are no pair, and two pairs may have become one.
    kept = np.flatnonzero(codes[:, 0] != codes[:, 1])
    pairs, place = np.unique(codes[kept], axis=0, return_inverse=True)
    flags = sparse.csr_matrix((matrix.data > minimum, matrix.indices, matrix.indptr), shape=matrix.shape)
    if len(kept) < len(codes):
        flags = flags[:, kept]
    if not (np.diff(place.reshape(-1)) > 0).all():
        flags = _take(flags, np.arange(adata.n_obs), place.reshape(-1).astype(np.int32), len(pairs))
    return flags, pairs.astype(np.int32)


def _take(
    matrix: sparse.csr_matrix, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.integer[Any]], n_columns: int
) -> sparse.csr_matrix:
    """Return rows of a matrix with columns renumbered, those of one number added, without explicit zeros, sorted."""
    result = matrix[rows]
    if not np.array_equal(columns, np.arange(n_columns)):
        indices = columns.astype(np.int32)[result.indices]
        result = sparse.csr_matrix((result.data, indices, result.indptr), shape=(len(rows), n_columns))
    result.sum_duplicates()
    result.eliminate_zeros()
    return result
