import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import false_discovery_control, fisher_exact

from spaf_analysis import GenePairs, InputError, enriched_gene_pairs


@pytest.fixture
def communities(tissue):
    """Co-localised pairs: (A, B) in the same cells, (A, C) and (B, C) independently of each other, (A, D) rare."""
    rng = np.random.default_rng(0)
    n = tissue.n_obs
    a_b = rng.random(n) < 0.2
    table = np.column_stack([a_b, rng.random(n) < 0.1, rng.random(n) < 0.3, np.arange(n) < 4])
    tissue.obsm["colocalization"] = sparse.csr_matrix(table.astype(np.int8))
    pairs = pd.DataFrame({"gene_a": ["A", "A", "B", "A"], "gene_b": ["B", "C", "C", "D"]})
    tissue.uns["colocalization"] = {"pairs": pairs, "method": "communities", "parameters": {}}
    return tissue


def test_overlap_is_a_fisher_test_of_taking_part(communities):
    ranked = enriched_gene_pairs(communities, min_cells=1)
    present = communities.obsm["colocalization"].toarray().astype(bool)
    pairs = communities.uns["colocalization"]["pairs"]
    n = communities.n_obs
    part = {gene: present[:, (pairs == gene).any(axis=1)].any(axis=1) for gene in "ABCD"}
    p = []
    for column, (a, b) in enumerate(pairs.itertuples(index=False)):
        row = ranked.table[(ranked.table.gene_a == a) & (ranked.table.gene_b == b)].iloc[0]
        in_a, in_b, both = part[a].sum(), part[b].sum(), present[:, column].sum()
        assert row.observed == row.n_cells == both
        assert row.expected == pytest.approx(in_a * in_b / n)
        table = [[both, in_a - both], [in_b - both, n - in_a - in_b + both]]
        p.append(fisher_exact(table, alternative="greater").pvalue if min(min(table)) >= 0 else None)
        if p[-1] is not None:
            assert row.p == pytest.approx(p[-1])
    assert ranked.method == "overlap"
    assert ranked.n_tested == ranked.n_colocalized == 4
    stored = ranked.table.sort_values("p")
    np.testing.assert_allclose(stored["fdr"], np.sort(false_discovery_control(ranked.table["p"])), atol=1e-12)


def test_rare_pairs_are_tested_but_not_ranked(communities):
    ranked = enriched_gene_pairs(communities, min_cells=10)
    assert "D" not in set(ranked.table.gene_b)
    assert ranked.n_tested == 4


def test_statistics_of_enrichment_are_preferred(communities):
    statistics = pd.DataFrame(
        {
            "gene_a": ["A", "B", "C"], "gene_b": ["D", "D", "D"], "observed": [30.0, 50.0, 9.0],
            "expected": [20.0, 10.0, 10.0], "z": [2.0, 9.0, -0.3], "p": [0.02, 1e-9, 0.6],
            "fdr": [0.04, 3e-9, 0.6], "n_cells": [40, 30, 50],
        }
    )  # fmt: skip
    communities.uns["colocalization_enrichment"] = {"statistics": statistics}
    ranked = enriched_gene_pairs(communities)
    assert ranked.method == "enrichment"
    assert ranked.table["gene_a"].tolist() == ["B", "A", "C"]
    assert ranked.table["fold"].tolist() == [5.0, 1.5, 0.9]
    assert (ranked.n_tested, ranked.n_significant, ranked.n_colocalized) == (3, 2, 4)
    assert ranked.enriched(5)["gene_a"].tolist() == ["B", "A"]
    account = {"pairs": 90, "too_few_expected": 50, "tested": 40, "unseen": 37, "seen": 3}
    communities.uns["colocalization_enrichment"] = {"statistics": statistics, "account": account}
    ranked = enriched_gene_pairs(communities)
    assert (ranked.n_tested, ranked.n_untested, ranked.n_significant) == (40, 50, 2)
    communities.uns["colocalization_enrichment"] = {"statistics": statistics.drop(columns="z")}
    with pytest.raises(InputError, match="has no column 'z'; it has: gene_a"):
        enriched_gene_pairs(communities)


def test_slide_without_gene_pairs(tissue):
    with pytest.raises(InputError, match="neither uns"):
        enriched_gene_pairs(tissue)


def test_former_name_of_the_method_is_read():
    assert GenePairs(pd.DataFrame(), "permutation", 0, 0, 0).method == "enrichment"


def test_matrix_and_pairs_of_two_calls_are_refused(communities):
    communities.uns["colocalization"]["pairs"] = communities.uns["colocalization"]["pairs"].iloc[:-1]
    with pytest.raises(InputError, match="has 4 columns, but .* names 3 gene pairs"):
        enriched_gene_pairs(communities)
