"""The genes of the table of an AnnData: names and ids, whichever of its columns say them."""

from __future__ import annotations

import pandas as pd

from spaf_data import keys
from spaf_data.gene_identity import GeneNames, ensembl_id, plain_id, without_genome

# Columns of `var` that may hold Ensembl ids; capitals do not matter.
_ID_COLUMNS = (keys.GENE_IDS, "gene_id", "ensembl_id", "ensembl_ids", "ensembl", "ensembl_gene_id", "feature_id")

# The same for symbols, where rows go by Ensembl id or by number.
_SYMBOL_COLUMNS = ("feature_name", "gene_name", "gene_names", "gene_symbol", "gene_symbols")


def genes_of_table(var: pd.DataFrame, where: str) -> GeneNames:
    """Return the genes of a table as it names them, for `join_genes`.

    Parameters
    ----------
    var
        Of an AnnData: names in the index, or Ensembl ids there and symbols in a column of a usual name.
    where
        What messages call the table.

    Examples
    --------
    >>> import pandas as pd
    >>> var = pd.DataFrame({"feature_name": ["EPCAM"]}, index=["ENSG00000119888"])
    >>> found = genes_of_table(var, "a.h5ad")
    >>> found.names, found.gene_ids
    (['EPCAM'], ['ENSG00000119888'])
    """
    names, gene_ids, _ = names_and_ids(var)
    return GeneNames(where=where, names=names, gene_ids=gene_ids)


def names_and_ids(var: pd.DataFrame) -> tuple[list[str], list[str] | None, str | None]:
    """Return names and ids of the genes, and the column of the names where rows go by Ensembl id."""
    called = {str(name).casefold(): str(name) for name in reversed(var.columns)}
    rows = without_genome([str(name) for name in var.index])
    column = next((called[name] for name in _SYMBOL_COLUMNS if name in called), None)
    names, named_by = rows, None
    if column is not None:
        are_numbers = all(name.isdecimal() for name in rows)
        by_id = [are_numbers or bool(ensembl_id(name)) for name in rows]
        if any(by_id):
            named_by = column
            names = [
                (symbol if is_id else "") or row
                for symbol, is_id, row in zip(_texts(var[column]), by_id, rows, strict=True)
            ]
    return names, _gene_ids(var, called, rows, names), named_by


def _gene_ids(var: pd.DataFrame, called: dict[str, str], rows: list[str], names: list[str]) -> list[str] | None:
    """Return the ids of the genes: of the first column that has any, and of rows that are one."""
    of_rows = [row if ensembl_id(row) else "" for row in rows]
    columns = [_texts(var[called[name]]) for name in _ID_COLUMNS if name in called]
    # A column that says names or rows again has no ids; Ensembl ids go before those of another kind.
    columns = [
        ids
        for ids in columns
        if any(one and (ensembl_id(one) or one not in said) for one, *said in zip(ids, names, rows, strict=True))
    ]
    best = next((ids for ids in columns if any(map(ensembl_id, ids))), columns[0] if columns else None)
    if best is None:
        return of_rows if names != rows and any(of_rows) else None
    return [one or row for one, row in zip(best, of_rows, strict=True)]


def _texts(column: pd.Series) -> list[str]:
    """Return texts without spaces around them, "" where missing, and whole numbers without decimals."""
    return without_genome(["" if pd.isna(value) else plain_id(str(value)) for value in column])
