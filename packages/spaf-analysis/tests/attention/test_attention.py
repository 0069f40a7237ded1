"""Attention between genes after its controls."""

import json
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import spearmanr

from spaf_analysis import InputError, cli, pl, tl
from spaf_analysis.attention import GeneWeights, against_shuffled, explained, residual
from spaf_analysis.attention.compute import correlations, spearman
from spaf_analysis.attention.section import AttentionSection
from spaf_analysis.attention.tool import _shuffled, sentence
from spaf_analysis.perturbation import PairChoice
from spaf_analysis.perturbation.choice import genes_of_cells
from spaf_model import GeneAttention, PerturbedPair, SpatialFormer, SpatialFormerConfig, Vocabulary

GENES = 12
TYPES = {"cell_type": "type", "left": "A", "right": "B"}


@pytest.fixture
def cells() -> ad.AnnData:
    """Cells of A and B in small clumps, with contexts."""
    rng = np.random.default_rng(0)
    n = 400
    adata = ad.AnnData(
        sparse.csr_matrix(rng.poisson(1.5, (n, GENES)).astype(np.float32)),
        obs=pd.DataFrame(
            {"type": pd.Categorical(np.where(rng.random(n) < 0.5, "A", "B"))}, index=[f"c{i}" for i in range(n)]
        ),
        var=pd.DataFrame(index=[f"GENE{i}" for i in range(GENES)]),
    )
    adata.obsm["spatial"] = rng.random((n, 2)) * 500
    for kind, name in {"assay": "X", "species": "H", "tissue": "B", "condition": "D"}.items():
        adata.obs[kind] = name
    return adata


def make_model(pair_input: str) -> SpatialFormer:
    vocabulary = Vocabulary.build(
        [f"GENE{i}" for i in range(GENES)], scale=np.ones(GENES), assay=("X",), species=("H",), tissue=("B",),
        condition=("D",),
    )  # fmt: skip
    sizes = {"width": 16, "n_layers": 2, "n_heads": 2, "conv_kernel": 3, "pair_input": pair_input}
    model = SpatialFormer(SpatialFormerConfig(**sizes), vocabulary, seed=0)
    model.network.eval()
    return model


@pytest.fixture
def model() -> SpatialFormer:
    return make_model("joint")


class Attends:
    """Attention that is what two cells hold of both genes, and more where they are within 30 um of each other."""

    source = "toy"

    def __init__(self, bonus: float) -> None:
        self.bonus = bonus

    def attention(self, adata, pairs, layers=None, heads=None, *, minus_alibi=True, **options) -> GeneAttention:
        counts = np.log1p(adata.X.toarray())
        total, n = np.zeros((2, GENES, GENES))
        for one, other in np.asarray(pairs):
            near = np.linalg.norm(adata.obsm["spatial"][one] - adata.obsm["spatial"][other]) <= 30
            both = np.outer(counts[one], counts[other])
            both[0, 1] += self.bonus * near * (both[0, 1] > 0)
            has = both > 0
            total, n = total + np.where(has, both, 0), n + has
        mean = sparse.csr_array(np.where(n > 0, total / np.maximum(n, 1), 0) + (0.0 if minus_alibi else 0.5) * (n > 0))
        seen = sparse.csr_array(n.astype(np.int64))
        turned = {"right_to_left": mean.T.tocsr(), "within_left": mean, "within_right": mean}
        return GeneAttention(
            list(adata.var_names), {"left_to_right": mean} | turned,
            {"left_to_right": seen, "right_to_left": seen.T.tocsr(), "within_left": seen, "within_right": seen},
            len(pairs), 0,
        )  # fmt: skip

    @property
    def compares_states(self):
        return True

    def perturb_pairs(self, adata, left, right, *, wanted=None, **options):
        counts = np.log1p(adata.X.toarray())
        for one, other in zip(left, right, strict=True):
            i, j = np.flatnonzero(counts[one]), np.flatnonzero(counts[other])
            both = np.outer(counts[one][i], counts[other][j])
            yield PerturbedPair(both.sum(), i, j, -both.sum(axis=1), -both.sum(axis=0), both)


