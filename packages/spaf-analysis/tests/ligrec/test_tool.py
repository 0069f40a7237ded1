import importlib.util

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from spaf_analysis import InputError, pl, tl
from spaf_analysis.ligrec import ligand_receptor_scores, overlap_of_calls, read_resource
from spaf_analysis.ligrec.moments import kernel
from spaf_analysis.ligrec.overlap import called_pairs

from .conftest import PAIRS, make_tissue


def test_a_planted_pair_is_called_and_coverage_is_said(planted):
    adata = planted.copy()
    tl.ligrec(adata, resource=PAIRS, cell_type="type", n_matched=20)
    found = adata.uns["ligrec"]
    table = found["table"]
    assert found["coverage"].startswith(
        "The panel measures 5 of the 7 ligand-receptor pairs of a table (71.4%; another 2"
    )
    assert table["ligand"][0] == "G0"
    assert table["called"].tolist() == [True] + [False] * 4
    first = table.iloc[0]
    assert first["ratio"] > 1.02 > first["ratio_matched"]
    assert first["excess"] == pytest.approx(first["ratio"] - first["ratio_matched"])
    assert first["rank"] == 1
    assert first["p_matched"] <= 1 / (1 + first["n_matched"])
    assert set(table["receptor"]) == {"G1", "G3", "G5", "G10", "G11_G12"}
    assert len(found["resource"]["sha256"]) == 64
    axes = pl.ligrec(adata)
    assert axes.get_yticklabels()[0].get_text() == "G0 – G1"


def test_the_same_in_any_order_and_in_a_file(planted, tmp_path):
    first, second = planted.copy(), planted[np.random.default_rng(0).permutation(planted.n_obs)].copy()
    for adata in (first, second):
        tl.ligrec(adata, resource=PAIRS, cell_type="type", n_matched=20)
    pd.testing.assert_frame_equal(first.uns["ligrec"]["table"], second.uns["ligrec"]["table"])
    first.write_h5ad(tmp_path / "out.h5ad")
    again = ad.read_h5ad(tmp_path / "out.h5ad")
    assert pl.ligrec(again).figure is not None
    assert ligand_receptor_scores(again).shape == (planted.n_obs, 5)


def test_scores_of_cells_add_up_to_the_statistic(planted):
    adata = planted.copy()
    adata.obs.loc[adata.obs_names[:7], "type"] = ""  # cells without a type are left out
    tl.ligrec(adata, resource=PAIRS, cell_type="type", n_matched=20)
    scores = ligand_receptor_scores(adata)
    table = adata.uns["ligrec"]["table"]
    np.testing.assert_allclose(np.asarray(scores.X.sum(axis=0)).ravel(), table["observed"], rtol=1e-5)
    assert scores.var_names[0] == "G0|G1"
    assert scores.X[:7].nnz == 0
    assert ligand_receptor_scores(adata, only_called=True).var_names.tolist() == ["G0|G1"]
    counts = adata.X.toarray()
    logs = np.log1p(counts * 1e4 / counts.sum(axis=1, keepdims=True))
    used = np.arange(7, adata.n_obs)
    weights = kernel(adata.obsm["spatial"][used], adata.obsm["spatial"][used], np.arange(len(used)), 30.0)
    dense = logs[used, 1] * (weights @ logs[used, 0])
    np.testing.assert_allclose(scores.X[used, 0].toarray().ravel(), dense, rtol=1e-5)
    place = pd.DataFrame(np.floor((adata.obsm["spatial"][used] - adata.obsm["spatial"][used].min(axis=0)) / 100))
    strata = pd.Series(logs[used, 0]).groupby([place[0], place[1], adata.obs["type"].to_numpy()[used]])
    stratum, n = strata.ngroup().to_numpy(), strata.transform("size").to_numpy()
    # Of each cell: those of other strata have their mean on average, those of its own the mean without the cell.
    means = np.tile(strata.transform("mean"), (len(used), 1))
    without = (strata.transform("sum") - logs[used, 0]) / np.maximum(n - 1, 1)
    means = np.where(stratum[:, None] == stratum, without.to_numpy()[:, None], means)
    excess = logs[used, 1] * (weights.toarray() * (logs[used, 0] - means)).sum(axis=1)
    np.testing.assert_allclose(scores.layers["excess"][used, 0].toarray().ravel(), excess, rtol=1e-4, atol=1e-4)


