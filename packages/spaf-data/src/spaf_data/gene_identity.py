"""What gene a name is, and the genes of several tables as one list.

Two names are one gene by Ensembl id without version where both have one, else by symbol. A name that is an Ensembl id
counts as one. `spaf_model` finds the genes of its input by the same rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spaf_data.errors import InputError

_ENSEMBL = re.compile(r"ENS[A-Z]*\d{6,}(\.\d+)?")


def ensembl_id(name: str) -> str:
    """Return an Ensembl id without its version; "" where the name is none.

    Examples
    --------
    >>> ensembl_id("ENSG00000119888.11"), ensembl_id("EPCAM")
    ('ENSG00000119888', '')
    """
    return name.partition(".")[0] if name.startswith("ENS") and _ENSEMBL.fullmatch(name) else ""


def id_of(name: str, gene_id: str | None) -> str:
    """Return the id of a gene: that in its column of ids (Ensembl ids without version), else its name if it is one."""
    return ensembl_id(gene_id or "") or ensembl_id(name) or gene_id or ""


@dataclass(frozen=True, kw_only=True)
class GeneNames:
    """The genes of one table as it names them."""

    where: str  # the table, for messages
    names: Sequence[str]
    gene_ids: Sequence[str] | None = None  # "" where there is none


@dataclass(frozen=True, eq=False, kw_only=True)
class GeneUnion:
    """The genes of several tables, each once."""

    genes: list[str]
    gene_ids: list[str] | None  # "" where there is none; None where no table has any
    columns: tuple[npt.NDArray[np.int32], ...]  # of each table: the gene of each of its columns, as place in `genes`


def join_genes(tables: Sequence[GeneNames]) -> GeneUnion:
    """Join the genes of tables: those of the first in their order, then the new ones of the next, and so on.

    A gene goes by the first symbol that a table has for it, and by its id where none has one. A symbol that one table
    gives an id has it in all. Several columns of a table may be one gene: its counts are their sum.

    Raises
    ------
    InputError
        If two tables give a symbol different ids, or one names all genes by id and another by symbol, so that nothing
        says which are the same.

    Examples
    --------
    >>> both = GeneNames(where="a", names=["EPCAM", "CD4"], gene_ids=["ENSG00000119888.16", "ENSG00000010610"])
    >>> joined = join_genes([both, GeneNames(where="b", names=["ENSG00000010610.9", "CD8A"])])
    >>> joined.genes, [columns.tolist() for columns in joined.columns]
    (['EPCAM', 'CD4', 'CD8A'], [[0, 1], [1, 2]])
    """
    ids = _ids_of_symbols(tables)
    place: dict[tuple[str, str], int] = {}
    genes: list[str] = []
    gene_ids: list[str] = []
    columns = []
    for table in tables:
        found = np.empty(len(table.names), np.int32)
        for column, (name, gene_id) in enumerate(_rows(table)):
            is_symbol = not ensembl_id(name)
            known_as = ids[name][0] if is_symbol else id_of(name, gene_id)
            key = ("id", known_as) if known_as else ("symbol", name)
            if key not in place:
                place[key] = len(genes)
                genes.append(name if is_symbol else known_as)
                gene_ids.append(known_as)
            elif is_symbol and genes[place[key]] == gene_ids[place[key]]:
                genes[place[key]] = name
            found[column] = place[key]
        columns.append(found)
    union = GeneUnion(genes=genes, gene_ids=gene_ids if any(gene_ids) else None, columns=tuple(columns))
    _check_comparable(tables, union)
    return union


def _rows(table: GeneNames) -> zip[tuple[str, str]]:
    return zip(table.names, table.gene_ids or [""] * len(table.names), strict=True)


def _ids_of_symbols(tables: Sequence[GeneNames]) -> dict[str, tuple[str, str]]:
    """Return for each symbol the id that some table gives it ("" where none does), and which table."""
    ids: dict[str, tuple[str, str]] = {}
    for table in tables:
        for name, gene_id in _rows(table):
            if ensembl_id(name):
                continue
            known, by = ids.get(name, ("", ""))
            found = id_of(name, gene_id)
            # Ids of two kinds cannot be compared; the symbol decides.
            if known and found and known != found and bool(ensembl_id(known)) == bool(ensembl_id(found)):
                raise InputError(
                    f"slides disagree about gene {name!r}: it has the id {known} in {by} and {found} in {table.where}; "
                    "if these are two genes, give one of them another name."
                )
            if not known or (found and ensembl_id(found) and not ensembl_id(known)):
                ids[name] = found, table.where
    return ids


def _check_comparable(tables: Sequence[GeneNames], union: GeneUnion) -> None:
    by_id = [all(ensembl_id(name) for name in table.names) for table in tables]
    by_symbol = [not any(id_of(name, gene_id) for name, gene_id in _rows(table)) for table in tables]
    for one in np.flatnonzero(by_id).tolist():
        for other in np.flatnonzero(by_symbol).tolist():
            if not np.intersect1d(union.columns[one], union.columns[other]).size:
                raise InputError(
                    f"{tables[one].where} names its genes by Ensembl id (such as {tables[one].names[0]}) and "
                    f"{tables[other].where} by symbol (such as {tables[other].names[0]}), so that which are the same "
                    "cannot be told: give one of them both (a column 'gene_ids' of var beside the symbols)."
                )
