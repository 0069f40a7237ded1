"""What gene a name is: the rule by which genes of two tables are one.

By Ensembl id without version where both sides have one, else by symbol. A symbol that is an Ensembl id counts as one.
`spaf_data` joins the genes of slides by the same rule.
"""

from __future__ import annotations

import re

_ENSEMBL = re.compile(r"ENS[A-Z]*\d{6,}(\.\d+)?")


def ensembl_id(name: str) -> str:
    """Return an Ensembl id without its version; "" where the name is none.

    Examples
    --------
    >>> ensembl_id("ENSG00000119888.11"), ensembl_id("EPCAM")
    ('ENSG00000119888', '')
    """
    return name.partition(".")[0] if _ENSEMBL.fullmatch(name) else ""


def id_of(symbol: str, gene_id: str | None) -> str:
    """Return the Ensembl id of a gene without version: that in its column of ids, else its name where it is one."""
    return ensembl_id(gene_id or "") or ensembl_id(symbol)


def are_other_genes(one: str, other: str) -> bool:
    """Whether two Ensembl ids ("" where there is none) say that a symbol they share stands for two genes."""
    return bool(one and other and one != other)
