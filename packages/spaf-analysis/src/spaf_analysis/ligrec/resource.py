"""Tables of ligands and receptors: where they come from, and how much of one a panel measures."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from spaf_analysis.errors import InputError
from spaf_analysis.tables import table_of_file

_COLUMNS = (("ligand", "receptor"), ("source_genesymbol", "target_genesymbol"), ("source", "target"))
_JOINS = "_"  # between the subunits of a complex


@dataclass(frozen=True)
class Resource:
    """Pairs of a ligand and a receptor.

    Attributes
    ----------
    name
        Of the resource or its file.
    version
        Of the package that ships it; empty for a file.
    sha256
        Of the file.
    pairs
        `ligand` and `receptor`, each pair once; the subunits of a complex are joined by "_".
    """

    name: str
    version: str
    sha256: str
    pairs: pd.DataFrame


@dataclass(frozen=True)
class Coverage:
    """How much of a resource a panel measures.

    Attributes
    ----------
    pairs
        `ligand` and `receptor` of the pairs of which every subunit is measured.
    subunits
        Columns of the panel that make each ligand or receptor of these pairs.
    n_pairs
        Pairs of the resource.
    n_partial
        Pairs of which only some subunits are measured.
    """

    pairs: pd.DataFrame
    subunits: dict[str, tuple[int, ...]]
    n_pairs: int
    n_partial: int

    def sentence(self, resource: Resource) -> str:
        """Say which resource it is and how much of it is measured."""
        name = f"{resource.name} {resource.version}".strip()
        share = len(self.pairs) / self.n_pairs
        return (
            f"The panel measures {len(self.pairs):,} of the {self.n_pairs:,} ligand-receptor pairs of {name} "
            f"({share:.1%}; another {self.n_partial:,} in part)."
        )


def read_resource(source: str | Path | pd.DataFrame) -> Resource:
    """Read a table of ligands and receptors.

    Parameters
    ----------
    source
        A table or its file (.csv, .tsv, .parquet) with columns `ligand` and `receptor` (or `source_genesymbol` and
        `target_genesymbol`, or `source` and `target`), or the name of one that liana ships, such as "consensus",
        "cellphonedb", "cellchatdb" or "mouseconsensus" (the extra `communication`).

    Raises
    ------
    InputError
        If there is no such file or resource, liana is not installed, or the table lacks the columns.
    """
    if isinstance(source, pd.DataFrame):
        content = source.to_csv(index=False).encode()
        return Resource("a table", "", hashlib.sha256(content).hexdigest(), _pairs(source, "the resource"))
    path = Path(source)
    if path.suffix in (".csv", ".tsv", ".parquet"):
        if not path.is_file():
            raise InputError(f"there is no file {path}.")
        return Resource(path.name, "", _sha256(path), _pairs(table_of_file(path), str(path)))
    return _of_liana(str(source))


def cover(resource: Resource, genes: Mapping[str, int]) -> Coverage:
    """Find the pairs of a resource that a panel measures.

    Parameters
    ----------
    resource
        Pairs.
    genes
        Column of each gene of the panel by its names.

    Raises
    ------
    InputError
        If the panel measures no pair.
    """
    subunits: dict[str, tuple[int, ...]] = {}
    full, partial = [], 0
    for ligand, receptor in resource.pairs.itertuples(index=False):
        parts = [part for side in (ligand, receptor) for part in subunits_of(side, genes)]
        measured = [part in genes for part in parts]
        full.append(all(measured))
        partial += any(measured) and not all(measured)
        if full[-1]:
            for side in (ligand, receptor):
                subunits[side] = tuple(sorted({genes[part] for part in subunits_of(side, genes)}))
    pairs = resource.pairs[full].reset_index(drop=True)
    if pairs.empty:
        raise InputError(_nothing_shared(resource, list(genes), partial))
    return Coverage(pairs, subunits, len(resource.pairs), partial)


def subunits_of(name: str, genes: Mapping[str, int]) -> list[str]:
    """Return the genes of a ligand or receptor: its name where that is a gene of the panel, else what "_" joins."""
    if name in genes:
        return [name]
    # As CellChat and liana write them; "COMPLEX:" stands before those of OmniPath.
    return [part for part in name.removeprefix("COMPLEX:").split(_JOINS) if part]


def _nothing_shared(resource: Resource, genes: Sequence[str], partial: int) -> str:
    names = pd.unique(resource.pairs.to_numpy().ravel())
    named = {part for name in names for part in str(name).split(_JOINS)}
    folded = {name.casefold() for name in named}
    among = f"the panel measures no pair of the resource {resource.name!r}"
    if partial:
        return f"{among} with both sides, though some of its genes: it needs a larger panel or another resource."
    if any(gene.casefold() in folded for gene in genes):
        return f"{among}: gene names differ in their capitals, as those of human and mouse do; name one of the species."
    return f"{among}: it has genes such as {', '.join(genes[:3])}, the resource such as {', '.join(sorted(named)[:3])}."


def _pairs(table: pd.DataFrame, where: str) -> pd.DataFrame:
    called = {str(column).casefold(): column for column in reversed(table.columns)}
    for names in _COLUMNS:
        if all(name in called for name in names):
            columns = [called[name] for name in names]
            break
    else:
        raise InputError(
            f"{where} has no columns 'ligand' and 'receptor'; it has: {', '.join(map(str, table.columns))}."
        )
    known = table[columns].dropna()
    sides = [known[column].astype(str).str.strip().to_numpy() for column in columns]
    found = pd.DataFrame({"ligand": sides[0], "receptor": sides[1]}, dtype=object)
    found = found[(found != "").all(axis=1)].drop_duplicates().reset_index(drop=True)
    if found.empty:
        raise InputError(f"{where} holds no pair of a ligand and a receptor.")
    return found


def _of_liana(name: str) -> Resource:
    """Read a resource that liana ships from its file: to import liana itself takes seconds and half a gigabyte."""
    found = importlib.util.find_spec("liana")
    if found is None or found.origin is None:
        raise InputError(
            f"the resource {name!r} is one of liana, which is not installed: "
            "pip install 'spaf-analysis[communication]', or name a file "
            "(.csv, .tsv, .parquet) with columns ligand and receptor."
        )
    path = Path(found.origin).parent / "resource" / "omni_resource.csv"
    if not path.is_file():
        raise InputError(f"liana {version('liana')} has no file of resources ({path.name}); name a file of your own.")
    table = table_of_file(path)
    if name not in set(table["resource"]):
        raise InputError(f"liana has no resource {name!r}; it has: {', '.join(sorted(table['resource'].unique()))}.")
    of_name = table[table["resource"] == name]
    return Resource(name, f"of liana {version('liana')}", _sha256(path), _pairs(of_name.drop(columns="resource"), name))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
