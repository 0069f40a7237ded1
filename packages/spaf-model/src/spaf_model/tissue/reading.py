"""The cells of an AnnData by slide: counts of the model's genes as CSR, and places, checked before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_model.cell_source import say_what_was_read
from spaf_model.context import SLIDE_COLUMNS, SPATIAL
from spaf_model.context import places_of as read_places
from spaf_model.counts import check_counts, rows_as_csr
from spaf_model.errors import InputError
from spaf_model.expression import ID_COLUMNS, SYMBOL_COLUMNS
from spaf_model.gene_identity import ensembl_id, id_of
from spaf_model.tissue.standardise import row_sums
from spaf_model.vocabulary import GeneMatch, Vocabulary

if TYPE_CHECKING:
    import anndata
    import pandas as pd

_ROWS_AT_A_TIME = 16_384
LEAST_CELLS = 10  # of a slide, for statistics of its own


@dataclasses.dataclass(frozen=True, eq=False)
class SlideCells:
    """The cells of one slide that have counts of the model's genes."""

    name: str
    rows: NDArray[np.int64]  # where they are in the table
    counts: sparse.csr_array  # float32, (n_cells, n_genes of the model)
    coordinates: NDArray[np.float64] | None  # (n_cells, 2 or 3)
    n_genes: int  # of the model, with counts on the slide
    n_counts: float = 0.0  # of all genes of the table, where they were added up


def read_slides(
    adata: anndata.AnnData,
    vocabulary: Vocabulary,
    match: GeneMatch,
    *,
    layer: str | None,
    slide_key: str | None,
    with_places: bool,
    strict: bool = False,
) -> list[SlideCells]:
    """Read the slides of a table, in the order of their names.

    Cells without any count of the model's genes are left out.

    Raises
    ------
    InputError
        If a column, layer or place is missing, values are not counts, a slide has fewer than 10 cells with counts or,
        with `strict`, a cell has no count of the model's genes.
    """
    if not adata.n_obs:
        raise InputError("The AnnData has no cells.")
    slides = slides_of(adata, slide_key)
    places = places_of(adata) if with_places else None
    counts, totals = read_counts(adata, vocabulary, match, layer=layer)
    result = split_slides(counts, slides, places, totals)
    if strict:
        refuse_empty(adata, result)
    return result


def split_slides(
    counts: sparse.csr_array,
    slides: NDArray[np.str_],
    places: NDArray[np.float64] | None,
    totals: NDArray[np.float64] | None = None,
) -> list[SlideCells]:
    """Return the cells of each slide that have counts, in the order of the names of slides.

    Parameters
    ----------
    counts
        (n_cells, n_genes of the model).
    slides
        Name of the slide of each cell.
    places
        (n_cells, 2 or 3), or None.
    totals
        Counts of all genes of the table, (n_cells,); None where they are not known.

    Raises
    ------
    InputError
        If a slide has fewer than 10 cells with counts.
    """
    occupied = row_sums(counts) > 0
    result = []
    for name in sorted(set(slides.tolist())):
        rows = np.flatnonzero((slides == name) & occupied)
        if rows.size < LEAST_CELLS:
            where = f"Slide {name!r}" if name else "The slide"
            raise InputError(
                f"{where} has {rows.size} cells with counts of the model's genes; counts are standardised by the cells "
                f"of their own slide, which takes at least {LEAST_CELLS}."
            )
        of_slide = counts[rows]
        n_genes = np.unique(of_slide.indices).size
        n_counts = 0.0 if totals is None else float(totals[slides == name].sum())
        result.append(SlideCells(name, rows, of_slide, None if places is None else places[rows], n_genes, n_counts))
    return result


def slides_of(adata: anndata.AnnData, slide_key: str | None) -> NDArray[np.str_]:
    """Return the slide of each cell, by a column of ``obs``; "" for all where there is none.

    Raises
    ------
    InputError
        If the column that is named is not there, or it has no value for some cells.
    """
    key = slide_key
    if key is None:
        key = next((name for name in SLIDE_COLUMNS if name in adata.obs), None)
    if key is None:
        return np.full(adata.n_obs, "", dtype=np.str_)
    if key not in adata.obs:
        names = ", ".join(map(str, adata.obs.columns)) or "nothing"
        raise InputError(f"There is no obs column {key!r} (slide_key); obs has: {names}.")
    column = adata.obs[key]
    if column.isna().any():
        raise InputError(f"obs[{key!r}] has no slide for {int(column.isna().sum())} of {adata.n_obs} cells.")
    slides: NDArray[np.str_] = column.astype(str).to_numpy().astype(np.str_)
    return slides


def places_of(adata: anndata.AnnData) -> NDArray[np.float64] | None:
    """Return the coordinates of the cells, (n_cells, 2 or 3); None where the table has no ``obsm["spatial"]``.

    Raises
    ------
    InputError
        If they are no numbers, not finite, or of another shape.
    """
    places = read_places(adata)
    if places is None:
        return None
    bad = np.flatnonzero(~np.isfinite(places).all(axis=1))
    if bad.size:
        raise InputError(
            f"obsm[{SPATIAL!r}] is not finite for {bad.size} of {len(places)} cells, first for cell "
            f"{str(adata.obs_names[bad[0]])!r}; drop those cells first."
        )
    return places


