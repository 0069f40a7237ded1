"""Other names of genes: aliases, former symbols, or orthologs of another species, from a table that the user gives.

A gene is looked for by its own name and id first; the table is asked for those that are not found. What it gives is
looked for as it stands: nothing is guessed, and capitals of a mouse symbol are no human symbol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pandas as pd

from spaf_model.errors import InputError
from spaf_model.gene_identity import ensembl_id
from spaf_model.tables import read_table

if TYPE_CHECKING:
    from spaf_model.vocabulary import Vocabulary

# Name in the data -> name in the model; or a table, or its file, with the columns ``name`` and ``gene``.
GeneNames: TypeAlias = Mapping[str, str] | pd.DataFrame | Path | str

_COLUMNS = ("name", "gene")
_MOUSE = "ENSMUSG"


def read_gene_names(given: GeneNames) -> dict[str, str]:
    """Return the name that the model has for names of the data.

    Parameters
    ----------
    given
        A mapping, or a table (or ``.csv``, ``.tsv`` or ``.parquet``) with the columns ``name`` and ``gene``: a name in
        the data, and the gene of the model. Several names may be one gene: their counts are added.

    Raises
    ------
    InputError
        If the table has other columns, or gives a name two genes.
    FileNotFoundError
        If there is no such file.
    """
    if isinstance(given, Mapping):
        return {str(name): str(gene) for name, gene in given.items()}
    table = given if isinstance(given, pd.DataFrame) else read_table(Path(given))
    missing = [column for column in _COLUMNS if column not in table.columns]
    if missing:
        raise InputError(
            f"The table of gene names has no column {missing[0]!r}; it has: {', '.join(map(str, table.columns))}."
        )
    pairs = table[list(_COLUMNS)].astype(str).drop_duplicates()
    pairs = pairs[(pairs != "").all(axis=1)]
    twice = pairs["name"][pairs["name"].duplicated()]
    if len(twice):
        raise InputError(f"The table of gene names gives {twice.iloc[0]!r} more than one gene.")
    return dict(zip(pairs["name"], pairs["gene"], strict=True))


def with_model_names(
    symbols: Sequence[str], gene_ids: Sequence[str] | None, names: Mapping[str, str], vocabulary: Vocabulary
) -> tuple[list[str], list[str] | None]:
    """Return symbols and ids with those that a vocabulary does not know replaced by what a table gives.

    Parameters
    ----------
    symbols, gene_ids
        As for `Vocabulary.look_up`.
    names
        Name in the data, symbol or id, and name in the model.
    vocabulary
        Of the model.
    """
    match = vocabulary.look_up(symbols, gene_ids)
    duplicated = set(match.duplicated)
    found, ids = list(symbols), [""] * len(symbols) if gene_ids is None else list(gene_ids)
    for position, symbol in enumerate(symbols):
        gene = names.get(symbol, names.get(ids[position]) if ids[position] else None)
        if match.token_ids[position] >= 0 or symbol in duplicated or gene is None:
            continue
        # An id of no kind that is known, so that two names of one gene are added up and are no repetition.
        found[position], ids[position] = gene, f"named {symbol} {ids[position]}"
    return found, ids


def looks_like_mouse(symbols: Sequence[str], gene_ids: Sequence[str] | None, vocabulary: Vocabulary) -> bool:
    """Return whether genes are named as those of mouse are, and the genes of a vocabulary as those of human."""
    ids = [*symbols, *(gene_ids or ())]
    if any(ensembl_id(name).startswith(_MOUSE) for name in ids):
        return not any(ensembl_id(token).startswith(_MOUSE) for token in [*vocabulary.tokens, *_ids_of(vocabulary)])
    written_small = [name for name in symbols if name != name.upper() and name[:1] == name[:1].upper()]
    if 2 * len(written_small) < len(symbols) or not symbols:
        return False
    in_capitals = vocabulary.look_up(list(dict.fromkeys(name.upper() for name in written_small)))
    return in_capitals.fraction >= 0.5


def _ids_of(vocabulary: Vocabulary) -> list[str]:
    return vocabulary.gene_ids or []
