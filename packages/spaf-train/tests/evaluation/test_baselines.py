import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from scipy import sparse

from spaf_model import InputError
from spaf_train.evaluation import (
    LogisticPairs,
    baselines,
    cosine,
    log_normalize,
    matched_pairs,
    pca_embedding,
    pearson_embedding,
)


def test_log_normalize_equals_scanpy(tissue):
    expected = tissue.copy()
    sc.pp.normalize_total(expected, target_sum=1e4)
    sc.pp.log1p(expected)
    np.testing.assert_allclose(log_normalize(tissue.X).toarray(), expected.X.toarray(), rtol=1e-5)


def test_log_normalize_leaves_empty_cells_and_the_input_alone():
    counts = np.array([[0, 0], [1, 3]])
    np.testing.assert_allclose(log_normalize(counts).toarray(), np.log1p([[0, 0], [2_500, 7_500]]))
    np.testing.assert_array_equal(counts, [[0, 0], [1, 3]])


@pytest.mark.parametrize("n_genes", [6, 80])
def test_pca_equals_a_plain_decomposition(n_genes):
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(2, (120, n_genes)))
    fit_cells = np.arange(0, 120, 2)
    ours = pca_embedding(counts, fit_cells, n_components=4)
    expression = np.log1p(counts.toarray() / counts.toarray().sum(axis=1, keepdims=True) * 1e4)
    centred = expression - expression[fit_cells].mean(axis=0)
    axes = np.linalg.svd(centred[fit_cells])[2][:4]
    np.testing.assert_allclose(np.abs(ours.coordinates), np.abs(centred @ axes.T), atol=1e-6)
    assert ours.n_fitted == 60


def test_pca_takes_nothing_from_cells_that_were_not_fitted():
    rng = np.random.default_rng(0)
    counts = rng.poisson(2, (60, 8))
    changed = counts.copy()
    changed[40:] = rng.poisson(9, (20, 8))
    first, second = (pca_embedding(table, np.arange(40)).coordinates for table in (counts, changed))
    np.testing.assert_allclose(first[:40], second[:40])


def test_cosine():
    embedding = np.array([[1.0, 0.0], [2.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(cosine(embedding, np.array([0, 0, 0]), np.array([0, 1, 2])), [1, np.sqrt(0.5), 0])


def test_logistic_regression_is_symmetric_and_learns(tissue):
    embedding = pca_embedding(tissue.X, np.arange(tissue.n_obs), n_components=4).coordinates
    pairs = matched_pairs(tissue.obsm["spatial"], radii=(30.0,), max_pairs=300)
    model = LogisticPairs(embedding, pairs, 30.0)
    scores = model.score(pairs.anchor, pairs.neighbour)
    np.testing.assert_allclose(scores, model.score(pairs.neighbour, pairs.anchor))
    far = model.score(pairs.anchor, pairs.easy)
    assert (scores[:, None] > far[None]).mean() > 0.65


def test_logistic_regression_on_a_part_of_the_cells(tissue):
    embedding = pca_embedding(tissue.X, np.arange(tissue.n_obs), n_components=4).coordinates
    cells = np.flatnonzero(tissue.obs["split"] == "train")
    pairs = matched_pairs(tissue.obsm["spatial"][cells], radii=(30.0,))
    whole = LogisticPairs(embedding, pairs, 30.0, cells=cells)
    part = LogisticPairs(embedding[cells], pairs, 30.0)
    np.testing.assert_allclose(whole.score(cells[:5], cells[5:10]), part.score(np.arange(5), np.arange(5, 10)))


def by_scanpy(counts):
    return sc.experimental.pp.normalize_pearson_residuals(ad.AnnData(counts.astype(float)), inplace=False)["X"]


def test_pearson_residuals_of_each_slide_equal_scanpy(monkeypatch):
    rng = np.random.default_rng(0)
    rates = rng.gamma(3, 1, (2, 1, 12))
    slide = np.repeat(["a", "b"], 80)
    counts = np.concatenate([rng.poisson(rates[code] * rng.gamma(3, 1, (80, 1))) for code in range(2)])
    residuals = np.concatenate([by_scanpy(counts[slide == name]) for name in "ab"])
    centred = residuals - residuals.mean(axis=0)
    axes = np.linalg.svd(centred)[2][:5]
    for at_once in (10**6, 100):  # cells x genes made at a time
        monkeypatch.setattr(baselines, "_RESIDUALS_AT_ONCE", at_once)
        ours = pearson_embedding(sparse.csr_matrix(counts), slide, np.arange(160), n_components=5)
        np.testing.assert_allclose(np.abs(ours.coordinates), np.abs(centred @ axes.T), atol=1e-6)
    variable = np.argsort(-residuals.var(axis=0), kind="stable")[:6]
    few = pearson_embedding(counts, slide, np.arange(160), n_components=5, max_genes=6).coordinates
    axes = np.linalg.svd(centred[:, np.sort(variable)])[2][:5]
    np.testing.assert_allclose(np.abs(few), np.abs(centred[:, np.sort(variable)] @ axes.T), atol=1e-6)


def test_pearson_residuals_take_nothing_from_cells_that_were_not_fitted():
    rng = np.random.default_rng(0)
    counts = rng.poisson(2, (90, 8))
    counts[:40, 3] = 0  # a gene that no fitted cell of the slide holds
    slide = np.repeat(["seen", "new"], [60, 30])
    changed = counts.copy()
    changed[40:] = rng.poisson(9, (50, 8))
    first, second = (pearson_embedding(table, slide, np.arange(40)).coordinates for table in (counts, changed))
    np.testing.assert_allclose(first[:40], second[:40])
    assert np.isfinite(first).all()
    assert first[60:].any()  # of a slide without fitted cells


def test_logarithms_are_no_counts():
    counts = np.random.default_rng(0).poisson(3.0, (20, 5))
    with pytest.raises(InputError, match="look log-normalised"):
        log_normalize(np.log1p(counts))
