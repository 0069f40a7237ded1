"""What gene a name is, and the genes of several tables as one list.

Two names are one gene by Ensembl id without version where both have one, else by symbol. A name that is an Ensembl id
counts as one. Spaces around a name and the case of an Ensembl id do not matter, nor does a genome before all names of a
table (``GRCh38_``). `spaf_model` finds the genes of its input by the same rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from spaf_data import keys
from spaf_data.errors import InputError

_ENSEMBL = re.compile(r"ENS[A-Z]*\d{6,}(\.\d+)?", re.IGNORECASE)
_WHOLE = re.compile(r"(\d+)\.0+")  # a number that a float gave decimals
_GENOME = re.compile(r"(GRC[hm]\d{2}|hg\d{2}|mm\d{1,2})_+", re.IGNORECASE)  # before names, as 10x writes mixed genomes

_LEAST_SHARED = 0.05  # of the genes of the smaller of two tables that belong together
# Genes by id alone here and by symbol alone there, as a share of the smaller table: refused above, said from there on.
_MOST_UNCLEAR, _LEAST_UNCLEAR = 0.5, 0.05
_EXAMPLES = 3


def ensembl_id(name: str) -> str:
    """Return an Ensembl id without its version; "" where the name is none.

    Examples
    --------
    >>> ensembl_id("ENSG00000119888.11"), ensembl_id("EPCAM")
    ('ENSG00000119888', '')
    """
    text = name.strip()
    return text.partition(".")[0].upper() if text[:3].upper() == "ENS" and _ENSEMBL.fullmatch(text) else ""


def plain_id(gene_id: str) -> str:
    """Return an id of another kind than Ensembl's in its only spelling: without spaces, a number without decimals."""
    text = gene_id.strip()
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def without_genome(names: Sequence[str]) -> list[str]:
    """Return names without spaces around them, nor a genome before them if all of them have the same.

    Examples
    --------
    >>> without_genome(["GRCh38_EPCAM", "GRCh38_CD4"]), without_genome(["GRCh38_EPCAM", "mm10_Cd4"])
    (['EPCAM', 'CD4'], ['GRCh38_EPCAM', 'mm10_Cd4'])
    """
    plain = [name.strip() for name in names]
    genome = _GENOME.match(plain[0]) if plain else None
    if genome is None or not all(name.startswith(genome[0]) and len(name) > len(genome[0]) for name in plain):
        return plain
    return [name[len(genome[0]) :] for name in plain]


def id_of(name: str, gene_id: str | None) -> str:
    """Return the id of a gene: that in its column of ids (Ensembl ids without version), else its name if it is one.

    A column that says the symbol again gives no id.
    """
    given = plain_id(gene_id or "")
    return ensembl_id(given) or ensembl_id(name) or ("" if given == name.strip() else given)


