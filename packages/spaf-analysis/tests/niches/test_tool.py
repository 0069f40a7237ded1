import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from spaf_analysis import InputError, judge_niches, pl, tl
from spaf_analysis.niches import agreement, find_domains


def truth(adata, key="spaf_niche"):
    return adjusted_rand_score(adata.obs["region"], adata.obs[key])


@pytest.mark.parametrize("inputs", ["both", "embedding", "expression"])
def test_planted_niches_are_found_alike_in_all_slides(tissues, inputs):
    adata = tissues.copy()
    tl.niches(adata, n_domains=3, inputs=inputs)
    assert truth(adata) > 0.75
    for slide in ("s0", "s1"):
        assert truth(adata[adata.obs["slide"] == slide]) > 0.75
    assert list(adata.obs["spaf_niche"].cat.categories) == ["1", "2", "3"]
    assert adata.obs["spaf_niche"].value_counts(sort=False).is_monotonic_decreasing
    state = adata.obsm["X_SpaF_niche"]
    assert state.dtype == np.float32
    assert state.shape[1] == 3 * {"embedding": 3, "expression": 14, "both": 17}[inputs]
    assert adata.uns["spaf_niche"]["parameters"]["inputs"] == inputs


def test_a_state_that_something_else_wrote_is_not_replaced_in_silence(tissues, caplog):
    adata = tissues.copy()
    tl.niches(adata, n_domains=2, inputs="embedding")
    tl.niches(adata, n_domains=3, inputs="embedding")
    assert not caplog.records
    del adata.uns["spaf_niche"]
    tl.niches(adata, n_domains=3, inputs="embedding")
    assert [record.getMessage() for record in caplog.records] == [
        "obsm['X_SpaF_niche'], which another analysis wrote, is replaced by the state of niches."
    ]


def test_the_number_of_niches_is_the_one_halves_agree_on(tissues):
    adata = tissues.copy()
    tl.niches(adata, inputs="embedding")
    found = adata.uns["spaf_niche"]
    assert found["is_chosen"]
    assert found["n_domains"] == 3
    assert found["stability"].set_index("n_domains")["stability"][3] > 0.85
    assert truth(adata) > 0.75


@pytest.mark.parametrize("method", ["kmeans", "mixture"])
def test_niches_are_the_same_in_whatever_order_the_cells_are(tissues, method):
    order = np.random.default_rng(0).permutation(tissues.n_obs)
    adata, shuffled = tissues.copy(), tissues[order].copy()
    for table in (adata, shuffled):
        tl.niches(table, n_domains=9, method=method)
    assert (adata.obs["spaf_niche"].to_numpy()[order] == shuffled.obs["spaf_niche"].to_numpy()).all()


def test_mixtures_find_the_niches_too(tissues):
    adata = tissues.copy()
    tl.niches(adata, inputs="embedding", n_domains=3, method="mixture", key_added="mixed", state_key_added="state")
    assert truth(adata, "mixed") > 0.7
    assert "X_SpaF_niche" not in adata.obsm


def test_all_cells_are_assigned_where_some_are_fitted(tissues):
    adata = tissues.copy()
    tl.niches(adata, n_domains=3)
    state = adata.obsm["X_SpaF_niche"]
    some = find_domains(state, 3, np.zeros(len(state), int), max_fitted=300)
    assert len(some.code) == len(state)
    assert adjusted_rand_score(adata.obs["spaf_niche"], some.code) > 0.9


def test_niches_are_the_same_each_time_and_in_any_order_of_cells(tissues):
    first, second = tissues.copy(), tissues.copy()
    tl.niches(first, n_domains=3)
    tl.niches(second, n_domains=3)
    assert first.obs["spaf_niche"].equals(second.obs["spaf_niche"])
    mixed = tissues[np.random.default_rng(0).permutation(tissues.n_obs)].copy()
    tl.niches(mixed, n_domains=3)
    assert adjusted_rand_score(first.obs["spaf_niche"], mixed.obs["spaf_niche"][first.obs_names]) > 0.99


def test_cells_without_an_embedding_have_no_niche(tissues):
    adata = tissues.copy()
    adata.obsm["X_SpaF"] = adata.obsm["X_SpaF"].copy()
    adata.obsm["X_SpaF"][5] = np.nan
    tl.niches(adata, n_domains=3)
    assert np.flatnonzero(adata.obs["spaf_niche"].isna()).tolist() == [5]
    assert np.isnan(adata.obsm["X_SpaF_niche"]).all(axis=1).nonzero()[0].tolist() == [5]
    judged = judge_niches(adata, "region", seeds=[0], n_replicates=20)
    assert np.isfinite(judged["ari"]).all()


def test_niches_are_judged_beside_baselines(tissues):
    judged = judge_niches(tissues, "region", seeds=[0, 1], n_replicates=100).set_index("method")
    assert list(judged.index) == [
        "niches, both", "niches, embedding", "niches, expression", "PCA", "PCA averaged twice", "joint Leiden",
        "composition of clusters",
    ]  # fmt: skip
    assert (judged.loc[["niches, both", "niches, embedding"], "ari"] > 0.7).all()
    assert judged.loc["PCA", "ari"] < 0.5
    assert judged.loc["PCA", "ari_verdict"] == "worse"
    assert judged.loc["PCA averaged twice", "ari_verdict"] == "baseline"
    assert judged.loc["PCA averaged twice", "ari_minus_baseline"] == 0
    assert (judged["ari_low"] <= judged["ari"]).all()
    assert (judged["nmi"] <= judged["nmi_high"] + 0.02).all()


