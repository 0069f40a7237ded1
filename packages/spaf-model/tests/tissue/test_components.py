import numpy as np
import pytest
import scipy.sparse as sp

from spaf_model.tissue import ZScores, components
from spaf_model.tissue.components import principal_components


def by_svd(whole: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    _, singular, vectors = np.linalg.svd(whole.astype(np.float64), full_matrices=False)
    return vectors[:k].T, singular[:k] / np.sqrt(len(whole))


@pytest.mark.parametrize("n_cells", [400, 25])  # more and fewer cells than genes
def test_equals_a_singular_value_decomposition(counts, n_cells):
    slide = ZScores(counts[:n_cells])
    vectors, deviations = by_svd(slide.rows(slice(None)), 8)
    found, found_deviations = principal_components([slide], 8)
    np.testing.assert_allclose(np.abs((found * vectors).sum(axis=0)), 1, atol=1e-4)
    np.testing.assert_allclose(found_deviations, deviations, rtol=1e-4)
    largest = np.abs(found).argmax(axis=0)
    assert (found[largest, np.arange(8)] > 0).all()


def test_several_slides_are_stacked(counts):
    slides = [ZScores(counts[:150]), ZScores(counts[150:])]
    vectors, deviations = by_svd(np.concatenate([slide.rows(slice(None)) for slide in slides]), 5)
    found, found_deviations = principal_components(slides, 5)
    np.testing.assert_allclose(np.abs((found * vectors).sum(axis=0)), 1, atol=1e-4)
    np.testing.assert_allclose(found_deviations, deviations, rtol=1e-4)


def test_randomised_components_are_close_and_come_from_the_seed(simulated, monkeypatch):
    monkeypatch.setattr(components, "_EXACT", 20)
    counts = sp.csr_array(simulated(500, n_genes=120).X).astype(np.float32)
    slides = [ZScores(counts[:200]), ZScores(counts[200:])]
    vectors, deviations = by_svd(np.concatenate([slide.rows(slice(None)) for slide in slides]), 4)
    found, found_deviations = principal_components(slides, 4, seed=1)
    np.testing.assert_allclose(np.abs((found * vectors).sum(axis=0)), 1, atol=1e-2)
    np.testing.assert_allclose(found_deviations, deviations, rtol=1e-2)
    np.testing.assert_array_equal(found, principal_components(slides, 4, seed=1)[0])


def test_gives_no_more_components_than_there_are(counts):
    assert principal_components([ZScores(counts[:12])], 50)[0].shape == (40, 11)
    assert principal_components([ZScores(counts)], 50)[0].shape == (40, 40)


def widened(counts: sp.csr_array) -> sp.csr_array:
    return sp.csr_array(sp.hstack([sp.csr_array((counts.shape[0], 60), dtype=np.float32), counts], format="csr"))


@pytest.mark.parametrize(("n_cells", "exact"), [(400, 2_000), (24, 2_000), (400, 10)])  # gram, cells, randomised
def test_weights_repeat_cells_and_narrow_slides_count_as_wide_ones(counts, n_cells, exact, monkeypatch):
    half = n_cells // 2
    slides = [ZScores(counts[:half]), ZScores(counts[half:n_cells])]
    repeated = [slides[0], slides[1], slides[1], slides[1]]
    expected, deviations = by_svd(np.concatenate([slide.rows(slice(None)) for slide in repeated]), 4)
    monkeypatch.setattr(components, "_EXACT", exact)
    for found in (slides, [ZScores(widened(counts[:half])), ZScores(widened(counts[half:n_cells]))]):
        vectors, found_deviations = principal_components(found, 4, weights=[1.0, 3.0])
        np.testing.assert_allclose(vectors[:-40], 0, atol=1e-12)
        np.testing.assert_allclose(np.abs((vectors[-40:] * expected).sum(axis=0)), 1, atol=2e-2)
        np.testing.assert_allclose(found_deviations, deviations, rtol=1e-2)
