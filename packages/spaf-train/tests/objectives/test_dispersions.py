import numpy as np
import pytest

from spaf_train.objectives.dispersions import CountMoments


def drawn(dispersions, shares, n_cells, seed, depth=2000.0):
    """Negative binomial counts, cells x genes, of cells of different depth."""
    rng = np.random.default_rng(seed)
    means = rng.gamma(4.0, depth / 4.0, n_cells)[:, None] * shares
    return rng.poisson(means * rng.gamma(1.0 / dispersions, dispersions, means.shape))


def added(moments, technology, counts, panel=None):
    cells, genes = np.nonzero(counts)
    panel = np.ones(counts.shape[1], dtype=bool) if panel is None else panel
    moments.add(technology, cells, genes, counts[cells, genes], panel)


def test_the_dispersions_of_simulated_counts_are_found():
    """Of genes of a mean count of 5 to 35 in the 3,000 cells of two technologies, added in parts."""
    dispersions = np.tile([0.1, 0.5, 2.0], 40)
    shares = np.random.default_rng(0).dirichlet(np.full(120, 8.0))
    moments = CountMoments(2, 120)
    counts = [drawn(dispersions, shares, n, seed) for n, seed in ((1000, 1), (1000, 2), (1000, 3))]
    for technology, part in zip((0, 0, 1), counts, strict=True):
        added(moments, technology, part)
    rates = np.concatenate(counts).sum(axis=0) / np.concatenate(counts).sum()
    found = -moments.log_inverse_dispersions(rates, np.zeros(2))
    errors = found - np.log(dispersions)
    assert np.abs(np.median(errors.reshape(40, 3), axis=0)).max() < 0.1
    assert np.abs(errors).max() < 0.5


def test_sums_agree_with_residuals_cell_by_cell():
    """What is known well enough is not drawn anywhere: the formula, written out over cells of two panels."""
    shares, dispersions = np.full(6, 1 / 6), np.full(6, 0.7)
    whole, part = drawn(dispersions, shares, 400, 4), drawn(dispersions, shares, 300, 5)
    panel = np.arange(6) < 4
    part[:, ~panel] = 0
    moments = CountMoments(2, 6)
    added(moments, 0, whole)
    added(moments, 1, part, panel)
    scales = np.array([0.0, np.log(1.5)])
    excess, known = np.zeros(6), np.zeros(6)
    for counts, scale, measured in ((whole, 1.0, np.ones(6)), (part, 1.5, panel)):
        means = counts.sum(axis=1, keepdims=True) * shares * scale * measured
        excess += (np.square(counts - means) - counts).sum(axis=0)
        known += np.square(means).sum(axis=0)
    np.testing.assert_allclose(moments.log_inverse_dispersions(shares, scales), -np.log(excess / known), atol=1e-4)


@pytest.mark.parametrize("dispersion", [0.2, 1.5])
def test_a_rare_gene_is_drawn_to_the_others_and_an_unseen_one_begins_at_one(dispersion):
    shares = np.append(np.full(20, (1 - 1e-6) / 20), [1e-6, 0.0])
    counts = drawn(np.full(22, dispersion), shares, 1000, 6)
    counts[0, 20] = 9  # in 1,000 cells that have 2 of it together
    moments = CountMoments(1, 22)
    added(moments, 0, counts)
    found = moments.log_inverse_dispersions(shares, np.zeros(1))
    assert found[21] == 0.0
    assert abs(np.median(found[:20]) + np.log(dispersion)) < 0.3
    assert -np.log(100.0) <= found[20]
    assert -found[20] < np.log(dispersion + 8.0)


def test_counts_without_dispersion_and_none_at_all_stay_within_bounds():
    rng = np.random.default_rng(7)
    moments = CountMoments(1, 5)
    np.testing.assert_array_equal(moments.log_inverse_dispersions(np.full(5, 0.2), np.zeros(1)), 0.0)
    added(moments, 0, rng.poisson(20.0, (50, 5)))
    found = moments.log_inverse_dispersions(np.full(5, 0.2), np.zeros(1))
    assert (found <= np.log(100.0) + 1e-12).all()
    assert (found > 2.0).all()
