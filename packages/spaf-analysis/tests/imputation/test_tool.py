from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial import cKDTree
from spatialdata import SpatialData
from typer.testing import CliRunner

import spaf_analysis as spaf
from spaf_analysis import InputError
from spaf_analysis.cli import app
from spaf_analysis.imputation import imputed_table, write_imputed
from spaf_analysis.imputation.section import ImputationSection
from spaf_model import ScGPTSpatial, ScGPTSpatialConfig, Vocabulary


def test_the_result_says_what_it_is(tables):
    spatial, reference = tables
    imputed = spaf.tl.impute(spatial, reference, counts=True, neighbourhood=True)
    assert sorted(imputed.var_names) == sorted(f"G{gene}" for gene in range(60, 90))
    assert list(imputed.obs_names) == list(spatial.obs_names)
    assert list(imputed.var) == ["measured", "accuracy", "expected", "expected_low", "expected_high"]
    np.testing.assert_array_equal(imputed.obsm["spatial"], spatial.obsm["spatial"])
    record = spatial.uns["imputation"]
    assert record["n_shared_genes"] == 60
    assert record["n_imputed"] == 30
    assert "log1p" in imputed.uns["imputation"]["X"]
    depth = np.asarray(reference.X.sum(axis=1))
    mean = (reference[:, imputed.var_names].X.toarray() / depth).mean(axis=0) * np.median(depth)
    np.testing.assert_allclose(imputed.layers["counts"].mean(axis=0), mean, rtol=1e-4)
    exponentials = np.expm1(np.maximum(imputed.X, 0))
    by_hand = exponentials * mean / exponentials.mean(axis=0)
    np.testing.assert_allclose(imputed.layers["counts"], by_hand, rtol=1e-3, atol=1e-5)
    nearest = cKDTree(spatial.obsm["spatial"]).query(spatial.obsm["spatial"], k=11)[1][:, 1:]
    np.testing.assert_allclose(imputed.layers["neighbourhood"], imputed.X[nearest].mean(axis=1), atol=1e-4)


def test_a_neighbourhood_is_of_one_slide(tables):
    spatial, reference = tables
    spatial.obs["slide"] = ["alone", *["other"] * 499]
    imputed = spaf.tl.impute(spatial, reference, genes=["G70"], neighbourhood=True)
    around = imputed.layers["neighbourhood"][:, 0]
    assert np.isnan(around[0])
    assert np.isfinite(around[1:]).all()


def test_genes_that_are_named(tables):
    spatial, reference = tables
    imputed = spaf.tl.impute(spatial, reference, genes=["G80", "G61"], method="ridge")
    assert list(imputed.var_names) == ["G80", "G61"]
    with_measured = spaf.tl.impute(spatial, reference, genes=["G80", "G1"], measured=True, method="ridge")
    assert list(with_measured.var_names) == ["G1", "G80"]
    assert list(with_measured.var["measured"]) == [True, False]
    every = spaf.tl.impute(spatial, reference, measured=True, method="ridge")
    assert every.var["measured"].sum() == 60
    assert spatial.uns["imputation"]["n_not_predicted"] == 0
    np.testing.assert_allclose(with_measured["c3", "G1"].X, every["c3", "G1"].X, atol=1e-5)
    with pytest.raises(InputError, match="the reference has no gene NONE"):
        spaf.tl.impute(spatial, reference, genes=["NONE"])
    with pytest.raises(InputError, match="gene 'G1' was measured"):
        spaf.tl.impute(spatial, reference, genes=["G1"])


def test_measured_genes_that_cannot_be_predicted_are_named(tables, caplog):
    spatial, reference = tables
    spatial.X = sparse.csr_matrix(spatial.X.multiply(np.arange(60) != 7))
    imputed = spaf.tl.impute(spatial, reference, measured=True, method="ridge")
    assert "G7" not in imputed.var_names
    assert imputed.var["measured"].sum() == 59
    assert spatial.uns["imputation"]["not_predicted"] == ["G7"]
    assert spatial.uns["imputation"]["n_not_predicted"] == 1
    (said,) = [message for message in caplog.messages if "cannot be predicted" in message]
    assert said.endswith("to the model: 1 (G7).")
    with pytest.raises(InputError, match="none of the measured genes that are asked for can be predicted"):
        spaf.tl.impute(spatial, reference, measured=True, genes=["G7"])


def test_the_file_holds_what_memory_holds(tables, tmp_path):
    spatial, reference = tables
    imputed = spaf.tl.impute(spatial, reference, counts=True)
    write_imputed(imputed_table(spatial, reference, counts=True), tmp_path / "out.h5ad")
    written = ad.read_h5ad(tmp_path / "out.h5ad", backed="r")
    np.testing.assert_array_equal(written.X[:], imputed.X)
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "out.h5ad").layers["counts"], imputed.layers["counts"])
    pd.testing.assert_frame_equal(written.var, imputed.var)
    assert spaf.pl.imputation_accuracy(written).figure is not None
    written.file.close()


