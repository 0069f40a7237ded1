"""A report of a model that is fitted in one go: it has no curves of training and no pair head."""

import json

import anndata as ad
import pytest

from spaf_analysis.report import ReportOptions, make_report, write_report
from spaf_model import load_model
from spaf_train import pretrain_tissue, read_tissue_config


@pytest.fixture(scope="module")
def fitted(stages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    pretrain_tissue(read_tissue_config("neighbours"), stages.build / "corpus", folder / "run")
    adata = ad.read_h5ad(stages.build / "slides" / "sim.h5ad")
    load_model(folder / "run" / "model").embed(adata)
    adata.write_h5ad(folder / "embedded.h5ad")
    options = ReportOptions(max_pairs=200, n_replicates=20)
    report = make_report(
        folder / "embedded.h5ad",
        model=folder / "run" / "model",
        run=folder / "run",
        build=stages.build,
        options=options,
    )
    write_report(report, folder / "report.html", folder / "summary.json")
    return report, folder


def test_the_cosine_of_embeddings_stands_where_the_pair_head_does_for_others(fitted):
    report, folder = fitted
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["pair_auroc_30um"] == summary["pair_auroc_30um_embedding"]
    scores = report["pairs"].benchmark.evaluation
    difference = scores.difference("embedding cosine", "PCA cosine", 30.0, "easy")
    assert summary["pair_auroc_30um_minus_pca"] == pytest.approx(difference.value, abs=1e-6)


def test_the_page_says_how_the_model_came_to_be(fitted):
    report, folder = fitted
    page = (folder / "report.html").read_text()
    assert report.family == "tissue"
    assert "a model of the family “tissue”" in page
    assert "The model was fitted in one go" in page
    assert "Learning curves" not in page
    assert "Cosine of embeddings minus the best of the others" in page
    assert "Pair head" not in page
    assert "the model has learnt nothing" not in page, "less was fitted, which is not that nothing was learnt"