def test_types_alone_call_no_more_than_promised():
    """Types in patches and genes by type, nothing else: all pairs of genes."""
    alarms, without_types = [], []
    names = [f"G{gene}" for gene in range(12)]
    pairs = pd.DataFrame([(a, b) for a in names for b in names if a < b], columns=["ligand", "receptor"])
    for seed in range(12):
        adata = make_tissue(seed, n=500, n_genes=20, planted=False)
        tl.ligrec(adata, resource=pairs, cell_type="type", n_matched=5)
        alarms.append((adata.uns["ligrec"]["table"]["p"] <= 0.05).mean())
        tl.ligrec(adata, resource=pairs, n_matched=5, tile=1000.0)
        without_types.append((adata.uns["ligrec"]["table"]["p"] <= 0.05).mean())
    assert np.mean(alarms) <= 0.06
    assert np.mean(without_types) > 0.1


def in_states(seed, *, n_genes=14, same=False, planted=False):
    """Cells of which half are in a state, wherever they lie: those have the ligand, the same or the others receive."""
    adata = make_tissue(seed, n=2_000, n_genes=n_genes, planted=False)
    rng = np.random.default_rng(seed + 100)
    state = rng.random(adata.n_obs) < 0.5
    if planted:  # discs in which most cells of either state have their gene
        centres = rng.random((25, 2)) * adata.obsm["spatial"].max()
        near = (np.linalg.norm(adata.obsm["spatial"][:, None] - centres[None], axis=2) < 25).any(axis=1)
        active = near & (rng.random(adata.n_obs) < 0.8) | (rng.random(adata.n_obs) < 0.1)
    else:
        active = np.ones(adata.n_obs, dtype=bool)
    counts = adata.X.toarray()
    counts[:, 0] = rng.poisson(np.where(active & state, 6.0, 0.3))
    counts[:, 1] = rng.poisson(np.where(active & (state == same), 6.0, 0.3))
    adata.X = sparse.csr_matrix(counts)
    return adata


@pytest.mark.parametrize("same", [False, True])
def test_states_of_cells_that_lie_anywhere_are_not_called(same):
    z, called, ratios = [], [], []
    for seed in range(8):
        adata = in_states(seed, same=same)
        tl.ligrec(adata, resource=PAIRS, cell_type="type", n_matched=8)
        first = adata.uns["ligrec"]["table"].set_index("ligand").loc["G0"]
        z.append(first["z"])
        called.append(first["called"])
        ratios.append(first["ratio"])
    assert not any(called)
    assert np.abs(z).max() < 3.5
    assert abs(np.mean(z)) < 1.0
    np.testing.assert_allclose(ratios, 1, atol=0.05)


def test_a_planted_pair_of_cells_in_states_is_called():
    adata = in_states(1, n_genes=30, planted=True)
    tl.ligrec(adata, resource=PAIRS, cell_type="type", n_matched=20)
    table = adata.uns["ligrec"]["table"]
    assert table["ligand"][table["called"]].tolist() == ["G0"]


def test_donors_are_what_is_tested():
    adata = make_tissue(1, n=600, n_genes=20, n_donors=8)
    tl.ligrec(adata, resource=PAIRS, cell_type="type", donor="donor", n_matched=8)
    table = adata.uns["ligrec"]["table"]
    assert table["called"].tolist() == (table["ligand"] == "G0").tolist()
    assert table["p_donors"][0] <= 4 / 256
    assert table["n_donors"][0] == 8
    assert table["difference"][0] > 0.02
    states = np.where(adata.obs["donor"].isin(["d0", "d1", "d2", "d3"]), "ill", "well")
    adata.obs["state"] = states
    tl.ligrec(adata, resource=PAIRS, cell_type="type", donor="donor", condition="state", n_matched=8)
    assert adata.uns["ligrec"]["conditions"].tolist() == ["ill", "well"]
    assert adata.uns["ligrec"]["table"]["p_donors"].min() >= 2 / 70