def test_without_an_embedding_the_expression_is_judged(tissues):
    adata = tissues.copy()
    del adata.obsm["X_SpaF"]
    judged = judge_niches(adata, "region", seeds=[0], n_replicates=10)
    assert judged["method"].tolist()[0] == "niches, expression"
    assert len(judged) == 5


def test_agreement_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(5):
        one, other = rng.integers(0, 5, 200), rng.integers(0, 4, 200)
        other[:80] = one[:80] % 4
        table = np.zeros((5, 4))
        np.add.at(table, (one, other), 1)
        found = agreement(np.stack([table, table.T[:, [0, 1, 2, 3, 4]].T]))
        assert found["ari"][0] == pytest.approx(adjusted_rand_score(one, other))
        assert found["nmi"][0] == pytest.approx(normalized_mutual_info_score(one, other))
    assert agreement(np.array([[7.0]])) == {"ari": 1.0, "nmi": 1.0}


def test_conditions_are_compared_by_donor(patients):
    adata = patients.copy()
    adata.obs["spaf_niche"] = adata.obs["region"]
    tl.niche_differences(adata, condition="condition", donor="donor", cell_type="type")
    found = adata.uns["spaf_niche_differences"]
    assert (found["first"], found["second"], found["n_first"], found["n_second"]) == ("ill", "well", 5, 5)
    assert found["smallest_p"] == pytest.approx(2 / 252)
    table = found["table"]
    of_types = table[table["kind"] == "composition"]
    best = of_types.iloc[0]
    assert best["niche"] == "n1"
    assert best["p_adjusted"] < 0.05
    more = of_types[(of_types["niche"] == "n1") & (of_types["feature"] == "t0")].iloc[0]
    assert more["first"] == pytest.approx(0.35, abs=0.1)
    assert more["difference"] == pytest.approx(0.25, abs=0.1)
    assert (of_types.loc[of_types["niche"] != "n1", "p_adjusted"] > 0.05).all()
    gene = table[table["kind"] == "gene"].iloc[0]
    assert (gene["niche"], gene["feature"]) == ("n1", "G6")
    assert gene["p_adjusted"] < 0.05
    assert (table.loc[table["kind"] == "abundance", "p_adjusted"] > 0.05).all()
    assert pl.niche_differences(adata, kind="gene").get_yticklabels()[0].get_text() == "n1  G6"


def test_logarithms_are_not_compared(patients):
    adata = patients.copy()
    adata.obs["spaf_niche"] = adata.obs["region"]
    adata.X = np.log1p(sparse.csr_matrix(adata.X).toarray())
    with pytest.raises(InputError, match="the table: .*log"):
        tl.niche_differences(adata, condition="condition", donor="donor")
    assert "spaf_niche_differences" not in adata.uns


def test_niches_are_drawn(tissues):
    adata = tissues.copy()
    tl.niches(adata, n_domains=3)
    assert pl.niches(adata, slide="s0").get_title(loc="left") == "spaf_niche, s0"
    axes = pl.niche_composition(adata, "type")
    shares = np.asarray(axes.images[0].get_array())
    assert shares.shape == (3, 3)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    with pytest.raises(InputError, match="uns has no differences of niches"):
        pl.niche_differences(adata)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"key": "X_none"}, "obsm has no embedding 'X_none'; it has: spatial, X_SpaF"),
        ({"inputs": "genes"}, "inputs must be one of both, embedding, expression, not 'genes'"),
        ({"method": "leiden"}, "method must be one of kmeans, mixture, not 'leiden'"),
        ({"n_domains": 1}, "n_domains must be from 2 to the number of cells"),
        ({"n_neighbors": 0}, "n_neighbors must be at least 1, not 0"),
        ({"radius": 2.0}, "radius 2 reaches no other cell for most cells: .*is it in pixels"),
        ({"radius": -1.0}, "radius must be above 0 um, not -1"),
        ({"key_added": "a/b"}, "must not be empty or hold '/'"),
    ],
)
def test_wrong_options_are_one_sentence(tissues, options, sentence):
    with pytest.raises(InputError if "key_added" not in options else ValueError, match=sentence):
        tl.niches(tissues.copy(), **{"n_domains": 3, **options})


def test_wrong_columns_are_one_sentence(tissues, patients):
    adata = tissues.copy()
    adata.obs["one"] = "same"
    adata.obs["many"] = [f"c{cell}" for cell in range(adata.n_obs)]
    with pytest.raises(InputError, match="obs has no column 'none' \\(label\\); it has: slide"):
        judge_niches(adata, "none")
    with pytest.raises(InputError, match="obs column 'one' \\(label\\) holds only 'same'; at least 2"):
        judge_niches(adata, "one")
    with pytest.raises(InputError, match="obs column 'many' \\(label\\) has 1,152 different values .* at most 500"):
        judge_niches(adata, "many")
    adata.obs["spaf_niche"] = adata.obs["region"]
    with pytest.raises(InputError, match="condition 'ill' has 1 donor; at least 2 of each"):
        tl.niche_differences(adata, condition="condition", donor="donor")
    with pytest.raises(InputError, match="has 3 conditions; say with contrast which two to compare: n0, n1, n2"):
        tl.niche_differences(adata, condition="region", donor="donor")
    with pytest.raises(InputError, match="donor 'd0' has both conditions 'n0' and 'n1'"):
        tl.niche_differences(adata, condition="region", donor="donor", contrast=("n0", "n1"))
    with pytest.raises(InputError, match="has no condition 'sick'; it has: ill, well"):
        tl.niche_differences(adata, condition="condition", donor="donor", contrast=("sick", "well"))
    with pytest.raises(InputError, match="names the condition 'ill' twice"):
        tl.niche_differences(adata, condition="condition", donor="donor", contrast=("ill", "ill"))
