"""Interactions across pairs of cells: what is planted is found, and nothing else."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from spaf_analysis import InputError, pl, tl
from spaf_analysis.perturbation import (
    GenePairSet,
    collect,
    compute,
    expression_controls,
    leading,
    seen_gene_pairs,
)
from spaf_analysis.perturbation.tool import sentence
from spaf_model import SpatialFormer, SpatialFormerConfig, Vocabulary

PLANTED = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
TYPES = {"cell_type": "type", "left": "A", "right": "B"}


def test_planted_interactions_are_found_and_no_others(score, make_pairs):
    hits, false, calls = 0, 0, 0
    for seed in range(5):
        adata, pairs = make_pairs(seed, n_pairs=400, planted=PLANTED, correlation=0.9)
        tl.perturb(adata, score, pairs=pairs, seed=seed)
        stored = adata.uns["perturbation"]
        called = stored["table"][stored["table"]["fdr"] <= 0.05]
        true = {(f"GENE{i}", f"GENE{j}") for i, j in PLANTED}
        hit = sum(pair in true for pair in zip(called["gene_left"], called["gene_right"], strict=True))
        hits, false, calls = hits + hit, false + len(called) - hit, calls + len(called)
        assert stored["n_called"] == len(called)
        assert stored["n_tested"] == 900
        assert stored["is_exact"]
    assert hits >= 20
    assert false / calls <= 0.15


def test_types_alone_give_uniform_p_and_no_call(score, make_tissue):
    shares, calls = [], 0
    for seed in range(8):
        adata = make_tissue(seed)
        tl.perturb(adata, score, **{**TYPES, "right": "A" if seed % 2 else "B"}, n_permutations=1000, seed=seed)
        stored = adata.uns["perturbation"]
        shares.append((stored["table"]["p"] < 0.05).mean())
        calls += stored["n_called"]
    assert 0.03 < np.mean(shares) < 0.07
    assert calls <= 2


def test_a_pair_of_one_type_has_no_order(score, make_tissue):
    adata = make_tissue(0)
    tl.perturb(adata, score, cell_type="type", left="A", right="A", n_permutations=200)
    table = adata.uns["perturbation"]["table"]
    both = {frozenset(pair) for pair in zip(table["gene_left"], table["gene_right"], strict=True)}
    assert len(both) == len(table) == 30 * 31 / 2
    assert set(adata.uns["perturbation"]["genes"]["side"]) == {"either"}


def test_one_value_a_pair_is_the_mean_of_both_orders(score, make_tissue):
    adata = make_tissue(1)
    pair = next(score.perturb_pairs(adata, [3], [9]))
    x, y = (np.log1p(adata.X[cell].toarray().ravel()) for cell in (3, 9))
    first, second = np.triu_indices(30)
    found = collect([pair], 1, 30, GenePairSet(first, second, has_order=False)).interaction[0]
    for value, i, j in zip(found, first, second, strict=True):
        ways = [x[a] * score.weights[a, b] * y[b] for a, b in ((i, j), (j, i)) if x[a] > 0 and y[b] > 0]
        if ways:
            assert value == pytest.approx(np.mean(ways), rel=1e-5, abs=1e-6)
        else:
            assert np.isnan(value)


def test_the_additive_part_is_that_of_a_regression_without_freedom(score, make_tissue):
    adata = make_tissue(1)
    pairs = list(score.perturb_pairs(adata, [3, 5], [9, 11]))
    none = GenePairSet(np.zeros(0, dtype=int), np.zeros(0, dtype=int), has_order=True)
    found = collect(pairs, 2, 30, none)
    both = np.concatenate([(p.interaction + p.delta_left[:, None] + p.delta_right).ravel() for p in pairs])
    rest = np.concatenate([p.interaction.ravel() for p in pairs])
    assert found.additive_r2 == pytest.approx(1 - (rest**2).sum() / ((both - both.mean()) ** 2).sum())
    assert found.n_values == both.size


def test_amounts_are_regressed_out_of_each_gene_pair():
    rng = np.random.default_rng(0)
    left, right = rng.gamma(2, 1, (2, 80, 4)).astype(np.float32)
    pairs = GenePairSet(np.array([0, 1, 2]), np.array([3, 1, 0]), has_order=True)
    values = rng.normal(size=(80, 3)).astype(np.float32) + left[:, [0, 1, 2]]
    values[rng.random(values.shape) < 0.2] = np.nan
    found = compute.beyond_amounts(values, pairs, left, right)
    for column, (i, j) in enumerate(zip(pairs.first, pairs.second, strict=True)):
        known = np.isfinite(values[:, column])
        design = np.c_[np.ones(known.sum()), left[known, i], right[known, j]]
        fitted = design @ np.linalg.lstsq(design, values[known, column], rcond=None)[0]
        np.testing.assert_allclose(found[known, column], values[known, column] - fitted, atol=1e-4)
        assert np.isnan(found[~known, column]).all()


def test_gene_pairs_that_enough_pairs_of_cells_have():
    rng = np.random.default_rng(0)
    left, right = rng.random((2, 40, 6)) < 0.5
    near = np.arange(40) < 20
    found = seen_gene_pairs(left, right, near, min_pairs=5, has_order=True).wanted(6)
    one_type = seen_gene_pairs(left, right, near, min_pairs=5, has_order=False).wanted(6)
    for i in range(6):
        for j in range(6):
            both = left[:, i] & right[:, j]
            assert found[i, j] == (both[near].sum() >= 5 and both[~near].sum() >= 5)
            either = both | (left[:, j] & right[:, i])
            assert one_type[i, j] == (either[near].sum() >= 5 and either[~near].sum() >= 5)


def test_leading_gene_pairs_have_the_largest_products_of_singles(score, make_tissue):
    adata = make_tissue(2)
    first, second = (each.ravel() for each in np.mgrid[:30, :30])
    pairs = GenePairSet(first, second, has_order=True)
    asked = list(score.perturb_pairs(adata, range(10), range(10, 20)))
    found = collect(asked, 10, 30, pairs)
    product = np.full((10, 30, 30), np.nan)
    for row, pair in enumerate(asked):
        product[row][np.ix_(pair.genes_left, pair.genes_right)] = np.abs(pair.delta_left[:, None] * pair.delta_right)
    with np.errstate(invalid="ignore"):
        mean = np.nansum(product, axis=0) / np.maximum(np.isfinite(product).sum(axis=0), 1)
    expected = np.sort(np.argsort(-mean.ravel(), kind="stable")[:90])
    np.testing.assert_array_equal(leading(found, pairs, 0.1), expected)


def test_controls_are_of_the_same_expression():
    rng = np.random.default_rng(0)
    rate = np.repeat([0.1, 0.9], 10)
    left, right = rng.random((2, 300, 20)) < rate
    first, second = (each.ravel() for each in np.mgrid[:20, :20])
    usable = rng.random(400) < 0.8
    controls = expression_controls(GenePairSet(first, second, has_order=True), left, right, usable, seed=1)
    for pair in range(0, 400, 7):
        for other in controls[pair][controls[pair] >= 0]:
            assert usable[other]
            assert other != pair
            assert (first[other] < 10) == (first[pair] < 10)
            assert (second[other] < 10) == (second[pair] < 10)
    size = np.zeros(400)
    size[3] = 5.0
    assert compute.control_rank(size, controls)[3] == pytest.approx(1 / (1 + (controls[3] >= 0).sum()))


def test_a_model_of_one_sequence_is_asked_for_the_leading_gene_pairs(make_pairs, bilinear):
    adata, pairs = make_pairs(0, n_pairs=60, planted=[], correlation=0.0)
    score = bilinear(compares_states=False)
    tl.perturb(adata, score, pairs=pairs, screen=0.1, n_permutations=200)
    stored = adata.uns["perturbation"]
    assert not stored["is_exact"]
    assert stored["n_tested"] <= 0.1 * stored["n_seen"] + 1
    singles, asked = score.asked
    assert singles.sum() == 0
    assert asked.sum() == np.ceil(0.1 * stored["n_seen"])


def test_a_real_model_and_the_way_through_a_file(make_tissue, tmp_path):
    adata = make_tissue(0, n_cells=700)
    adata.obs["assay"], adata.obs["species"], adata.obs["tissue"], adata.obs["condition"] = "X", "H", "B", "D"
    context = {"assay": ("X",), "species": ("H",), "tissue": ("B",), "condition": ("D",)}
    vocabulary = Vocabulary.build(list(adata.var_names), scale=np.ones(30), **context)
    sizes = {"width": 16, "n_layers": 1, "n_heads": 2, "conv_kernel": 3, "pair_input": "separate"}
    model = SpatialFormer(SpatialFormerConfig(**sizes), vocabulary, seed=0)
    tl.perturb(adata, model, **TYPES, max_pairs=30, n_permutations=200, genes=list(adata.var_names[:12]))
    adata.write_h5ad(tmp_path / "with.h5ad")
    stored = ad.read_h5ad(tmp_path / "with.h5ad").uns["perturbation"]
    assert 0.9 < stored["additive_r2"] <= 1
    assert set(stored["table"]["gene_left"]) <= set(adata.var_names[:12])
    assert "gene pairs tested" in sentence(stored)
    heat, volcano = pl.perturbation(adata)
    assert isinstance(heat.figure, Figure)
    assert "called" in volcano.get_title(loc="left")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"right": "C"}, "obs column 'type' has no cells of type 'C'; it has: A, B"),
        ({"near": 2.0}, "near 2 reaches no other cell"),
        ({"min_pairs": 5000}, r"near and \d+ far pairs of 'A' and 'B' .* at least 5000 of each are needed"),
        ({"genes": ["NOPE"]}, "the table has no gene 'NOPE'"),
        ({"screen": 0.0}, "screen must be above 0"),
        ({"left": None}, "name the column of cell types and two types"),
        ({"far": 10.0}, "near .* must be above 0 and at most far"),
        ({"pairs": pd.DataFrame({"left": [], "right": [], "near": []})}, "not both"),
        ({"layer": "none"}, "the table has no layer 'none'"),
    ],
)
def test_wrong_input_is_one_sentence(score, make_tissue, options, words):
    adata = make_tissue(0)
    with pytest.raises(InputError, match=words):
        tl.perturb(adata, score, **{**TYPES, **options})
    assert "perturbation" not in adata.uns


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ({"left": ["c1"], "right": ["c2"]}, "no column 'near'"),
        ({"left": ["c1"], "right": ["zz"], "near": [True]}, "a cell that is not there: 'zz'"),
        ({"left": ["c1", "c1"], "right": ["c2", "c3"], "near": [True, False]}, "cell 'c1' is in 2 pairs"),
        ({"left": ["c1"], "right": ["c2"], "near": ["close"]}, "must hold true or false, not 'close'"),
    ],
)
def test_wrong_pairs_are_one_sentence(score, make_tissue, pairs, words):
    with pytest.raises(InputError, match=words):
        tl.perturb(make_tissue(0), score, pairs=pd.DataFrame(pairs))


def test_a_model_without_a_score_of_pairs_says_so(make_tissue):
    with pytest.raises(ValueError, match="cannot score two cells again without some of their genes"):
        tl.perturb(make_tissue(0), "starter", **TYPES)


def test_a_table_of_a_spatialdata(score, make_tissue):
    spatialdata = pytest.importorskip("spatialdata")
    adata = make_tissue(0)
    store = spatialdata.SpatialData(tables={"other": adata[:5].copy(), "cells": adata})
    tl.perturb(store, score, **TYPES, n_permutations=200, table_key="cells")
    assert store.tables["cells"].uns["perturbation"]["n_tested"] == 900
    heat, _ = pl.perturbation(store, table_key="cells")
    assert "near less far" in heat.get_title(loc="left")


def test_shuffled_rows_give_the_same_pairs_and_p(score, make_tissue):
    adata = make_tissue(0, n_cells=800)
    shuffled = adata[np.random.default_rng(3).permutation(800)].copy()
    for table in (adata, shuffled):
        tl.perturb(table, score, **TYPES, max_pairs=60, n_permutations=200)
    one, other = (table.uns["perturbation"] for table in (adata, shuffled))
    pd.testing.assert_frame_equal(one["pairs"], other["pairs"])
    pd.testing.assert_frame_equal(one["table"], other["table"])


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "Counts must be finite"), (-1.0, "negative"), (0.5, "Counts must be whole")]
)
def test_what_is_no_count_is_refused(score, make_tissue, value, words):
    adata = make_tissue(0)
    adata.layers["bad"] = adata.X.copy()
    adata.layers["bad"].data[5] = value
    tl.perturb(adata, score, **TYPES, n_permutations=200)  # X itself is well
    with pytest.raises(InputError, match=words):
        tl.perturb(adata, score, **TYPES, layer="bad")


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_genes_of_one_name_are_refused(score, make_tissue):
    adata = make_tissue(0)
    adata.var_names = ["GENE1", *adata.var_names[1:]]
    with pytest.raises(InputError, match="the table has two genes named 'GENE1'; make gene names unique first"):
        tl.perturb(adata, score, **TYPES, genes=["GENE1"])


def test_cells_on_disk_give_what_cells_in_memory_give(make_tissue, tmp_path):
    adata = make_tissue(0, n_cells=500)
    context = {"assay": ("X",), "species": ("H",), "tissue": ("B",), "condition": ("D",)}
    vocabulary = Vocabulary.build(list(adata.var_names), scale=np.ones(30), **context)
    sizes = {"width": 16, "n_layers": 1, "n_heads": 2, "conv_kernel": 3, "pair_input": "separate"}
    model = SpatialFormer(SpatialFormerConfig(**sizes), vocabulary, seed=0)
    model.network.eval()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    on_disk = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    options = TYPES | {kind: names[0] for kind, names in context.items()}
    for table in (adata, on_disk):
        tl.perturb(table, model, **options, max_pairs=30, n_permutations=200, genes=["GENE1", "GENE2", "GENE3"])
    one, other = (table.uns["perturbation"]["table"] for table in (adata, on_disk))
    pd.testing.assert_frame_equal(one, other)
    on_disk.file.close()