def test_cells_of_two_slides_are_never_beside_each_other(planted):
    both = ad.concat([planted, planted], keys=["a", "b"], index_unique="-", label="slide")
    tl.ligrec(both, resource=PAIRS, cell_type="type", n_matched=20)
    one = planted.copy()
    tl.ligrec(one, resource=PAIRS, cell_type="type", n_matched=20)
    np.testing.assert_allclose(both.uns["ligrec"]["table"]["observed"], 2 * one.uns["ligrec"]["table"]["observed"])


def test_overlap_counts_all_that_both_tested(planted):
    own = pd.DataFrame({"ligand": ["A", "C", "E_F"], "receptor": ["B", "D", "G"], "called": [True, False, True]})
    other = pd.DataFrame(
        {"gene_a": ["B", "C", "G", "X"], "gene_b": ["A", "D", "F", "Y"], "called": [True, True, False, True]}
    )
    others = {"perturbation": called_pairs(other, ("gene_a", "gene_b", "called"), "perturbation")}
    rows = overlap_of_calls(own, others, own[["ligand", "receptor"]])
    first, second = rows.iloc[0], rows.iloc[1]
    assert (first["n_tested"], first["called_first"], first["called_second"], first["both"]) == (3, 2, 2, 1)
    assert first["expected"] == pytest.approx(4 / 3)
    assert first["p"] == pytest.approx(1.0)
    assert first["pairs"] == "A|B"
    # Beside the resource: all that the other tested, of which three are in it and three are called.
    assert (second["n_tested"], second["called_first"], second["both"]) == (4, 3, 2)
    by_fdr = called_pairs(pd.DataFrame({"a": ["A"], "b": ["B"], "fdr": [0.01]}), ("a", "b", "called"), "x")
    assert list(by_fdr.values()) == [True]
    with pytest.raises(InputError, match="attention has no column 'gene_a'; it has: a, b"):
        called_pairs(pd.DataFrame({"a": [], "b": []}), ("gene_a", "gene_b", "called"), "attention")
    with pytest.raises(InputError, match=r"attention has no two columns of genes .*--beside-columns\); it has: a, b"):
        called_pairs(pd.DataFrame({"a": [], "b": []}), None, "attention")
    nothing = overlap_of_calls(own, {"x": {frozenset("YZ"): True}}, own[["ligand", "receptor"]]).iloc[0]
    assert nothing["said"].startswith("No gene pair was tested by ligand-receptor (4 tested) and by x (1) alike")
    assert np.isnan(nothing["p"])
    assert second["said"].startswith(
        "Of 4 gene pairs that perturbation tested, 3 are pairs of the resource and 3 were called: 2 are both"
    )
    assert first["said"].startswith("Of 3 gene pairs that ligand-receptor and perturbation both tested, both called 1")
    adata = planted.copy()
    adata.uns["perturbation"] = {"table": other.replace({"A": "G0", "B": "G1"})}
    tl.ligrec(adata, resource=PAIRS, cell_type="type", n_matched=20, beside={"perturbation": "perturbation"})
    assert adata.uns["ligrec"]["overlap"]["pairs"][0] == "G0|G1"
    with pytest.raises(InputError, match="uns has no 'none' \\(attention\\)"):
        tl.ligrec(adata, resource=PAIRS, cell_type="type", beside={"attention": "none"})


def test_results_of_other_analyses_are_read_by_their_columns_and_what_was_not_tested_is_left_out():
    attention = pd.DataFrame(
        {"query": ["A", "B", "C"], "key": ["B", "A", "D"], "called": [False, True, False], "fdr": [0.9, 0.01, np.nan]}
    )
    assert called_pairs(attention, None, "attention") == {frozenset("AB"): True}
    interactions = pd.DataFrame({"gene_left": ["A"], "gene_right": ["B"], "called": ["False"], "fdr": ["0.2"]})
    assert called_pairs(interactions, None, "perturbation") == {frozenset("AB"): False}


