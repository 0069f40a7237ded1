"""Which pairs of genes several analyses call together, beside what chance would give."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import pandas as pd
from scipy.stats import hypergeom

from spaf_analysis.errors import InputError
from spaf_analysis.ligrec.compute import FDR

RESOURCE = "pairs of the resource"
OWN = "ligand-receptor"

CALLED = "called"
# Of the results of SpaF, in which the two genes of a pair have these names.
_COLUMNS = (("gene_a", "gene_b"), ("gene_left", "gene_right"), ("query", "key"), ("ligand", "receptor"))

Calls = dict[frozenset[str], bool]


def called_pairs(table: pd.DataFrame, columns: tuple[str, str, str] | None, name: str) -> Calls:
    """Return for each pair of genes that was tested whether it was called, whatever the order of the two.

    Parameters
    ----------
    table
        A row a pair of genes; one whose `fdr` is missing was not tested, and is left out.
    columns
        With one gene, the other, and whether it was called; without the last, `fdr` at most .05 is. None: those of
        gene pairs, perturbation, attention or ligrec, as the table has them.
    name
        What messages call it.

    Raises
    ------
    InputError
        If it lacks a column.
    """
    one, other, called = _columns_of(table, name) if columns is None else columns
    needed = [one, other] if "fdr" in table else [one, other, called]
    missing = [column for column in needed if column not in table]
    if missing:
        raise InputError(f"{name} has no column {missing[0]!r}; it has: {', '.join(map(str, table.columns))}.")
    if "fdr" in table:
        table = table[pd.to_numeric(table["fdr"], errors="coerce").notna().to_numpy()]
    flags = table[called].isin([True, 1, "True", "true", "1"]) if called in table else table["fdr"] <= FDR
    found: Calls = {}
    for a, b, flag in zip(table[one].astype(str), table[other].astype(str), flags, strict=True):
        pair = frozenset((a, b))
        found[pair] = found.get(pair, False) or bool(flag)
    return found


def _columns_of(table: pd.DataFrame, name: str) -> tuple[str, str, str]:
    for one, other in _COLUMNS:
        if one in table and other in table:
            return one, other, CALLED
    known = ", ".join(" and ".join(pair) for pair in _COLUMNS)
    raise InputError(
        f"{name} has no two columns of genes ({known}); name its own with beside_columns (--beside-columns); it has: "
        f"{', '.join(map(str, table.columns))}."
    )


def overlap_of_calls(own: pd.DataFrame, others: Mapping[str, Calls], resource: pd.DataFrame) -> pd.DataFrame:
    """Hold the calls of each two analyses beside each other, and each beside the resource.

    Parameters
    ----------
    own
        What `ligrec` tested: `ligand`, `receptor`, `called`. A complex stands for the pairs of its subunits.
    others
        Of each other analysis whether a pair was called.
    resource
        All pairs of the resource, measured or not.

    Returns
    -------
    pandas.DataFrame
        A row for each two: `first`, `second`; `n_tested`, pairs that both tested (beside the resource: that the second
        tested); `called_first`, `called_second` and `both` among these; `expected` of both, if the calls were spread
        independently; `p` that there are as many or more (hypergeometric), both NaN where no pair was tested by both;
        `pairs`, those that both called; `said`, all of this in a sentence.
    """
    found: dict[str, Calls] = {OWN: _by_genes(own, own["called"])}
    found |= dict(others)
    rows = []
    for (first, calls), (second, further) in combinations(found.items(), 2):
        rows.append(_row(first, calls, second, further))
    known = _by_genes(resource, pd.Series(True, index=resource.index))
    for second, further in others.items():
        rows.append(_row(RESOURCE, {pair: pair in known for pair in further}, second, further))
    return pd.DataFrame(rows)


def _row(first: str, calls: Calls, second: str, further: Calls) -> dict[str, object]:
    tested = calls.keys() & further.keys()
    by_first, by_second = ({pair for pair in tested if some[pair]} for some in (calls, further))
    both = by_first & by_second
    n = len(tested)
    expected = len(by_first) * len(by_second) / n if n else float("nan")
    p = float(hypergeom.sf(len(both) - 1, n, len(by_first), len(by_second))) if n else float("nan")
    said = (
        f"Of {n:,} gene pairs that {first} and {second} both tested, both called {len(both):,}, where {expected:.2g} "
        f"would be expected of independent calls ({len(by_first):,} and {len(by_second):,} called; p {p:.2g})."
    )
    if first == RESOURCE:
        said = (
            f"Of {n:,} gene pairs that {second} tested, {len(by_first):,} are {RESOURCE} and {len(by_second):,} were "
            f"called: {len(both):,} are both, where {expected:.2g} would be expected (p {p:.2g})."
        )
    elif not n:
        said = (
            f"No gene pair was tested by {first} ({len(calls):,} tested) and by {second} ({len(further):,}) alike, so "
            "nothing can be said of what both call."
        )
    return {
        "first": first, "second": second, "n_tested": n, "called_first": len(by_first),
        "called_second": len(by_second), "both": len(both),
        "expected": expected, "p": p,
        "pairs": ", ".join(sorted("|".join(sorted(pair)) for pair in both)), "said": said,
    }  # fmt: skip


def _by_genes(pairs: pd.DataFrame, called: pd.Series) -> Calls:
    found: Calls = {}
    for ligand, receptor, flag in zip(pairs["ligand"], pairs["receptor"], called, strict=True):
        for a in ligand.removeprefix("COMPLEX:").split("_"):
            for b in receptor.removeprefix("COMPLEX:").split("_"):
                pair = frozenset((a, b))
                found[pair] = found.get(pair, False) or bool(flag)
    return found
