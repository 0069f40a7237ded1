"""What gene a name is: the rule by which genes of two tables are one.

By Ensembl id without version where both sides have one, else by symbol. A symbol that is an Ensembl id counts as one.
Spaces around a name and the case of an Ensembl id do not matter, nor does a genome before all names of a table
(``GRCh38_``). `spaf_data` joins the genes of slides by the same rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_ENSEMBL = re.compile(r"ENS[A-Z]*\d{6,}(\.\d+)?", re.IGNORECASE)
_WHOLE = re.compile(r"(\d+)\.0+")  # a number that a float gave decimals
_GENOME = re.compile(r"(GRC[hm]\d{2}|hg\d{2}|mm\d{1,2})_+", re.IGNORECASE)  # before names, as 10x writes mixed genomes


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


def id_of(symbol: str, gene_id: str | None) -> str:
    """Return the Ensembl id of a gene without version: that in its column of ids, else its name where it is one."""
    return ensembl_id(gene_id or "") or ensembl_id(symbol)


def are_other_genes(one: str, other: str) -> bool:
    """Whether two Ensembl ids ("" where there is none) say that a symbol they share stands for two genes."""
    return bool(one and other and one != other)
