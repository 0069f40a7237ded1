"""Reading the counts of an AnnData as tokens with counts, some rows at a time and never as a dense copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_model.counts import check_counts, rows_as_csr
from spaf_model.errors import InputError
from spaf_model.gene_names import GeneNames, looks_like_mouse, read_gene_names, with_model_names

if TYPE_CHECKING:
    import anndata
    import pandas as pd

    from spaf_model.vocabulary import GeneMatch, Vocabulary

SYMBOL_COLUMNS = ("gene_name", "gene_names", "gene_symbol", "gene_symbols", "feature_name")
ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ensembl", "ensembl_gene_id", "feature_id")


def match_genes(
    var: pd.DataFrame, vocabulary: Vocabulary, *, min_fraction: float, gene_names: GeneNames | None = None
) -> GeneMatch:
    """Find the genes of ``var`` in a vocabulary, by names or Ensembl ids, whichever find most.

    Names are looked for in the index and in the usual columns of gene symbols; ids in the usual columns of Ensembl ids.
    Those that are not found are looked for by their other names, where a table gives them.

    Raises
    ------
    InputError
        If too few genes match (see `Vocabulary.match`), or a gene stands in the input twice.
    """
    other_names = {} if gene_names is None else read_gene_names(gene_names)
    symbol_sources: list[Any] = [var.index, *_columns(var, SYMBOL_COLUMNS)]
    id_sources: list[Any] = [None, *_columns(var, ID_COLUMNS)]
    sources = [
        (
            symbols.astype(str).tolist(),
            None if gene_ids is None else gene_ids.astype(object).fillna("").astype(str).tolist(),
        )
        for symbols in symbol_sources
        for gene_ids in id_sources
    ]

    def found(source: tuple[list[str], list[str] | None]) -> tuple[int, int]:
        match = vocabulary.look_up(*source)
        return len(match.matched), len(match.joined)

    if other_names:
        sources = [with_model_names(*source, other_names, vocabulary) for source in sources]
    symbols, gene_ids = max(sources, key=found)
    try:
        best = vocabulary.match(symbols, gene_ids, min_fraction=min_fraction)
    except InputError as error:
        if any(looks_like_mouse(*source, vocabulary) for source in sources):
            raise InputError(
                f"{str(error).rstrip('.')}; these look like genes of mouse: give their human orthologs in a table with "
                "the columns name and gene (gene_names, --gene-names), since capitals would take some for others."
            ) from error
        raise
    if best.duplicated:
        raise InputError(
            f"Gene {best.duplicated[0]!r} occurs more than once among the genes of the input "
            f"({len(best.duplicated)} such); sum or drop the repeated columns first."
        )
    return best


def _columns(var: pd.DataFrame, usual: tuple[str, ...]) -> list[pd.Series]:
    """Return the columns with usual names, whatever their case."""
    called = {str(name).casefold(): name for name in reversed(var.columns)}
    return [var[called[name]] for name in usual if name in called]


class ExpressionReader:
    """Counts of an AnnData, read by rows.

    X or the layer may be CSR, CSC, dense, or a part of a backed file; only the rows asked for are converted. `n_counts`
    and `n_read` are the counts of the rows read so far, and those among them of genes of the vocabulary.

    Raises
    ------
    InputError
        If the layer does not exist, or there is no X.
    """

    def __init__(self, adata: anndata.AnnData, match: GeneMatch, *, layer: str | None) -> None:
        if layer is not None and layer not in adata.layers:
            names = ", ".join(adata.layers) or "none"
            raise InputError(f"There is no layer {layer!r}; the layers are: {names}.")
        source: Any = adata.X if layer is None else adata.layers[layer]
        if source is None:
            raise InputError("The AnnData has no X; name the layer that holds the counts with layer=.")
        # Rows of a column-wise matrix cost a pass over all of it, so it is turned once; it stays sparse.
        if getattr(source, "format", None) == "csc":
            in_memory: Any = source.to_memory() if hasattr(source, "to_memory") else source
            source = in_memory.tocsr()
        self._source: Any = source
        self._names = adata.obs_names.to_numpy()
        self._token_ids = match.token_ids
        self._sums = _sums_of_joined(match.token_ids) if match.joined else None
        self.n_counts = 0.0
        self.n_read = 0.0

    def read(self, rows: slice | NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return row pointer, token ids and counts of some rows (ascending positions): genes that are there.

        Entries of genes that have no token, and stored zeros, are left out.

        Raises
        ------
        InputError
            If a value is not a count (see `rows_as_csr` and `check_counts`).
        """
        matrix: Any = rows_as_csr(self._source[rows])
        check_counts(matrix.indptr, matrix.data, cell_names=self._names[rows])
        token_ids = self._token_ids
        self.n_counts += float(matrix.data.sum(dtype=np.float64))
        self.n_read += float(matrix.data[token_ids[matrix.indices] >= 0].sum(dtype=np.float64))
        if self._sums is not None:
            sums, token_ids = self._sums
            matrix = sparse.csr_array(matrix @ sums)
        indptr = np.asarray(matrix.indptr, dtype=np.int64)
        tokens, counts = token_ids[matrix.indices], matrix.data
        kept = (tokens >= 0) & (counts > 0)
        if not kept.all():
            tokens, counts = tokens[kept], counts[kept]
            indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(kept)])[indptr]
        return indptr, tokens, counts.astype(np.float32, copy=False)


def _sums_of_joined(token_ids: NDArray[np.int64]) -> tuple[Any, NDArray[np.int64]]:
    """Return the matrix that adds up the columns of one gene, and the token of each column of the product."""
    tokens = np.unique(token_ids[token_ids >= 0])
    columns = np.flatnonzero(token_ids >= 0)
    places = np.searchsorted(tokens, token_ids[columns])
    ones = np.ones(columns.size, dtype=np.float32)
    return sparse.csr_array((ones, (columns, places)), shape=(token_ids.size, tokens.size)), tokens