def test_what_near_cells_add_is_called_and_nothing_else(cells):
    tl.attention(cells, Attends(1.0), **TYPES, n_agreement=4)
    stored = cells.uns["attention"]
    called = stored["table"][stored["table"]["fdr"] <= 0.05]
    assert {tuple(row) for row in called[["query", "key"]].to_numpy()} == {("GENE0", "GENE1"), ("GENE1", "GENE0")}
    assert (stored["agreement"]["rho"] > 0.9).all()  # this attention is the product of what both hold
    np.testing.assert_allclose(stored["table"]["position"], 0.5, atol=1e-6)


def test_nothing_between_partners_gives_uniform_p_and_no_call(cells):
    shares, n_with_calls = [], 0
    for seed in range(6):
        cells.obsm["spatial"] = np.random.default_rng(seed).random((400, 2)) * 500
        tl.attention(cells, Attends(0.0), **TYPES, n_agreement=0, seed=seed)
        table = cells.uns["attention"]["table"]
        one_way = table[table["direction"] == "left_to_right"]
        shares.append((one_way["p"] < 0.05).mean())
        n_with_calls += cells.uns["attention"]["n_called"] > 0
    assert n_with_calls <= 1  # at this rate such runs are expected: one in twenty
    assert 0.02 < np.mean(shares) < 0.08


def test_what_only_domains_of_the_tissue_share_is_not_called(cells):
    # Beyond x = 240 um, where tiles change, cells of both types have far more of two genes.
    counts = cells.X.toarray()
    counts[:, :2] *= np.where(cells.obsm["spatial"][:, :1] >= 240, 15, 1)
    cells.X = sparse.csr_matrix(counts)
    t = {}
    for tile in (240.0, 2000.0):
        found = []
        for seed in range(4):
            tl.attention(cells, Attends(0.0), **TYPES, n_agreement=0, tile=tile, seed=seed)
            rows = cells.uns["attention"]["table"].set_index(["direction", "query", "key"])
            found.append(rows.loc[("left_to_right", "GENE0", "GENE1"), "t"])
        t[tile] = np.mean(found)
    assert abs(t[240.0]) < 1.2  # within a tile all cells have as much
    assert t[2000.0] > 2.5  # partners from all of the slide are of other domains


def test_pairs_that_are_alone_in_their_tiles_cannot_change_partners(cells, model):
    tile = np.floor(cells.obsm["spatial"] / 240)
    low, high = (cells.obs_names[(tile == place).all(axis=1)] for place in (0, 1))
    pairs = pd.DataFrame(
        {"left": [low[0], high[0], low[1], high[1]], "right": [low[2], high[2], low[3], high[3]],
         "near": [True, True, False, False]}
    )  # fmt: skip
    with pytest.raises(InputError, match="no two pairs of cells lie in one tile of 240 um, so partners cannot be"):
        tl.attention(cells, model, pairs=pairs, min_pairs=2)


def test_partners_change_places_within_tiles():
    cells, tiles = np.arange(40).reshape(20, 2), np.repeat([3, 5, 8], [10, 9, 1])
    shuffles = list(_shuffled(cells, tiles, 5, 0))
    assert len(shuffles) == 5
    for other in shuffles:
        np.testing.assert_array_equal(other[:, 0], cells[:, 0])
        assert (other[:19, 1] != cells[:19, 1]).any()
        for tile in (3, 5, 8):
            assert set(other[tiles == tile, 1]) == set(cells[tiles == tile, 1])