def test_resources_are_read_by_their_columns(tmp_path):
    for name, separator, columns in (("a.csv", ",", ("Ligand", "Receptor")), ("b.tsv", "\t", ("source", "target"))):
        table = pd.DataFrame({"other": 1, columns[0]: ["L1", "L1", " "], columns[1]: ["R1_R2", "R1_R2", "R3"]})
        table.to_csv(tmp_path / name, sep=separator, index=False)
        found = read_resource(tmp_path / name)
        assert found.name == name
        assert found.pairs.to_numpy().tolist() == [["L1", "R1_R2"]]
    (tmp_path / "c.csv").write_text("gene,partner\na,b\n")
    with pytest.raises(InputError, match="c.csv has no columns 'ligand' and 'receptor'; it has: gene, partner"):
        read_resource(tmp_path / "c.csv")
    with pytest.raises(InputError, match="there is no file none.csv"):
        read_resource("none.csv")


def test_a_resource_of_liana_is_its_file(tmp_path, monkeypatch):
    folder = tmp_path / "liana"
    (folder / "resource").mkdir(parents=True)
    table = pd.DataFrame({"source_genesymbol": ["A"], "target_genesymbol": ["B"], "resource": ["consensus"]})
    table.to_csv(folder / "resource" / "omni_resource.csv")
    spec = importlib.util.spec_from_file_location("liana", folder / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr("spaf_analysis.ligrec.resource.version", lambda name: "1.2")
    found = read_resource("consensus")
    assert (found.name, found.version, len(found.pairs)) == ("consensus", "of liana 1.2", 1)
    with pytest.raises(InputError, match="liana has no resource 'none'; it has: consensus"):
        read_resource("none")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install 'spaf-analysis\\[communication\\]', or name a file"):
        read_resource("consensus")


def mice(adata):
    adata.var_names = [f"g{gene}" for gene in range(adata.n_vars)]


def other_genes(adata):
    adata.var_names = [f"H{gene}" for gene in range(adata.n_vars)]


def pixels(adata):
    adata.obsm["spatial"] = adata.obsm["spatial"] / 0.1


def lost_place(adata):
    adata.obsm["spatial"][3, 0] = np.nan


def not_a_number(adata):
    adata.X = sparse.csr_matrix(adata.X.toarray())
    adata.X.data[0] = np.nan


def names_twice(adata):
    adata.obs_names = ["a", "a", *adata.obs_names[2:]]


def many_types(adata):
    adata.obs["type"] = [f"t{index % 400}" for index in range(adata.n_obs)]


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (mice, {}, "measures no pair of the resource 'a table': gene names differ in their capitals"),
        (other_genes, {}, "it has genes such as H0, H1, H2, the resource such as"),
        (pixels, {}, "bandwidth 30 reaches no other cell for most cells.*is it in pixels"),
        (lost_place, {}, "holds coordinates that are not finite"),
        (not_a_number, {}, "the table: .*"),
        (names_twice, {}, "1 cells have the name of another one, the first is 'a'; make names unique"),
        (many_types, {}, "only .* of 900 cells have another one of their type in their tile of 100 um"),
        (None, {"donor": "donor"}, "all cells are of one donor \\('d0'\\)"),
        (None, {"condition": "type"}, "name the column of donors too"),
        (None, {"cell_type": "none"}, "obs has no column 'none' \\(cell_type\\)"),
        (None, {"bandwidth": 0.0}, "bandwidth must be above 0 um"),
        (None, {"min_cells": 10_000}, "of no pair both sides are seen in 10000 cells"),
        (None, {"n_matched": 0}, "n_matched must be at least 1"),
    ],
)
def test_wrong_input_is_one_sentence(planted, change, options, sentence):
    adata = planted.copy()
    if change is not None:
        change(adata)
    with pytest.raises(InputError, match=sentence):
        tl.ligrec(adata, **{"resource": PAIRS, "cell_type": "type", **options})
    assert "ligrec" not in adata.uns
    with pytest.raises(InputError, match="uns has no ligand-receptor pairs 'ligrec'"):
        pl.ligrec(adata)
    with pytest.raises(InputError, match="uns has no ligand-receptor pairs 'ligrec'"):
        ligand_receptor_scores(adata)