def test_nothing_is_half_written(tables, tmp_path, monkeypatch):
    spatial, reference = tables
    made = imputed_table(spatial, reference)

    def broken(self):
        yield from ()
        raise OSError("no space")

    monkeypatch.setattr("spaf_analysis.imputation.compute.Imputation.blocks", broken)
    with pytest.raises(OSError, match="no space"):
        write_imputed(made, tmp_path / "out.h5ad")
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_said_and_nothing_is_written(tables):
    spatial, reference = tables

    def fails(match: str, one=spatial, other=reference, **options: object) -> None:
        with pytest.raises(InputError, match=match):
            spaf.tl.impute(one, other, **options)
        assert "imputation" not in one.uns

    fails("no layer 'raw'", layer="raw")
    fails("'model' needs a model", method="model")
    logs = reference.copy()
    logs.X = np.log1p(logs.X.toarray())
    fails("the reference: Counts must be whole numbers", other=logs)
    mouse = reference.copy()
    mouse.var_names = [f"mouse{gene}" for gene in range(90)]
    fails("share less than 5%", other=mouse)
    few = reference[:, [f"G{gene}" for gene in range(50, 90)]].copy()
    fails("share 10 genes and at least 20 are needed .* are both of one species", other=few)
    holes = spatial.copy()
    holes.X = holes.X.toarray()
    holes.X[0, 0] = np.nan
    fails("the spatial table: ", one=holes)
    nowhere = spatial.copy()
    del nowhere.obsm["spatial"]
    fails("no coordinates 'spatial'", one=nowhere, neighbourhood=True)
    with pytest.raises(InputError, match="uns has no imputation 'imputation'"):
        spaf.pl.imputation_accuracy(spatial)


def test_a_model_is_one_of_the_ways(tables):
    spatial, reference = tables
    spatial, reference = spatial[:120].copy(), reference[:100].copy()
    vocabulary = Vocabulary.build([f"G{gene}" for gene in range(80)], scale=np.ones(80), assay=["xenium"], unknown=())
    model = ScGPTSpatial(ScGPTSpatialConfig(width=16, n_layers=1, n_heads=2), vocabulary, seed=0)
    model.network.eval()
    spatial.obs["assay"] = "xenium"
    imputed = spaf.tl.impute(spatial, reference, model=model, genes=["G70", "G85"])
    assert "model" in set(spatial.uns["imputation"]["methods"]["method"])
    assert np.isfinite(imputed.X).all()
    alone = spaf.tl.impute(spatial, reference, model=model, genes=["G70"], method="model")
    expected = model.expression(spatial, ["G70"])
    raw = np.log1p(expected * 1e4 / np.asarray(spatial.X.sum(axis=1)))
    logs = np.log1p(1e4 * reference[:, "G70"].X.toarray() / np.asarray(reference.X.sum(axis=1)))
    by_hand = (raw - raw.mean()) / raw.std() * logs.std() + logs.mean()
    np.testing.assert_allclose(alone.X, by_hand, atol=2e-2)
    with pytest.raises(InputError, match="the model does not know gene 'G85'"):
        spaf.tl.impute(spatial, reference, model=model, genes=["G70", "G85"], method="model")
    every = spaf.tl.impute(spatial, reference, model=model, method="model")
    assert sorted(every.var_names) == [f"G{gene}" for gene in range(60, 80)]
    assert spatial.uns["imputation"]["n_unknown_to_model"] == 10
    blend = imputed_table(spatial, reference, model=model, genes=["G70", "G85"], method="blend").found
    (part,) = blend.parts
    at = [len(part.ways) - 1, 2 * len(part.ways) - 1]
    unknown = blend.genes["gene"].tolist().index("G85")
    assert (part.weights[unknown, at] == 0).all(), "a gene that the model does not know"
    np.testing.assert_allclose(part.weights.sum(axis=1), 1.0)
    assert blend.dense()[:, unknown].mean() == pytest.approx(
        part.mean[:-1, unknown] @ part.weights[unknown, :-1], abs=1e-3
    )


def test_spatialdata_and_command(tables, tmp_path):
    spatial, reference = tables
    store = SpatialData(tables={"cells": spatial.copy(), "other": spatial[:60].copy()})
    imputed = spaf.tl.impute(store, reference, genes=["G70"], table_key="cells")
    assert imputed.shape == (500, 1)
    assert "imputation" in store.tables["cells"].uns
    spatial.write_h5ad(tmp_path / "spatial.h5ad")
    reference.write_h5ad(tmp_path / "cells.h5ad")
    words = ["impute", str(tmp_path / "spatial.h5ad"), "--reference", str(tmp_path / "cells.h5ad")]
    out = tmp_path / "out.h5ad"
    ran = CliRunner().invoke(app, [*words, "-o", str(out), "--json", "--gene", "G70", "--gene", "G71"])
    assert ran.exit_code == 0, ran.output
    assert '"rank_correlation"' in ran.output
    np.testing.assert_allclose(ad.read_h5ad(out)[:, "G70"].X, imputed.X, atol=1e-5)
    table = tmp_path / "genes.csv"
    assert CliRunner().invoke(app, [*words, "-o", str(table), "--method", "knn"]).exit_code == 0
    assert list(pd.read_csv(table).columns)[:4] == ["gene", "measured", "accuracy", "expected"]


def test_section_of_the_report(tables):
    spatial, reference = tables
    nothing = ImputationSection.compute(SimpleNamespace(adata=spatial))
    assert nothing.numbers() == {}
    assert nothing.view() == {"rows": []}
    spaf.tl.impute(spatial, reference, genes=["G70"])
    made = ImputationSection.compute(SimpleNamespace(adata=spatial))
    assert made.numbers()["imputation"][0]["method"] == spatial.uns["imputation"]["methods"]["method"].iloc[0]
    assert len(made.figures) == 1