def test_columns_are_those_of_the_model_and_of_the_counts(cells, model):
    tl.attention(cells, model, **TYPES, max_pairs=30, n_shuffles=3, n_agreement=2, by="head")
    stored = cells.uns["attention"]
    table = stored["table"].set_index(["direction", "query", "key"]).sort_index()
    # The pairs are those that perturb chooses for the same types and seed.
    chosen = PairChoice(**TYPES, max_pairs=30).of(cells, genes_of_cells(cells, cells.X, model, None))
    pairs = np.c_[chosen.left, chosen.right][chosen.near]
    plain, minus = (model.attention(cells, pairs, minus_alibi=flag) for flag in (False, True))
    row = table.loc[("right_to_left", "GENE2", "GENE5")]
    assert row["attention"] == pytest.approx(plain.weights["right_to_left"][2, 5], rel=1e-5)
    assert row["weight"] == pytest.approx(minus.weights["right_to_left"][2, 5], rel=1e-4, abs=1e-7)
    counts = cells.X.toarray()
    one, other = counts[pairs[:, 1], 2], counts[pairs[:, 0], 5]  # the query lies in the right cell
    assert row["detection"] == pytest.approx((one > 0).mean() * (other > 0).mean())
    assert row["correlation"] == pytest.approx(np.corrcoef(np.log1p(one), np.log1p(other))[0, 1])
    assert table.loc["within_left", "p"].isna().all()
    assert len(stored["by"]) == 4
    assert len(stored["agreement"]) == 2
    assert {"rho", "rho_position", "rho_detection"} <= set(stored["agreement"])
    assert set(stored["controls"]["direction"]) == {"left_to_right", "right_to_left", "within_left", "within_right"}
    assert "directed gene pairs" in sentence(stored)
    points, bars = pl.attention(cells)
    assert points.figure is bars.figure


def test_a_model_that_reads_cells_apart_says_so(cells):
    with pytest.raises(ValueError, match="no gene of one attends to one of the other"):
        tl.attention(cells, make_model("separate"), **TYPES)
    del cells.obs["tissue"]  # which is not asked for where it would not help
    with pytest.raises(ValueError, match="no gene of one attends to one of the other"):
        tl.attention(cells, make_model("separate"), **TYPES)
    with pytest.raises(ValueError, match="cannot show attention between genes"):
        tl.attention(cells, "starter", **TYPES)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "cell"}, "by must be one of mean, layer, head"),
        ({"n_shuffles": 2}, "n_shuffles must be at least 3"),
        ({"layers": [7]}, "layers must be from 0 to 1, not 7"),
        ({"right": "C"}, "has no cells of type 'C'"),
        ({"fdr": 0.0}, "fdr must be above 0"),
    ],
)
def test_wrong_input_is_one_sentence(cells, model, options, words):
    with pytest.raises(ValueError, match=words):
        tl.attention(cells, model, **{**TYPES, **options})
    assert "attention" not in cells.uns


def test_too_few_pairs_with_both_genes(cells, model):
    cells.X = sparse.csr_matrix(np.eye(400, GENES, dtype=np.float32) + np.eye(400, GENES, -200, dtype=np.float32))
    with pytest.raises(InputError, match=r"no pair of genes is in \d+ pairs of cells|least 10 of each are needed"):
        tl.attention(cells, model, **TYPES, n_shuffles=3)


def test_weights_against_shuffled_ones_follow_student():
    rng = np.random.default_rng(0)
    weight, shuffled = rng.normal(size=20_000), rng.normal(size=(9, 20_000))
    mean, t, p = against_shuffled(weight, shuffled)
    assert 0.045 < (p < 0.05).mean() < 0.055
    np.testing.assert_allclose(mean, shuffled.mean(axis=0))
    assert t[0] == pytest.approx((weight[0] - mean[0]) / (shuffled[:, 0].std(ddof=1) * np.sqrt(10 / 9)))


def test_shares_and_residuals_are_those_of_a_regression():
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(2, 300))
    weight = 1e-4 * one + 1e-4 * rng.normal(size=300)
    assert explained(weight, [one]) == pytest.approx(np.corrcoef(weight, one)[0, 1] ** 2)
    left = residual(weight, [one, other])
    assert abs(np.corrcoef(left, one)[0, 1]) < 1e-8
    other[3] = np.nan
    assert np.isnan(residual(weight, [one, other])[3])
    assert np.isnan(explained(weight[:2], [one[:2]]))


