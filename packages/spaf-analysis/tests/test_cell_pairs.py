import anndata as ad
import numpy as np
import pytest

from spaf_analysis.cell_pairs import MAX_PAIRS, SCORES, benchmark_cell_pairs
from spaf_analysis.metrics import EvaluationOptions
from spaf_model import SpatialFormer
from spaf_train import evaluate

NAMES = {"model": "model", "embedding": "embedding cosine", "pca": "PCA cosine", "logistic": "PCA logistic"}


@pytest.fixture(scope="module")
def model(stages):
    return SpatialFormer.from_pretrained(stages.model)


def shrunk(stages, part, side):
    """The embedded cells, those of a part in a square of their own."""
    adata = ad.read_h5ad(stages.embedded)
    rows = np.flatnonzero(adata.obs["split"] == part)
    far = 1e4 if part == "validation" else 0.0
    adata.obsm["spatial"][rows] = np.random.default_rng(0).uniform(far, far + side, (rows.size, 2))
    return adata


@pytest.mark.parametrize("max_cells", [5_000, 40])
def test_a_report_and_an_evaluation_of_the_same_cells_give_the_same_figures(stages, model, max_cells):
    options = EvaluationOptions(n_replicates=20, max_cells=max_cells)
    other = evaluate(stages.model, stages.build / "corpus", options=options).cell_pairs.evaluation
    ours = benchmark_cell_pairs(ad.read_h5ad(stages.embedded), model, n_replicates=20).evaluation
    assert MAX_PAIRS == options.max_pairs
    assert len(ours.scores) == len(SCORES) * 2 * 4
    for row in ours.scores.to_dict("records"):
        theirs = other.scores.set_index(["score", "radius", "negatives"]).loc[
            (NAMES[row["score"]], row["radius"], row["negatives"])
        ]
        assert row["n_positives"] == theirs["n_positives"]
        for measure in ("auroc", "auroc_low", "auroc_high", "auprc"):
            assert row[measure] == pytest.approx(theirs[measure], abs=1e-4), (row["score"], measure)


def test_a_region_without_far_cells_is_judged_against_close_ones(stages, model):
    judged = benchmark_cell_pairs(shrunk(stages, "validation", 100.0), model, n_replicates=5).evaluation
    assert judged.unjudged == ("easy",)
    assert set(judged.scores["score"]) == set(SCORES)
    assert np.isfinite(judged.scores["auroc"]).all()


def test_a_training_region_without_far_cells_leaves_the_regression_out(stages, model):
    judged = benchmark_cell_pairs(shrunk(stages, "train", 50.0), model, n_replicates=5).evaluation
    assert set(judged.scores["score"]) == {"model", "embedding", "pca"}
    assert set(judged.differences["baseline"]) == {"pca"}


def test_a_region_without_any_negatives_says_so(stages, model):
    judged = benchmark_cell_pairs(shrunk(stages, "validation", 50.0), model, n_replicates=5)
    assert judged.evaluation is None
    assert "too small to hold cells 80" in judged.reason
