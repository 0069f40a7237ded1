import numpy as np
import pytest
import scipy.sparse as sp

from spaf_model.tissue import PearsonResiduals, ZScores, standardise


def slow_pearson(counts: np.ndarray, known: np.ndarray) -> np.ndarray:
    total = counts.sum(axis=1, keepdims=True)
    expected = total * counts[known].sum(axis=0) / counts[known].sum()
    residuals = np.clip((counts - expected) / np.sqrt(expected + expected**2 / 100 + 1e-9), -5, 5)
    return residuals - residuals[known].mean(axis=0)


def slow_zscores(counts: np.ndarray, known: np.ndarray) -> np.ndarray:
    total = counts.sum(axis=1)
    depth = np.median(total[known])
    logs = np.log1p(counts * depth / np.maximum(total, 1)[:, None])
    deviation = logs[known].std(axis=0)
    z = (logs - logs[known].mean(axis=0)) / np.where(deviation > 1e-6, deviation, np.inf)
    return np.clip(z, -10, 10)


TWINS = [(PearsonResiduals, slow_pearson), (ZScores, slow_zscores)]


@pytest.mark.parametrize(("kind", "twin"), TWINS)
def test_equals_its_slow_twin_and_looks_at_cells_of_ten_counts(kind, twin, counts):
    dense = counts.toarray().astype(np.float64)
    dense[:30] = 0
    dense[:30, 0] = np.arange(30) % 10  # fewer than 10 counts: standardised, but not in the statistics
    known = dense.sum(axis=1) >= 10
    assert 0 < (~known).sum() == 30
    np.testing.assert_allclose(
        kind(sp.csr_array(dense.astype(np.float32))).rows(slice(None)), twin(dense, known), atol=2e-5
    )


@pytest.mark.parametrize(("kind", "twin"), TWINS)
def test_takes_all_cells_where_few_have_ten_counts(kind, twin):
    dense = np.random.default_rng(0).poisson(0.1, (80, 12)).astype(np.float64)
    dense[dense.sum(axis=1) == 0, 0] = 1
    result = kind(sp.csr_array(dense.astype(np.float32))).rows(slice(None))
    np.testing.assert_allclose(result, twin(dense, np.ones(80, bool)), atol=2e-5)


@pytest.mark.parametrize("kind", [PearsonResiduals, ZScores])
def test_chunks_and_rows_are_parts_of_the_whole(kind, counts, monkeypatch):
    monkeypatch.setattr(standardise, "_CHUNK_VALUES", 40 * 33)
    slide, unheld = kind(counts), kind(counts, held_bytes=0)
    whole = slide.rows(slice(None))
    for one in (slide, unheld, slide):  # the third time from the chunks that are held
        pieces = list(one.chunks())
        assert len(pieces) == 13
        np.testing.assert_array_equal(np.concatenate([chunk for _, chunk in pieces]), whole)
    some = np.array([5, 399, 5, 77])
    np.testing.assert_array_equal(slide.rows(some), whole[some])
    loadings = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    np.testing.assert_allclose(slide.project(loadings), whole @ loadings, atol=1e-4)
    assert not unheld._held


@pytest.mark.parametrize("kind", [PearsonResiduals, ZScores])
def test_a_gene_that_is_not_there_or_does_not_vary_is_zero(kind):
    dense = np.random.default_rng(1).poisson(3.0, (100, 6)).astype(np.float32)
    dense[:, 2] = 0
    rows = kind(sp.csr_array(dense)).rows(slice(None))
    assert not rows[:, 2].any()
    assert np.isfinite(rows).all()
    constant = np.tile(np.float32([4, 4, 4]), (60, 1))  # every gene is constant, and so is the total
    np.testing.assert_allclose(kind(sp.csr_array(constant)).rows(slice(None)), 0, atol=1e-6)


def test_sums_are_taken_in_double_precision():
    many = sp.csr_array(np.tile(np.float32([16_777_217.0, 1.0, 1.0]), (3, 1)))
    np.testing.assert_array_equal(standardise.row_sums(many), 16_777_216.0 + 2.0)


@pytest.mark.parametrize("kind", [PearsonResiduals, ZScores])
def test_a_panel_in_a_larger_vocabulary_is_narrow_and_the_same(counts, kind):
    wide = sp.csr_array(sp.hstack([sp.csr_array((counts.shape[0], 70), dtype=np.float32), counts], format="csr"))
    narrow, alone = kind(wide), kind(counts)
    assert narrow.shape == (counts.shape[0], 110)
    assert narrow.width == counts.shape[1]
    np.testing.assert_array_equal(narrow.columns, np.arange(70, 110))
    assert alone.columns is None
    np.testing.assert_array_equal(narrow.rows(slice(None)), alone.rows(slice(None)))
    loadings = np.random.default_rng(0).standard_normal((110, 3)).astype(np.float32)
    np.testing.assert_array_equal(narrow.project(loadings), alone.project(loadings[70:]))