def test_looked_up_weights_and_rank_correlation():
    matrix = sparse.csr_array(np.array([[0, 2.0], [3.0, 4.0]]))
    n = sparse.csr_array(np.array([[0, 5], [1, 2]]))
    directions = ("left_to_right", "right_to_left", "within_left", "within_right")
    attention = GeneAttention(["a", "b"], dict.fromkeys(directions, matrix), dict.fromkeys(directions, n), 5, 0)
    of = GeneWeights.of(attention, "left_to_right")
    np.testing.assert_array_equal(of.weight_of(np.array([0, 1, 2, 3]), min_pairs=2), [np.nan, 2.0, np.nan, 4.0])
    one, other = np.random.default_rng(0).random((2, 20))
    assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert np.isnan(spearman(one, np.ones(20)))
    a, b = np.random.default_rng(1).random((2, 30, 4))
    assert correlations(a, b, np.array([2]), np.array([1]))[0] == pytest.approx(np.corrcoef(a[:, 2], b[:, 1])[0, 1])


def test_the_command_and_the_section(cells, model, tmp_path, monkeypatch, capsys):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    model.save_pretrained(tmp_path / "model")
    few = ("--max-pairs", 30, "--shuffles", 3, "--agreement", 1, "--by", "layer")
    types = ("--cell-type", "type", "--left", "A", "--right", "B")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["spaf-analysis", "attention", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0

    assert call(tmp_path / "cells.h5ad", "-m", tmp_path / "model", *types, *few, "-o", tmp_path / "a.csv") == 2
    assert "each layer (--by) would be lost" in capsys.readouterr().err
    out = tmp_path / "with.h5ad"
    assert call(tmp_path / "cells.h5ad", "-m", tmp_path / "model", *types, *few, "-o", out, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["by"]) == 2

    bare = cells.copy()
    bare.obs = bare.obs[["type"]]
    bare.write_h5ad(tmp_path / "bare.h5ad")
    assert call(tmp_path / "bare.h5ad", "-m", tmp_path / "model", *types, *few, "--json") == 2
    assert "--condition, --tissue, --species and --assay" in capsys.readouterr().err
    context = ("--condition", "D", "--tissue", "B", "--species", "H", "--assay", "X")
    assert call(tmp_path / "bare.h5ad", "-m", tmp_path / "model", *types, *few, *context, "--json") == 0
    assert json.loads(capsys.readouterr().out)["table"] == printed["table"]

    in_layer = cells.copy()
    in_layer.layers["counts"], in_layer.X = in_layer.X.copy(), in_layer.X / 3
    in_layer.write_h5ad(tmp_path / "layer.h5ad")
    words = (*types, *few, "--layer", "counts", "--json")
    assert call(tmp_path / "layer.h5ad", "-m", tmp_path / "model", *words) == 0
    assert json.loads(capsys.readouterr().out)["table"] == printed["table"]
    assert (
        call(tmp_path / "cells.h5ad", "-m", tmp_path / "model", *types, *few, "--layers", 1, "--heads", 0, "--json")
        == 0
    )
    assert json.loads(capsys.readouterr().out)["table"] != printed["table"]

    class Found:
        adata = ad.read_h5ad(out)

    made = AttentionSection.compute(Found())
    assert made.numbers()["attention"]["n_tested"] == printed["n_tested"]
    assert "directed gene pairs" in made.view()["said"]

    class Nothing:
        adata = cells

    assert AttentionSection.compute(Nothing()).stored is None


def test_cells_on_disk_and_what_is_no_count(cells, model, tmp_path):
    few = {"max_pairs": 30, "n_shuffles": 3, "n_agreement": 1}
    cells.write_h5ad(tmp_path / "cells.h5ad")
    on_disk = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    for table in (cells, on_disk):
        tl.attention(table, model, **TYPES, **few)
    one, other = (table.uns["attention"]["table"] for table in (cells, on_disk))
    pd.testing.assert_frame_equal(one, other)
    on_disk.file.close()
    for value, words in ((np.nan, "Counts must be finite"), (-1.0, "negative")):
        cells.X.data[5] = value
        with pytest.raises(InputError, match=words):
            tl.attention(cells, Attends(0.0), **TYPES, **few)