def read_counts(
    adata: anndata.AnnData, vocabulary: Vocabulary, match: GeneMatch, *, layer: str | None
) -> tuple[sparse.csr_array, NDArray[np.float64]]:
    """Return the counts of the model's genes, float32 (n_cells, n_genes of the model), and of all genes, (n_cells,).

    Columns of one gene are added.

    X or the layer may be CSR, CSC, dense, or a part of a backed file; only some rows at a time are converted.

    Raises
    ------
    InputError
        If there is no such layer, or values are not counts.
    """
    if layer is not None and layer not in adata.layers:
        raise InputError(f"There is no layer {layer!r}; the layers are: {', '.join(adata.layers) or 'none'}.")
    source: Any = adata.X if layer is None else adata.layers[layer]
    if source is None:
        raise InputError("The AnnData has no X; name the layer that holds the counts with layer=.")
    if getattr(source, "format", None) == "csc":  # its rows cost a pass over all of it
        source = (source.to_memory() if hasattr(source, "to_memory") else source).tocsr()
    position = np.full(vocabulary.n_tokens, -1, dtype=np.int64)
    position[vocabulary.gene_token_ids] = np.arange(vocabulary.gene_token_ids.size)
    columns = np.flatnonzero(match.token_ids >= 0)
    gather = sparse.csr_array(
        (np.ones(columns.size, dtype=np.float32), (columns, position[match.token_ids[columns]])),
        shape=(adata.n_vars, vocabulary.gene_token_ids.size),
    )
    names = adata.obs_names.to_numpy()
    pieces: list[Any] = []
    totals = np.zeros(adata.n_obs)
    for start in range(0, adata.n_obs, _ROWS_AT_A_TIME):
        rows = slice(start, min(start + _ROWS_AT_A_TIME, adata.n_obs))
        checked = _checked(source[rows], names[rows])
        totals[rows] = row_sums(checked)
        pieces.append(checked @ gather)
    counts = sparse.csr_array(sparse.vstack(pieces, format="csr")) if pieces else sparse.csr_array(gather[:0])
    counts.sort_indices()
    return counts, totals


def _checked(chunk: Any, names: NDArray[Any]) -> Any:
    """Return rows of a matrix as CSR of float32, which must be counts."""
    matrix = rows_as_csr(chunk)
    check_counts(matrix.indptr, matrix.data, cell_names=names)
    return matrix.astype(np.float32)


def what_was_read(match: GeneMatch, slides: Sequence[SlideCells], *, model: str, has_places: bool) -> dict[str, Any]:
    """Log how much of a table was read, and return what a record says of its genes and counts."""
    n_counts = sum(slide.n_counts for slide in slides)
    n_read = sum(float(row_sums(slide.counts).sum()) for slide in slides)
    n_placed = max(slide.rows.size for slide in slides) if has_places else 0
    say_what_was_read(match, n_counts, n_read, model=model, n_placed=n_placed)
    return {
        "n_genes_matched": len(match.matched),
        "gene_fraction": match.fraction,
        "model_gene_fraction": match.model_fraction,
        "count_fraction": n_read / max(n_counts, 1.0),
        "genes_joined": np.array(match.joined, dtype=object),
        "genes_unmatched": np.array(match.unmatched, dtype=object),
    }


def genes_of(tables: Sequence[anndata.AnnData]) -> Vocabulary:
    """Return the vocabulary of the genes of all tables, in the order in which they are met.

    Genes of two tables are one by the rule of `Vocabulary.look_up`: by Ensembl id where both have one, else by symbol.
    """
    names: list[str] = []
    ids: list[str] = []
    vocabulary: Vocabulary | None = None
    for table in tables:
        symbols, gene_ids = _columns(table.var)
        known = vocabulary.look_up(symbols, gene_ids).token_ids >= 0 if vocabulary is not None else None
        taken = set(names)
        taken_ids = {gene_id for gene_id in ids if gene_id}
        for place, (symbol, gene_id) in enumerate(zip(symbols, gene_ids, strict=True)):
            if (known is not None and known[place]) or (gene_id and gene_id in taken_ids):
                continue
            if symbol in taken:  # two genes of one symbol are told by their ids; a repeated column is met by the match
                if not gene_id or gene_id in taken:
                    continue
                symbol = gene_id
            names.append(symbol)
            ids.append(gene_id)
            taken.add(symbol)
            taken_ids.add(gene_id)
        vocabulary = Vocabulary.build(names, scale=np.ones(len(names)), gene_ids=ids if any(ids) else None, unknown=())
    assert vocabulary is not None
    return vocabulary


def _columns(var: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the symbols and the Ensembl ids ("" where there is none) of the genes of a table."""
    symbols = var.index.astype(str).tolist()
    column = next((name for name in ID_COLUMNS if name in var.columns), None)
    given = [""] * len(symbols) if column is None else var[column].astype("object").fillna("").astype(str).tolist()
    ids = [id_of(symbol, gene_id) for symbol, gene_id in zip(symbols, given, strict=True)]
    named = next((name for name in SYMBOL_COLUMNS if name in var.columns), None)
    if named is not None and symbols and all(ensembl_id(symbol) for symbol in symbols):
        readable = var[named].astype("object").fillna("").astype(str)
        symbols = [name or symbol for name, symbol in zip(readable, symbols, strict=True)]
    return symbols, ids


def check_shares(shares: Mapping[str, float] | None, names: Sequence[str]) -> None:
    """Raise InputError unless each slide has a share above 0."""
    if shares is None:
        return
    for name in names:
        if name not in shares:
            raise InputError(f"shares has none of the slide {name!r}; it has: {', '.join(shares) or 'nothing'}.")
        if not 0.0 < shares[name] < float("inf"):
            raise InputError(f"shares[{name!r}] must be above 0, not {shares[name]:g}.")


def refuse_empty(table: anndata.AnnData, slides: Sequence[SlideCells]) -> None:
    """Raise InputError for a cell without counts of the model's genes."""
    empty = np.setdiff1d(np.arange(table.n_obs), np.concatenate([slide.rows for slide in slides]))
    if empty.size:
        name = str(table.obs_names[empty[0]])
        raise InputError(f"Cell {name!r} has no transcript of a gene of the model, and strict is set.")
