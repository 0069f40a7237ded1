import importlib.util

import anndata as ad
import numpy as np
import pytest

from spaf_analysis import InputError, pl, tl
from spaf_analysis.integrate import baselines, tool
from spaf_analysis.integrate.baselines import centred, components, harmony

needs_harmony = pytest.mark.skipif(importlib.util.find_spec("harmonypy") is None, reason="the extra is not installed")


@pytest.fixture(scope="module")
def integrated(batches):
    adata = batches.copy()
    tl.integrate(adata, batch="batch", label="kind", use_harmony=False, centre=True, n_replicates=50)
    return adata


def row(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    return table.iloc[0]


def test_rows_and_what_they_say(integrated):
    scores = integrated.uns["integration"]["scores"].set_index("method")
    assert list(scores.index) == [
        "embedding", "embedding, centred", "PCA", "scaled PCA", "HVG + PCA", "random projection", "random numbers",
    ]  # fmt: skip
    assert scores.loc["embedding", "purity"] > 0.95 > 0.6 > scores.loc["random numbers", "purity"]
    assert scores.loc["embedding", "ari"] > 0.9
    assert scores.loc["embedding", "cilisi"] > scores.loc["PCA", "cilisi"]
    assert scores.loc["PCA", "pcr"] > scores.loc["embedding", "pcr"]
    assert scores.loc["embedding, centred", "pcr"] == pytest.approx(0, abs=1e-9)
    assert scores.loc["PCA", "pcr_comparison"] == 0
    of_ours = scores.loc["embedding"]
    assert of_ours["avg_bio"] == pytest.approx(np.mean(of_ours[["nmi", "ari", "asw_label"]].to_numpy(dtype=float)))
    assert of_ours["avg_batch"] == pytest.approx(
        np.mean(of_ours[["asw_batch", "graph_connectivity"]].to_numpy(dtype=float))
    )
    assert (scores["nmi"] >= scores["nmi_default"] - 1e-12).all()
    for metric in ("nmi", "ari", "purity", "cilisi", "graph_connectivity", "pcr", "ilisi"):
        assert (scores[f"{metric}_low"] <= scores[f"{metric}_high"]).all()


def test_random_numbers_are_never_preferred(integrated):
    """They mix perfectly, and cost identity."""
    stored = integrated.uns["integration"]
    random = stored["differences"][stored["differences"]["method"] == "random numbers"]
    assert "better" not in set(random["verdict"])
    assert row(random, metric="cilisi")["verdict"] == "costs identity"
    assert row(random, metric="avg_batch")["verdict"] == "for comparison"
    assert row(stored["overall"], method="random numbers")["verdict"] == "worse"
    assert row(stored["overall"], method="embedding")["verdict"] == "better"
    assert row(stored["differences"], method="embedding", metric="pcr")["verdict"] == "better"


def test_embeddings_are_kept_and_meaningless_ones_not(integrated, batches):
    assert {"X_SpaF_centred", "integration_pca", "integration_scaled_pca", "integration_hvg_pca"} <= set(
        integrated.obsm
    )
    assert not any("random" in key for key in integrated.obsm)
    np.testing.assert_array_equal(integrated.obsm["X_SpaF"], batches.obsm["X_SpaF"])
    code = integrated.obs["batch"].cat.codes.to_numpy()
    for one in range(3):
        np.testing.assert_allclose(integrated.obsm["X_SpaF_centred"][code == one].mean(axis=0), 0, atol=1e-5)


def test_the_same_each_time_and_drawn(integrated, batches):
    again = batches.copy()
    tl.integrate(again, batch="batch", label="kind", use_harmony=False, centre=True, n_replicates=50)
    assert again.uns["integration"]["scores"].equals(integrated.uns["integration"]["scores"])
    assert pl.integration(integrated).get_title(loc="left") == "Integration"
    with pytest.raises(InputError, match="has no metric 'speed'; it has: nmi, ari"):
        pl.integration(integrated, mixing="speed")
    with pytest.raises(InputError, match="uns has no integration 'integration'"):
        pl.integration(batches)


def test_without_labels_mixing_is_measured_and_not_judged(batches):
    adata = batches.copy()
    tl.integrate(adata, batch="batch", use_harmony=False, n_replicates=20)
    stored = adata.uns["integration"]
    assert "purity" not in stored["scores"]
    assert np.isfinite(stored["scores"][["ilisi", "pcr"]]).all(axis=None)
    assert set(stored["differences"]["verdict"]) == {"not judged"}
    assert not len(stored["overall"])
    assert any("mixing is measured and not judged" in note for note in stored["notes"])


def test_cells_that_are_left_out_are_said(batches):
    adata = batches.copy()
    adata.obsm["X_SpaF"] = adata.obsm["X_SpaF"].copy()
    adata.obsm["X_SpaF"][:7] = np.nan
    adata.obs["kind"] = adata.obs["kind"].astype(str)
    adata.obs.loc[adata.obs_names[10:13], "kind"] = "nan"
    adata.obs.loc[adata.obs_names[20], "kind"] = "rare"
    tl.integrate(adata, batch="batch", label="kind", use_harmony=False, n_replicates=20, max_cells=200)
    stored = adata.uns["integration"]
    notes = " ".join(stored["notes"])
    assert "7 of 360 cells are left out: they have no finite embedding." in notes
    assert "3 cells without a label count for no metric of labels." in notes
    assert "Labels with one cell say nothing of mixing, and have no neighbour of their own: rare." in notes
    assert "200 of 353 cells, drawn by the seed, are judged." in notes
    assert stored["n_cells"] == 200
    assert np.isfinite(stored["scores"].drop(columns="method").to_numpy(dtype=float)).mean() > 0.95
    assert np.isnan(adata.obsm["integration_pca"][:7]).all()
    assert np.isfinite(adata.obsm["integration_pca"][7:]).all()


def test_tiles_are_drawn_where_there_are_places(batches):
    adata = batches.copy()
    adata.obsm["spatial"] = np.random.default_rng(0).random((adata.n_obs, 2)) * 500
    tl.integrate(adata, batch="batch", use_harmony=False, n_replicates=20)
    assert adata.uns["integration"]["unit"] == "tiles"
    assert adata.uns["integration"]["n_units"] < adata.n_obs


@needs_harmony
def test_harmony_mixes_what_components_part(batches):
    adata = batches.copy()
    tl.integrate(adata, batch="batch", label="kind", use_harmony=True, n_replicates=30)
    scores = adata.uns["integration"]["scores"].set_index("method")
    assert scores.loc["PCA + Harmony", "cilisi"] > scores.loc["PCA", "cilisi"] + 0.1
    assert set(adata.uns["integration"]["differences"]["baseline"]) == {"PCA", "PCA + Harmony"}
    assert adata.obsm["integration_pca_harmony"].shape == adata.obsm["integration_pca"].shape
    assert "X_SpaF_harmony" in adata.obsm
    code = adata.obs["batch"].cat.codes.to_numpy()
    np.testing.assert_array_equal(harmony(adata.obsm["X_SpaF"], code), harmony(adata.obsm["X_SpaF"], code))


def test_without_the_extra_harmony_is_a_sentence(batches, monkeypatch):
    for module in (tool, baselines):
        monkeypatch.setattr(module, "has_harmony", lambda: False)
    with pytest.raises(InputError, match=r"pip install 'spaf-analysis\[integration\]'"):
        tl.integrate(batches.copy(), batch="batch", use_harmony=True)
    with pytest.raises(InputError, match="needs the extra"):
        harmony(np.zeros((40, 2)), np.arange(40) % 2)
    adata = batches.copy()
    tl.integrate(adata, batch="batch", n_replicates=10)
    assert any("Harmony was not run" in note for note in adata.uns["integration"]["notes"])


def test_components_of_many_genes_are_those_of_few(monkeypatch, batches):
    few = components(batches.X.astype(float), n_components=3)
    monkeypatch.setattr(baselines, "_MOST_FOR_COVARIANCE", 10)
    many = components(batches.X.astype(float), n_components=3)
    np.testing.assert_allclose(np.abs(few), np.abs(many), atol=1e-5)
    monkeypatch.setattr(baselines, "_MOST_SCALED", 10)
    assert baselines._scaled(batches.X.tocsr()).shape == (360, 10)
    assert np.abs(centred(few, np.zeros(360, int)).mean(axis=0)).max() < 1e-12


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (None, {"batch": "none"}, "obs has no column 'none' \\(batch\\); it has: kind, batch"),
        (None, {"label": "none"}, "obs has no column 'none' \\(label\\)"),
        (None, {"key": "X_none"}, "obsm has no embedding 'X_none'; it has: X_SpaF"),
        ("one batch", {}, "obs column 'batch' \\(batch\\) holds only 'same'; at least 2"),
        ("one class", {}, "obs column 'kind' \\(label\\) holds only 'same'; at least 2"),
        ("no embedding", {}, "only 0 cells have an embedding"),
        ("few", {}, "only 20 cells have an embedding and a batch; at least 30"),
        ("one embedded", {}, "all cells with an embedding are of batch 'b0'"),
        ("many", {}, "obs column 'kind' \\(label\\) has 20,000 different values|has 600 different values"),
    ],
)
def test_wrong_input_is_one_sentence(batches, change, options, sentence):
    adata = batches.copy()
    adata.obsm["X_SpaF"] = adata.obsm["X_SpaF"].copy()
    if change == "one batch":
        adata.obs["batch"] = "same"
    elif change == "one class":
        adata.obs["kind"] = "same"
    elif change == "no embedding":
        adata.obsm["X_SpaF"][:] = np.nan
    elif change == "few":
        adata = adata[:20].copy()
    elif change == "one embedded":
        adata.obsm["X_SpaF"][adata.obs["batch"].to_numpy() != "b0"] = np.nan
    elif change == "many":
        adata = ad.concat([adata, adata], index_unique="-")
        adata.obs["kind"] = [f"k{cell % 600}" for cell in range(adata.n_obs)]
    with pytest.raises(InputError, match=sentence):
        tl.integrate(adata, **{"batch": "batch", "label": "kind", "use_harmony": False, **options})


def test_labels_that_are_the_batches_are_said_to_be(batches):
    adata = batches.copy()
    adata.obs["same"] = ["label of " + name for name in adata.obs["batch"]]
    tl.integrate(adata, batch="batch", label="same", use_harmony=False, n_replicates=5)
    assert any("one and the same division of the cells" in note for note in adata.uns["integration"]["notes"])
    tl.integrate(adata, batch="batch", label="kind", use_harmony=False, n_replicates=5)
    assert not any("one and the same" in note for note in adata.uns["integration"]["notes"])
