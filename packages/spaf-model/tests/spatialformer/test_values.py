"""Values of genes beside ranks: by hand, and by the independent code of the own-tissue model."""

import numpy as np
import pytest
from scipy import sparse

from spaf_model import GeneValues, SlideStatistics, centred_by_slide, slide_statistics
from spaf_model.tissue import PearsonResiduals, ZScores

KINDS = {"zscore": ZScores, "pearson": PearsonResiduals}


@pytest.fixture
def counts():
    """200 cells of very different depth, some below 10 counts; of gene 7 nothing is counted."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 1.0, (200, 1)) * rng.gamma(0.7, 1.0, (1, 30))
    rates[:, 7] = 0.0
    return sparse.csr_array(rng.poisson(rates).astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_the_own_tissue_model(kind, counts):
    twin = KINDS[kind](counts).rows(slice(None))
    values = SlideStatistics.of(kind, counts).standardise(counts.toarray())
    np.testing.assert_allclose(values, twin, atol=2e-5)
    assert values.dtype == np.float32
    assert not values[:, 7].any()


def test_z_scores_by_hand():
    counts = np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 6.0]], dtype=np.float32)
    logs = np.log1p(counts * (4.0 / counts.sum(axis=1, keepdims=True)))  # the median total is 4
    expected = (logs - logs.mean(axis=0)) / logs.std(axis=0)
    values = SlideStatistics.of("zscore", sparse.csr_array(counts)).standardise(counts.copy())
    np.testing.assert_allclose(values, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_panel_hides_genes_and_totals_are_of_the_rest(kind, counts):
    statistics = SlideStatistics.of(kind, counts)
    panel = np.arange(30) < 20
    values = statistics.standardise(counts.toarray(), panel)
    assert not values[:, 20:].any()
    # What a hidden gene counted makes no difference.
    other = counts.toarray()
    other[:, 20:] = 50.0
    np.testing.assert_array_equal(statistics.standardise(other, panel), values)
    # A cell that is the mean of the slide stays near the mean, though a third of its counts is hidden.
    mean = (statistics.share * 1_000.0)[None].astype(np.float32)
    shown = statistics.standardise(mean.copy(), panel)[0, :20]
    np.testing.assert_allclose(shown, statistics.standardise(mean.copy())[0, :20], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_each_cell_is_standardised_by_its_own_slide(kind, counts):
    slides = np.arange(200) % 2
    values = GeneValues(counts, slides, slide_statistics(kind, counts, slides), 30)
    for slide in (0, 1):
        own = np.flatnonzero(slides == slide)
        alone = SlideStatistics.of(kind, counts[own]).standardise(counts[own].toarray())
        np.testing.assert_array_equal(values.rows(own), alone)
    chosen = np.array([5, 4, 199])
    np.testing.assert_array_equal(values.take(chosen).rows(np.array([2, 0])), values.rows(np.array([199, 5])))


def test_profiles_make_up_for_genes_that_are_not_known(counts):
    slides = np.zeros(200, dtype=np.int64)
    statistics = slide_statistics("pearson", counts, slides)
    values = GeneValues(counts, slides, statistics, 30, panel=np.arange(30) < 15)
    cells = np.arange(4)
    assert values.known(cells).sum(axis=1).tolist() == [14] * 4  # gene 7 is nowhere counted
    rows = values.rows(cells)
    np.testing.assert_allclose(values.profiles(cells, rows), rows * (30 / 14), rtol=1e-6)
    assert values.rows(cells[:0]).shape == (0, 30)
    assert values.known(cells[:0]).shape == (0, 30)


def test_states_are_centred_by_slide_without_rows_that_are_no_numbers():
    states = np.array([[1.0, 2.0], [3.0, 4.0], [np.nan, np.nan], [10.0, 0.0]], dtype=np.float32)
    centred = centred_by_slide(states, np.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(centred, np.array([[-1, -1], [1, 1], [np.nan, np.nan], [0, 0]], dtype=np.float32))
    np.testing.assert_array_equal(states[0], [1.0, 2.0])
