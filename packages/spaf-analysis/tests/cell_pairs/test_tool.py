import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spaf_analysis import InputError, pl, tl
from spaf_analysis.cell_pairs import SCORES, benchmark_cell_pairs
from spaf_analysis.defaults import MAX_PAIRS, N_REPLICATES
from spaf_analysis.metrics import BASELINES, EMBEDDING, LOGISTIC, MODEL, NETWORK, RANDOM, TOWER, EvaluationOptions
from spaf_model import SpatialFormer
from spaf_train import evaluate
from spaf_train.evaluation import placed_cells


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


@pytest.mark.parametrize(
    "options",
    [
        EvaluationOptions(n_replicates=20),
        EvaluationOptions(n_replicates=20, max_cells=40),
        EvaluationOptions(n_replicates=20, max_fitted_cells=100, seed=4),
    ],
    ids=["all", "few cells for genes", "few cells to fit on"],
)
def test_a_report_and_an_evaluation_of_the_same_cells_give_the_same_figures(stages, model, options, monkeypatch):
    monkeypatch.setattr(placed_cells, "_TILE", 100.0)
    other = evaluate(stages.model, stages.build / "corpus", options=options)
    adata = ad.read_h5ad(stages.embedded)
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    judged = benchmark_cell_pairs(
        shuffled, model, n_replicates=20, max_fitted_cells=options.max_fitted_cells, seed=options.seed
    )
    assert judged.n_train == other.n_fitted_cells
    assert (options.max_pairs, EvaluationOptions().n_replicates) == (MAX_PAIRS, N_REPLICATES)
    ours, theirs = judged.evaluation, other.cell_pairs.evaluation
    assert len(ours.scores) == len(set(SCORES) - {TOWER}) * 2 * 4
    keys = ["score", "radius", "negatives"]
    # There is nothing of a model, whose batches differ, in the baselines.
    baselines = (table.scores[table.scores["score"].isin(BASELINES)] for table in (ours, theirs))
    one, two = (table.sort_values(keys, ignore_index=True) for table in baselines)
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    for one, two in ((ours.scores, theirs.scores), (ours.differences, theirs.differences)):
        by = [*keys, "baseline"] if "baseline" in one else keys
        one, two = (table.sort_values(by, ignore_index=True) for table in (one, two))
        pd.testing.assert_frame_equal(one, two, rtol=0, atol=1e-4)


def test_any_embedding_can_be_judged_without_a_model(tissue):
    tissue.obsm["X_other"] = np.c_[np.asarray(tissue.obsm["X_SpaF"]), np.ones(tissue.n_obs)]
    tissue.obsm["X_other"][3] = np.nan
    judged = benchmark_cell_pairs(tissue, key="X_other", n_replicates=10, max_pairs=100)
    assert judged.first == EMBEDDING
    assert set(judged.evaluation.scores["score"]) == {EMBEDDING, *BASELINES}
    assert set(judged.evaluation.differences["baseline"]) == set(BASELINES)
    assert judged.evaluation.interval(EMBEDDING, 30.0, "easy").value > 0.6
    with pytest.raises(InputError, match="obsm has no embedding 'X_none'; it has: .*X_other"):
        benchmark_cell_pairs(tissue, key="X_none")


def test_a_model_embeds_where_there_is_no_embedding(stages, model):
    adata = ad.read_h5ad(stages.embedded)
    few = {"n_replicates": 5, "max_pairs": 50}
    expected = benchmark_cell_pairs(adata, model, **few).evaluation.scores
    del adata.obsm["X_SpaF"]
    found = benchmark_cell_pairs(adata, stages.model, **few).evaluation.scores
    pd.testing.assert_frame_equal(found, expected)
    assert "X_SpaF" not in adata.obsm


def test_baselines_can_be_fitted_on_another_slide_with_other_genes(tissue):
    other = tissue[:, ["BOTH2", "RIGHT1", "LEFT1", "RIGHT2", "LEFT2"]].copy()
    other.var_names = ["BOTH2", "RIGHT1", "LEFT1", "RIGHT2", "ELSE"]
    del other.obs["split"], tissue.obs["split"]
    judged = benchmark_cell_pairs(tissue, train=other, n_replicates=5, max_pairs=100)
    assert (judged.n_train, judged.n_validation) == (other.n_obs, tissue.n_obs)
    assert set(judged.evaluation.scores["score"]) == {EMBEDDING, *BASELINES}
    assert judged.evaluation.interval("PCA cosine", 30.0, "easy").value > 0.6
    with pytest.raises(InputError, match="obs has no column 'split' that says which cells were held out"):
        benchmark_cell_pairs(tissue)
    other.var_names = [f"Z{number}" for number in range(5)]
    with pytest.raises(InputError, match="the table of train such as Z0, Z1, Z2, and they share less than 5% of them"):
        benchmark_cell_pairs(tissue, train=other)


def test_a_copy_of_the_judged_cells_is_not_fitted_on(tissue):
    with pytest.raises(InputError, match="train holds the cells that are judged: .* have the names and totals"):
        benchmark_cell_pairs(tissue, train=tissue[::-1].copy())


def test_the_result_is_written_in_place_and_survives_a_file(tissue, tmp_path):
    tl.cell_pairs(tissue, n_replicates=5, max_pairs=50, key_added="judged")
    tissue.write_h5ad(tmp_path / "judged.h5ad")
    stored = ad.read_h5ad(tmp_path / "judged.h5ad").uns["judged"]
    expected = benchmark_cell_pairs(tissue, n_replicates=5, max_pairs=50).evaluation.scores
    found = pd.DataFrame(stored["scores"])
    np.testing.assert_array_equal(found["auroc"], expected["auroc"])
    assert found["score"].tolist() == expected["score"].tolist()
    assert stored["parameters"]["key"] == "X_SpaF"
    assert [axes.get_title(loc="left")[:7] for axes in pl.cell_pairs(tissue, key="judged")] == ["against"] * 2


def test_a_region_without_far_cells_is_judged_against_close_ones(stages, model):
    judged = benchmark_cell_pairs(shrunk(stages, "validation", 100.0), model, n_replicates=5).evaluation
    assert judged.unjudged == ("easy",)
    assert set(judged.scores["score"]) == set(SCORES) - {TOWER}
    assert np.isfinite(judged.scores["auroc"]).all()


def test_a_training_region_without_far_cells_leaves_the_regression_out(stages, model):
    judged = benchmark_cell_pairs(shrunk(stages, "train", 50.0), model, n_replicates=5).evaluation
    untrained = {*BASELINES, RANDOM} - {LOGISTIC, NETWORK}
    assert set(judged.scores["score"]) == {MODEL, EMBEDDING, *untrained}
    assert set(judged.differences["baseline"]) == untrained


def test_a_region_without_any_negatives_says_so(stages, model):
    judged = benchmark_cell_pairs(shrunk(stages, "validation", 50.0), model, n_replicates=5)
    assert judged.evaluation is None
    assert "too small to hold cells 80" in judged.reason
