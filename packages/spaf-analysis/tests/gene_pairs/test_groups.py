from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import optimize, sparse, stats

from spaf_analysis import InputError, pl, tl
from spaf_analysis.gene_pairs.markers import pair_markers
from spaf_analysis.gene_pairs.section import GenePairMarkersSection


def make_cells(seed=0, *, n=600, n_genes=16, planted=True):
    """Two groups whose genes differ; a pair is seen where both genes are, and (0, 1) sits together in one group."""
    rng = np.random.default_rng(seed)
    is_group = rng.random(n) < 0.4
    rates = rng.gamma(2.0, 1.0, (2, n_genes))
    size = rng.gamma(5.0, 0.2, n)
    counts = rng.poisson(rates[is_group.astype(int)] * size[:, None])
    pairs = [(a, b) for a in range(n_genes) for b in range(a + 1, n_genes)]
    both = np.stack([np.minimum(counts[:, a], counts[:, b]) for a, b in pairs], axis=1)
    z = np.where(rng.random(both.shape) < 1 - 0.5**both, rng.normal(0, 1, both.shape), 0.0)
    if planted:
        z[:, 0] += 1.5 * (is_group & (z[:, 0] != 0))
    names = [f"G{gene}" for gene in range(n_genes)]
    adata = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=names))
    adata.obs_names = [f"c{cell}" for cell in range(n)]
    adata.obs["type"] = np.where(is_group, "one", "other")
    adata.obsm["colocalization"] = sparse.csr_matrix(z.astype(np.float32))
    table = pd.DataFrame([(names[a], names[b]) for a, b in pairs], columns=["gene_a", "gene_b"])
    adata.uns["colocalization"] = {"pairs": table, "method": "enrichment", "parameters": {}}
    return adata


def test_a_pair_counts_for_what_it_adds_and_markers_by_presence_vanish(tmp_path):
    adata = make_cells()
    tl.gene_pair_markers(adata, groupby="type")
    found = adata.uns["gene_pair_markers"]
    called = found["table"][found["table"]["called"]]
    assert called[["group", "gene_a", "gene_b"]].iloc[0].tolist() == ["one", "G0", "G1"]
    assert len(called) <= 2  # at a false discovery rate of 5 % now and then one more
    assert found["n_tested"] == 2 * 120
    assert found["n_presence"] > 20
    assert found["n_vanished"] >= found["n_presence"] - len(called)
    for place in (adata.obsm, adata.uns):  # z of enrichment goes before communities
        place["colocalization_enrichment"] = place["colocalization"]
    adata.obsm["colocalization"] = adata.obsm["colocalization"][:, :3]
    tl.gene_pair_markers(adata, groupby="type")
    assert adata.uns["gene_pair_markers"]["parameters"]["key"] == "colocalization_enrichment"
    assert adata.uns["gene_pair_markers"]["n_called"] == len(called)
    adata.write_h5ad(tmp_path / "out.h5ad")
    assert ad.read_h5ad(tmp_path / "out.h5ad").uns["gene_pair_markers"]["n_called"] == len(called)