@dataclass(frozen=True, kw_only=True)
class GeneNames:
    """The genes of one table as it names them."""

    where: str  # the table, for messages
    names: Sequence[str]
    gene_ids: Sequence[str] | None = None  # "" where there is none
    species: str = ""  # as far as known


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
        If two tables give a symbol different ids, or one names genes by id alone and another by symbol alone, so that
        nothing says which are the same.

    Examples
    --------
    >>> both = GeneNames(where="a", names=["EPCAM", "CD4"], gene_ids=["ENSG00000119888.16", "ENSG00000010610"])
    >>> joined = join_genes([both, GeneNames(where="b", names=["ENSG00000010610.9", "CD8A"])])
    >>> joined.genes, [columns.tolist() for columns in joined.columns]
    (['EPCAM', 'CD4', 'CD8A'], [[0, 1], [1, 2]])
    """
    ids = check_gene_ids(tables)
    place: dict[tuple[str, str], int] = {}
    genes: list[str] = []
    gene_ids: list[str] = []
    columns: dict[_Panel, npt.NDArray[np.int32]] = {}
    for table in tables:
        if _panel(table) in columns:
            continue
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
        columns[_panel(table)] = found
    union = GeneUnion(
        genes=genes,
        gene_ids=gene_ids if any(gene_ids) else None,
        columns=tuple(columns[_panel(table)] for table in tables),
    )
    _check_comparable(tables, union)
    return union


_Panel = tuple[tuple[str, ...], tuple[str, ...]]


def _panel(table: GeneNames) -> _Panel:
    """Return what tells the genes of two tables apart: most slides of a study have one panel, looked at once."""
    return tuple(table.names), tuple(table.gene_ids or ())


def _rows(table: GeneNames) -> zip[tuple[str, str]]:
    ids = [""] * len(table.names) if table.gene_ids is None else without_genome(table.gene_ids)
    return zip(without_genome(table.names), ids, strict=True)


def check_gene_ids(tables: Sequence[GeneNames]) -> dict[str, tuple[str, str]]:
    """Return for each symbol the id that some table gives it ("" where none does), and which table.

    Raises
    ------
    InputError
        If two tables give a symbol different ids, which no further table can mend.
    """
    ids: dict[str, tuple[str, str]] = {}
    panels: dict[_Panel, GeneNames] = {}
    for table in tables:
        panels.setdefault(_panel(table), table)
    for table in panels.values():
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
    """Refuse tables of which one has ids alone and another symbols alone for as many genes as may be the same."""
    for share, sentence in _unclear(tables, union):
        if share > _MOST_UNCLEAR:
            raise InputError(
                f"{sentence}, so that which are the same cannot be told: give one of them both (a column 'gene_ids' of "
                "var beside the symbols)"
            )


def unclear_genes(tables: Sequence[GeneNames], union: GeneUnion) -> list[str]:
    """Return a sentence where tables, as given to `join_genes`, may have a few genes twice: by id and by symbol."""
    return [sentence for share, sentence in _unclear(tables, union) if share >= _LEAST_UNCLEAR][:_EXAMPLES]


def _unclear(tables: Sequence[GeneNames], union: GeneUnion) -> Iterator[tuple[float, str]]:
    """Yield two tables of which one has ids alone and another symbols alone: what share may be the same, in words."""
    has_symbol = np.array([not ensembl_id(gene) for gene in union.genes], bool)
    has_id = np.array([bool(ensembl_id(one)) for one in union.gene_ids or [""] * len(union.genes)], bool)
    parts = [np.unique(columns) for columns in union.columns]
    by_id = [part[~has_symbol[part]] for part in parts]
    by_symbol = [part[~has_id[part]] for part in parts]
    for one in (place for place, genes in enumerate(by_id) if len(genes)):
        for other in (place for place, genes in enumerate(by_symbol) if len(genes) and place != one):
            ids, symbols = by_id[one], by_symbol[other]
            yield (
                min(len(ids), len(symbols)) / min(len(parts[one]), len(parts[other])),
                f"{tables[one].where} names {len(ids)} of its {len(parts[one])} genes by Ensembl id alone (such as "
                f"{_such_as(union, ids)}) and {tables[other].where} {len(symbols)} of its {len(parts[other])} by "
                f"symbol alone (such as {_such_as(union, symbols)})",
            )


def _such_as(union: GeneUnion, genes: npt.NDArray[np.integer]) -> str:
    return ", ".join(union.genes[gene] for gene in genes[:_EXAMPLES])


def check_same_genes(tables: Sequence[GeneNames], union: GeneUnion, *, allow_other_genes: bool = False) -> list[str]:
    """Ask where tables share (nearly) no genes with the others.

    Tables belong together that share 5 % of the genes of the smaller one, or that are tied by others which do.

    Parameters
    ----------
    tables, union
        As given to `join_genes`, and what it made of them.
    allow_other_genes
        It is meant so.

    Returns
    -------
    A sentence for each group of tables that stands apart from the first because that is allowed, or because they are
    of other species.

    Raises
    ------
    InputError
        If there are such groups, and nothing says that they are meant.
    """
    groups = _groups(union)
    first = np.flatnonzero(groups == groups[0]) if len(groups) else np.empty(0, np.int64)
    said = []
    for group in range(1, int(groups.max(initial=0)) + 1):
        others = np.flatnonzero(groups == group)
        sentence = (
            f"{tables[first[0]].where} has genes such as {', '.join(tables[first[0]].names[:_EXAMPLES])} and "
            f"{_all_of(tables, others)} such as {', '.join(tables[others[0]].names[:_EXAMPLES])}, and they share less "
            f"than {_LEAST_SHARED:.0%} of them"
        )
        if not (allow_other_genes or _are_other_species(tables, first, others)):
            raise InputError(
                f"{sentence}: if these are the same genes, name them alike or give all tables ids (a column 'gene_ids' "
                "of var); if they are different panels, say so with allow_other_genes=True (--allow-other-genes)"
            )
        said.append(sentence)
    return said


def _groups(union: GeneUnion) -> npt.NDArray[np.int64]:
    """Return the group of each table, numbered by their first tables."""
    panels: dict[bytes, int] = {}
    of_table = [panels.setdefault(np.unique(columns).tobytes(), len(panels)) for columns in union.columns]
    parts = [np.frombuffer(panel, np.int32) for panel in panels]
    if not parts:
        return np.empty(0, np.int64)
    size = np.array([len(part) for part in parts])
    member = sparse.csr_matrix(
        (np.ones(size.sum(), np.int64), np.concatenate(parts), np.concatenate([[0], np.cumsum(size)])),
        shape=(len(parts), max(len(union.genes), 1)),
    )
    shared = (member @ member.T).toarray()
    near = shared >= np.maximum(_LEAST_SHARED * np.minimum.outer(size, size), 1)
    _, found = connected_components(sparse.csr_matrix(near), directed=False)
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(int(found[panel]), len(numbers)) for panel in of_table], np.int64)


def _all_of(tables: Sequence[GeneNames], places: npt.NDArray[np.integer]) -> str:
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return f"{tables[places[0]].where}{more}"


def _are_other_species(
    tables: Sequence[GeneNames], ones: npt.NDArray[np.integer], others: npt.NDArray[np.integer]
) -> bool:
    left, right = ({tables[place].species.casefold() for place in places} for places in (ones, others))
    return not ({"", keys.UNKNOWN} & (left | right) or left & right)
