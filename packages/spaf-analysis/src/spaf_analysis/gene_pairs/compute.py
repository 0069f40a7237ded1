"""Gene pairs against what is expected of genes of their abundance."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import false_discovery_control, hypergeom

from spaf_analysis.errors import InputError

FDR = 0.05


@dataclass(frozen=True)
class GenePairs:
    """Gene pairs in the order of their enrichment.

    Attributes
    ----------
    table
        `gene_a, gene_b, observed, expected, fold, z, p, fdr, n_cells`, most enriched first; `z` is missing where the
        method has none.
    method
        "enrichment" or "overlap": where the expectation comes from, see `enriched_gene_pairs`. ("permutation", as the
        first was called before, is read as "enrichment": its moments are those of all permutations, and none is drawn.)
    n_tested
        Number of pairs tested.
    n_significant
        Number of them enriched at a false discovery rate of 5 %.
    n_colocalized
        Gene pairs co-localised in at least one cell.
    n_untested
        Pairs of the panel that were not tested because too few neighbouring transcripts are expected of them; 0 where
        the slide does not say.
    """

    table: pd.DataFrame
    method: str
    n_tested: int
    n_significant: int
    n_colocalized: int
    n_untested: int = 0

    def __post_init__(self) -> None:
        if self.method == "permutation":
            object.__setattr__(self, "method", "enrichment")

    def enriched(self, n: int) -> pd.DataFrame:
        """Return the first `n` pairs that are more frequent than expected at a false discovery rate of 5 %."""
        return self.table[(self.table["fdr"] <= FDR) & (self.table["fold"] > 1)].head(n)

    def stored(self) -> dict[str, Any]:
        """Return the same in the form that an h5ad holds."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def from_enrichment(stored: Mapping[str, Any], key: str, min_cells: int, found: int) -> GenePairs:
    """Rank pairs by the statistics of `spaf_data.colocalize(method="enrichment")`, stored in `uns[key]`."""
    statistics = pd.DataFrame(stored["statistics"])
    columns = ["gene_a", "gene_b", "observed", "expected", "z", "p", "fdr", "n_cells"]
    missing = [column for column in columns if column not in statistics]
    if missing:
        raise InputError(
            f"uns[{key!r}]['statistics'] has no column {missing[0]!r}; it has: {', '.join(statistics.columns)}."
        )
    seen = statistics.loc[statistics["n_cells"] >= min_cells, columns]
    seen = seen.assign(fold=seen["observed"] / seen["expected"])
    ranked = seen.sort_values(["z", "gene_a", "gene_b"], ascending=[False, True, True], kind="stable")
    enriched = (statistics["fdr"] <= FDR) & (statistics["z"] > 0)
    account = stored.get("account", {})
    n_tested = int(account.get("tested", len(statistics)))  # slides of before hold all that was tested
    n_untested = int(account.get("too_few_expected", 0))
    return GenePairs(
        ranked.reset_index(drop=True), "enrichment", n_tested, int(enriched.sum()), found, n_untested=n_untested
    )


def from_overlap(present: sparse.csc_matrix, pairs: pd.DataFrame, min_cells: int, found: int) -> GenePairs:
    """Rank pairs by the cells in which both genes are co-localised, cells x pairs, by a hypergeometric test."""
    genes = pd.unique(pd.concat([pairs["gene_a"], pairs["gene_b"]], ignore_index=True))
    code = pd.Series(np.arange(len(genes)), index=genes)
    a, b = code[pairs["gene_a"]].to_numpy(), code[pairs["gene_b"]].to_numpy()
    n_cells, n_pairs = present.shape
    rows = np.tile(np.arange(n_pairs), 2)
    genes_of_pairs = sparse.csr_matrix((np.ones(2 * n_pairs), (rows, np.r_[a, b])), shape=(n_pairs, len(genes)))
    indicator = sparse.csc_matrix(present, dtype=bool).astype(np.float64)
    # In how many cells a gene takes part in any co-localised pair.
    cells_with = sparse.csc_matrix(indicator @ genes_of_pairs).getnnz(axis=0)
    observed = np.asarray(indicator.sum(axis=0)).ravel()
    expected = cells_with[a] * cells_with[b] / n_cells
    p = hypergeom.sf(observed - 1, n_cells, cells_with[a], cells_with[b])
    table = pd.DataFrame(
        {
            "gene_a": pairs["gene_a"].to_numpy(),
            "gene_b": pairs["gene_b"].to_numpy(),
            "observed": observed,
            "expected": expected,
            "fold": observed / expected,
            "z": np.nan,
            "p": p,
            "fdr": false_discovery_control(p) if n_pairs else p,
            "n_cells": observed.astype(np.int64),
        }
    )
    ranked = table[table["n_cells"] >= min_cells]
    ranked = ranked.sort_values(["p", "fold", "gene_a", "gene_b"], ascending=[True, False, True, True], kind="stable")
    return GenePairs(ranked.reset_index(drop=True), "overlap", n_pairs, int((table["fdr"] <= FDR).sum()), found)
