import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from typer.testing import CliRunner

import spaf_analysis as spaf
from spaf_analysis import InputError
from spaf_analysis.annotate import METHODS, annotate_arrays
from spaf_analysis.cli import app
from spaf_model import TissueModel, load_model

N_GENES = 60


def cells(n: int, seed: int, *, kinds: int = 4, clear: float = 1.0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    profile = np.random.default_rng(7).lognormal(0.0, clear, (kinds, N_GENES))
    code = rng.integers(0, kinds, n)
    counts = rng.poisson(profile[code] * rng.gamma(5.0, 0.2, (n, 1)))
    table = ad.AnnData(counts.astype(np.float32), obs=pd.DataFrame(index=[f"c{i}" for i in range(n)]))
    table.obs["kind"] = [f"kind {one}" for one in code]
    table.var_names = [f"G{gene}" for gene in range(N_GENES)]
    table.obsm["spatial"] = rng.uniform(0.0, 1000.0, (n, 2))
    table.obsm["X_other"] = np.eye(kinds)[code] + rng.normal(0.0, 0.1, (n, kinds))
    return table


def test_labels_are_carried_over():
    reference, query = cells(300, 0), cells(120, 1)
    query = query[:, ::-1].copy()
    found = spaf.tl.annotate(query, reference, "kind", unknown=0.0)
    assert f1_score(query.obs["kind"], query.obs["label_pred"].astype(str), average="macro") > 0.95
    np.testing.assert_allclose(query.obs["label_pred_probability"], found.probabilities.max(axis=1))
    assert found.method == found.judged["method"].iloc[0]
    assert set(found.judged["method"]) == {"log counts", "PCA", "k-NN"}
    assert query.uns["label_pred"]["share_unknown"] == 0.0


def test_an_embedding_that_says_it_all_is_chosen():
    reference, query = cells(200, 0, clear=0.1), cells(80, 1, clear=0.1)
    found = spaf.tl.annotate(query, reference, "kind", key="X_other")
    assert set(found.judged["method"]) == set(METHODS)
    assert found.method in ("embedding", "embedding and log counts")
    assert found.judged["macro_f1"].is_monotonic_decreasing
    assert (query.obs["label_pred"].astype(str) == query.obs["kind"]).mean() > 0.8


def test_a_model_embeds_both_tables_on_the_same_axes(tmp_path):
    reference, query = cells(200, 0), cells(80, 1)
    TissueModel.fit(reference).save_pretrained(tmp_path / "model")
    model = load_model(tmp_path / "model")
    before = set(query.obsm)
    found = spaf.tl.annotate(query, reference, "kind", method="embedding", model=model, unknown=0.0)
    assert (query.obs["label_pred"].astype(str) == query.obs["kind"]).mean() > 0.9
    assert set(query.obsm) == before
    asked, known = query.copy(), reference.copy()
    for table in (asked, known):  # by default a model of one slide gives each table axes of its own
        model.embed(table, method="fixed")
    given = spaf.tl.annotate(asked, known, "kind", method="embedding", key="X_SpaF", unknown=0.0)
    np.testing.assert_allclose(found.probabilities, given.probabilities, atol=1e-5)


def test_held_out_scores_are_those_of_scikit_learn():
    reference, query = cells(200, 0, clear=0.3), cells(10, 1)
    found = spaf.tl.annotate(query, reference, "kind", method="log counts")
    confusion = found.confusion.to_numpy()
    labels = np.repeat(np.repeat(np.arange(4), 4), confusion.ravel())
    predicted = np.repeat(np.tile(np.arange(4), 4), confusion.ravel())
    np.testing.assert_allclose(found.per_class["f1"], f1_score(labels, predicted, average=None))
    assert found.judged["macro_f1"].iloc[0] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert confusion.sum() == reference.n_obs


def test_shuffled_labels_are_not_learnt():
    reference, query = cells(300, 0), cells(50, 1)
    reference.obs["kind"] = np.random.default_rng(3).permutation(reference.obs["kind"].to_numpy())
    found = spaf.tl.annotate(query, reference, "kind")
    assert found.judged["accuracy"].max() < 0.4
    assert found.probabilities.max(axis=1).mean() < 0.5


def test_probabilities_mean_what_they_say():
    reference, query = cells(600, 0, clear=0.25), cells(600, 1, clear=0.25)
    found = spaf.tl.annotate(query, reference, "kind", method="log counts", unknown=0.0)
    right = query.obs["label_pred"].astype(str).to_numpy() == query.obs["kind"].to_numpy()
    assert query.obs["label_pred_probability"].mean() == pytest.approx(right.mean(), abs=0.06)
    bins = found.reliability[found.reliability["n"] >= 60]
    assert (bins["probability"] - bins["right"]).abs().max() < 0.15


def test_the_least_certain_are_unknown_and_what_is_left_is_better():
    reference, query = cells(600, 0, clear=0.25), cells(600, 1, clear=0.25)
    found = spaf.tl.annotate(query, reference, "kind", unknown=0.3)
    share = (query.obs["label_pred"] == "unknown").mean()
    assert share == pytest.approx(0.3, abs=0.08)
    known = query[query.obs["label_pred"] != "unknown"]
    assert (known.obs["label_pred"].astype(str) == known.obs["kind"]).mean() > found.rejection["accuracy"].iloc[0]
    assert found.rejection["accuracy"].iloc[-1] > found.rejection["accuracy"].iloc[0]
    assert found.rejection["threshold"].is_monotonic_increasing


def test_a_query_that_is_unlike_the_reference_is_said_to_be(caplog):
    reference, query = cells(300, 0), cells(100, 1)
    spaf.tl.annotate(query, reference, "kind")
    assert not caplog.records
    query.X = np.random.default_rng(5).poisson(1.0, query.shape).astype(np.float32)
    spaf.tl.annotate(query, reference, "kind")
    assert "where 5 % of the held-out cells of the reference would be" in caplog.text


def test_cells_without_counts_are_unknown_and_teach_nothing(caplog):
    reference, query = cells(200, 0), cells(60, 1)
    query.X[:7], reference.X[:9] = 0.0, 0.0
    spaf.tl.annotate(query, reference, "kind", method="log counts", unknown=0.0)
    assert (query.obs["label_pred"].astype(str) == "unknown").tolist() == [True] * 7 + [False] * 53
    assert query.obs["label_pred_probability"].isna().sum() == 7
    assert query.uns["label_pred"]["n_reference"] == 191
    assert "7 cells of the query have no counts and are called unknown." in caplog.text


def test_a_class_called_unknown_is_no_class(caplog):
    reference, query = cells(200, 0), cells(60, 1)
    reference.obs.loc[reference.obs["kind"] == "kind 0", "kind"] = "unknown"
    found = spaf.tl.annotate(query, reference, "kind", method="log counts", unknown=0.0)
    assert found.classes == ["kind 1", "kind 2", "kind 3"]
    assert "that is no class, and they are left out" in caplog.text


def test_a_reference_without_two_cells_of_a_class():
    reference = cells(80, 0)
    reference.obs["own"] = reference.obs_names
    with pytest.raises(InputError, match="no class of obs.'own'. of the reference has two cells"):
        spaf.tl.annotate(cells(20, 1), reference, "own")
    reference.obsm["spatial"][3, 0] = np.nan
    with pytest.raises(InputError, match="holds coordinates that are not finite"):
        spaf.tl.annotate(cells(20, 1), reference, "kind")


def test_whole_donors_are_held_out():
    reference, query = cells(200, 0), cells(20, 1)
    reference.obs["donor"] = np.repeat(["a", "b"], 100)
    # A donor whose labels mean something else: nothing of the other one tells them.
    turned = {f"kind {one}": f"kind {(one + 1) % 4}" for one in range(4)}
    kinds = reference.obs["kind"].to_numpy().copy()
    kinds[100:] = [turned[one] for one in kinds[100:]]
    reference.obs["kind"] = kinds
    assert spaf.tl.annotate(query, reference, "kind", donor="donor").judged["accuracy"].max() < 0.3


def test_cells_without_a_label_teach_nothing_and_a_rare_class_is_kept():
    reference, query = cells(200, 0), cells(50, 1)
    kinds = reference.obs["kind"].astype(object)
    kinds.iloc[0], kinds.iloc[1:40] = "rare", np.nan
    reference.obs["kind"] = kinds
    found = spaf.tl.annotate(query, reference, "kind")
    assert "rare" in found.classes
    assert query.uns["label_pred"]["n_reference"] == 161
    assert found.confusion.to_numpy().sum() == 161


def test_two_runs_are_equal_and_other_genes_do_not_matter():
    reference, query = cells(150, 0), cells(40, 1)
    del reference.obsm["spatial"]
    first = spaf.tl.annotate(query, reference, "kind")
    more = ad.concat(
        [query, ad.AnnData(np.ones((40, 3), np.float32), obs=query.obs[[]], var=pd.DataFrame(index=list("xyz")))],
        axis=1,
    )
    more.obs = query.obs[["kind"]].copy()
    second = spaf.tl.annotate(more, reference, "kind")
    np.testing.assert_array_equal(first.probabilities, second.probabilities)


def test_what_cannot_be_used_is_said():
    reference, query = cells(100, 0), cells(30, 1)

    def fails(match: str, **options: object) -> None:
        with pytest.raises(InputError, match=match):
            spaf.tl.annotate(query, reference, **({"label": "kind"} | options))
        assert "label_pred" not in query.obs
        assert "label_pred" not in query.uns

    fails("no column 'type'", label="type")
    fails("there is no method 'tree'; the methods are: auto, log counts", method="tree")
    fails("method 'embedding' needs an embedding", method="embedding")
    fails("share of cells called unknown must be at least 0 and below 1", unknown=1.0)
    fails("obsm of the reference has no embedding 'X_none'; it has: spatial, X_other", key="X_none")
    query.obsm["X_other"] = query.obsm["X_other"][:, :2]
    fails("4 dimensions in the reference and 2 in the query", key="X_other")
    fails("no column 'patient'", donor="patient")
    query.X = np.log1p(query.X)
    fails(r"the query: .*log.*; raw counts are needed: in X, or in a layer that is named with layer \(--layer\)")
    whole, reference.X = reference.X, np.log1p(reference.X)
    fails(r"the reference: .*a layer that is named with reference_layer \(--reference-layer\)")
    reference.X = whole
    query = cells(30, 1)
    query.var_names = [f"other{gene}" for gene in range(N_GENES)]
    fails("share less than 5%")
    query = cells(30, 1)
    query.obs_names = ["same"] * 30
    fails("have the name of another one")
    query = cells(30, 1)
    reference.obs["kind"] = "one"
    fails("holds only 'one'")


def test_arrays_with_no_method_of_that_name():
    values = {"log counts": np.zeros((4, 2), np.float32)}
    with pytest.raises(InputError, match="there is no method 'PCA' here; the methods are: auto, log counts"):
        annotate_arrays(values, np.array([0, 1]), ["a", "b"], np.array([0, 1]), method="PCA")


def test_picture_and_command(tmp_path):
    reference, query = cells(150, 0), cells(40, 1)
    with pytest.raises(InputError, match="no record of labels 'label_pred'"):
        spaf.pl.label_confusion(query)
    query.write_h5ad(tmp_path / "query.h5ad")
    reference.write_h5ad(tmp_path / "ref.h5ad")
    words = ["annotate", str(tmp_path / "query.h5ad"), "--reference", str(tmp_path / "ref.h5ad"), "--label", "kind"]
    ran = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out.h5ad"), "--json", "--key", "X_other"])
    assert ran.exit_code == 0, ran.output
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    assert spaf.pl.label_confusion(written).get_xlabel() == "predicted"
    assert spaf.pl.label_reliability(written).get_xlabel() == "probability of the label"
    assert CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out.csv"), "--method", "PCA"]).exit_code == 0
    assert list(pd.read_csv(tmp_path / "out.csv").columns) == ["cell", "label", "probability"]