def test_the_figure_and_the_section_show_what_pairs_add_beside_their_presence(html_of):
    adata = make_cells()
    said = GenePairMarkersSection.compute(SimpleNamespace(adata=adata))
    assert (said.stored, said.numbers(), said.view()) == (None, {}, {})
    with pytest.raises(InputError, match="uns has no markers among gene pairs 'gene_pair_markers'"):
        pl.gene_pair_markers(adata)
    tl.gene_pair_markers(adata, groupby="type")
    axes = pl.gene_pair_markers(adata, n=7)
    table = adata.uns["gene_pair_markers"]["table"].head(7)
    first = table.iloc[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names[0] == f"{first['gene_a']} – {first['gene_b']}, {first['group']}"
    assert len(names) == 7
    _, presence, called, others = axes.collections
    np.testing.assert_allclose(presence.get_offsets()[:, 0], -np.log10(table["p_presence"]))
    np.testing.assert_allclose(called.get_offsets()[:, 0], -np.log10(table.loc[table["called"], "p"]))
    assert len(called.get_offsets()) + len(others.get_offsets()) == 7
    made = GenePairMarkersSection.compute(SimpleNamespace(adata=adata))
    assert made.numbers()["gene_pair_markers"]["n_tested"] == 240
    assert "add to their two genes" in made.view()["said"]
    assert "spaf-analysis gene-pairs IN.h5ad --groupby" in html_of(said)
    page = html_of(made)
    assert page.count("<tr><td") == 15
    assert made.view()["said"] in page


def test_p_is_uniform_where_pairs_carry_nothing():
    p = []
    for seed in range(6):
        adata = make_cells(seed, n=400, planted=False)
        tl.gene_pair_markers(adata, groupby="type")
        table = adata.uns["gene_pair_markers"]["table"]
        p.append(table.loc[table["group"] == "one", "p"].to_numpy())
        assert not table["called"].any()
    assert 0.03 <= np.mean(np.concatenate(p) < 0.05) <= 0.07


def test_the_ratio_is_that_of_two_regressions_one_by_one(monkeypatch):
    adata = make_cells(3, n=150, n_genes=4)
    counts, z = adata.X.toarray().astype(float), adata.obsm["colocalization"].toarray().astype(float)
    target = (adata.obs["type"] == "one").to_numpy()
    genes = np.array([(a, b) for a in range(4) for b in range(a + 1, 4)])
    monkeypatch.setattr("spaf_analysis.gene_pairs.markers._VALUES_AT_ONCE", 150 * 7 * 4)
    found = pair_markers(sparse.csc_matrix(counts), sparse.csc_matrix(z), genes, target)

    def best(columns):
        scaled = np.column_stack([(one - one.mean()) / one.std() for one in columns])
        design = np.column_stack([np.ones(len(target)), scaled])

        def loss(weights):
            logit = design @ weights
            return np.logaddexp(0, logit).sum() - logit[target].sum() + 0.5e-3 * (weights[1:] ** 2).sum()

        return -optimize.minimize(loss, np.zeros(design.shape[1]), tol=1e-10).fun

    depth = np.log1p(counts.sum(axis=1))
    for index, (a, b) in enumerate(genes):
        alone = [depth, counts[:, a], np.log1p(counts[:, a]), counts[:, b], np.log1p(counts[:, b])]
        ratio = 2 * (best([*alone, z[:, index]]) - best(alone))
        assert found.ratio[index] == pytest.approx(ratio, abs=1e-4)
        assert found.p[index] == pytest.approx(stats.chi2.sf(ratio, 1), abs=1e-3)
        seen = z[:, index] != 0
        two_by_two = [
            [(seen & target).sum(), (seen & ~target).sum()],
            [(~seen & target).sum(), (~seen & ~target).sum()],
        ]
        expected = stats.chi2_contingency(two_by_two, correction=False, lambda_="log-likelihood").pvalue
        assert found.p_presence[index] == pytest.approx(expected)


def test_a_pair_that_does_not_vary_has_no_p():
    counts = sparse.csc_matrix(np.random.default_rng(0).poisson(2.0, (50, 2)).astype(float))
    target = np.arange(50) < 20
    found = pair_markers(counts, sparse.csc_matrix(np.ones((50, 1))), np.array([[0, 1]]), target)
    assert np.isnan(found.p[0])


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (lambda adata: adata.obsm.pop("colocalization"), {}, "has no co-localised gene pairs 'colocalization'"),
        (None, {"groupby": "none"}, "obs has no column 'none' \\(groupby\\)"),
        (None, {"min_cells": 590}, "no group of obs column 'type' has 590 cells"),
        (None, {"min_cells": 0}, "min_cells must be at least 1"),
        (lambda adata: adata.uns["colocalization"].update(pairs=pd.DataFrame()), {}, "of two calls of colocalize"),
        (lambda adata: setattr(adata, "var_names", [f"H{i}" for i in range(16)]), {}, "names the gene 'G0', which"),
        (
            lambda adata: setattr(adata, "var_names", ["G0", *adata.var_names[:-1]]),
            {},
            "two genes named 'G0'; make gene",
        ),
        (lambda adata: adata.obsm["colocalization"].data.__setitem__(0, np.nan), {}, "scores that are not finite"),
    ],
)
def test_wrong_input_is_one_sentence(change, options, sentence):
    adata = make_cells()
    if change is not None:
        change(adata)
    with pytest.raises(InputError, match=sentence):
        tl.gene_pair_markers(adata, **{"groupby": "type", **options})
