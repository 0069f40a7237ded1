"""Sums over neighbours and moments of all permutations, against dense arrays and permutations that are drawn."""

import numpy as np
import pytest
from scipy import sparse, stats

from spaf_analysis.ligrec import feature_values, judge_pairs, matched_genes, p_among, spatial_moments
from spaf_analysis.ligrec.moments import CUTOFF, upper_tail


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(2)
    n = 240
    values = rng.gamma(0.6, 2.0, (n, 4)) * (rng.random((n, 4)) < 0.6)
    xy = rng.random((n, 2)) * 120
    slide = rng.integers(2, size=n)
    block = np.stack([slide, (xy[:, 0] > 60).astype(int)], axis=1)
    return values, xy, block, rng.integers(2, size=n)


def dense_weights(xy, slide, sigma):
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    weights = np.exp(-0.5 * (distance / sigma) ** 2) * (distance <= CUTOFF * sigma)
    weights[np.eye(len(xy), dtype=bool) | (slide[:, None] != slide[None])] = 0
    return weights


def moments_of(cells, monkeypatch=None, **options):
    values, xy, block, kind = cells
    asked = {"sigma": 15.0, "n_units": 2} | options
    return spatial_moments(sparse.csr_matrix(values), xy, block, kind, np.arange(2), **asked)


def test_the_statistic_is_that_of_dense_arrays(cells, monkeypatch):
    values, xy, block, _ = cells
    weights = dense_weights(xy, block[:, 0], 15.0)
    found = moments_of(cells)
    for unit in range(2):
        of_unit = values * (block[:, [0]] == unit)
        np.testing.assert_allclose(found.observed[unit], of_unit.T @ weights @ of_unit, rtol=1e-9)
    monkeypatch.setattr("spaf_analysis.ligrec.moments._CELLS_AT_ONCE", 1)
    few = moments_of(cells)
    for name in ("observed", "excess", "variance", "third"):
        np.testing.assert_allclose(getattr(few, name), getattr(found, name), rtol=1e-9)


def strata_of(block, kind):
    place = np.c_[block, kind]
    return [np.flatnonzero((place == which).all(axis=1)) for which in np.unique(place, axis=0)]


def left_of(values, strata):
    left = values.copy()
    for stratum in strata:
        left[stratum] -= left[stratum].mean(axis=0)
    return left


def test_moments_of_one_gene_are_those_of_permutations(cells):
    values, xy, block, kind = cells
    weights = dense_weights(xy, block[:, 0], 15.0)
    strata = strata_of(block, kind)
    left = left_of(values, strata)
    held = weights @ left[:, 1]
    rng = np.random.default_rng(0)
    drawn = np.zeros(40_000)
    within = 0.0
    for stratum in strata:
        drawn += rng.permuted(np.tile(left[stratum, 0], (len(drawn), 1)), axis=1) @ held[stratum]
        n, both = len(stratum), left[stratum, 0] @ left[stratum, 1]
        within -= weights[np.ix_(stratum, stratum)].sum() * both / (n * (n - 1))
    found = moments_of(cells)
    excess, third = (part.sum(axis=0)[0, 1] for part in (found.excess, found.third))
    rho = [np.corrcoef(left[block[:, 0] == unit, :2].T)[0, 1] for unit in range(2)]
    one_gene = found.variance[:, 0, 1] / (1 + np.square(rho))
    assert excess == pytest.approx(left[:, 0] @ held - within)
    assert abs(drawn.mean()) < 5 * drawn.std() / 200
    variance = one_gene.sum()
    assert variance == pytest.approx(drawn.var(), rel=0.04)
    skewness = third / variance**1.5
    assert skewness == pytest.approx(stats.skew(drawn), abs=0.07)
    for level in (0.2, 0.05, 0.01):
        z = np.quantile(drawn, 1 - level) / np.sqrt(variance)
        assert upper_tail(z, skewness) == pytest.approx(level, rel=0.12)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_moments_are_those_of_whole_cells_dealt_anew(cells, share):
    """Two genes in one state (a share of 1), in states that exclude each other (0), and neither."""
    _, xy, block, kind = cells
    rng = np.random.default_rng(3)
    state = rng.random(len(xy)) < 0.5
    other = np.where(rng.random(len(xy)) < 2 * np.abs(share - 0.5), state == (share > 0.5), rng.random(len(xy)) < 0.5)
    values = np.c_[np.where(state, 2.0, 0.2), np.where(other, 3.0, 0.1)] * rng.gamma(4.0, 0.25, (len(xy), 2))
    weights = sparse.csr_matrix(dense_weights(xy, block[:, 0], 15.0))
    strata = strata_of(block, kind)
    drawn, expected, excess, variance = [], [], [], []
    for draw in range(1_500):
        place = np.arange(len(xy))
        for stratum in strata:
            place[stratum] = rng.permutation(stratum)
        left = left_of(values[place], strata)
        drawn.append(left[:, 0] @ (weights @ left[:, 1]))
        if draw < 60:
            found = moments_of((values[place], xy, block, kind))
            excess.append(found.excess.sum(axis=0)[0, 1])
            expected.append(drawn[-1] - excess[-1])
            variance.append(found.variance.sum(axis=0)[0, 1])
    # What is taken off is the same however the cells lie, and the mean of the draws.
    np.testing.assert_allclose(expected, expected[0], atol=1e-8)
    deviation = np.std(drawn)
    assert abs(np.mean(drawn) - expected[0]) < 4 * deviation / np.sqrt(len(drawn))
    assert np.sqrt(np.mean(variance)) == pytest.approx(deviation, rel=0.07)
    if share != 0.5:  # without what is taken off the draws are not around 0: below it in one state, else above
        assert np.mean(drawn) * (0.5 - share) > 0.25 * deviation


def test_tails_of_few_cells_and_of_nothing():
    z = np.array([-3.0, 0.0, 1.7, 4.0])
    for skewness in (-1.2, -0.3, 0.2, 0.9):
        np.testing.assert_allclose(upper_tail(z, np.full(4, skewness)), stats.pearson3.sf(z, skewness), atol=1e-12)
    np.testing.assert_allclose(upper_tail(z, np.zeros(4)), stats.norm.sf(z))


def test_strata_of_one_cell_say_nothing(cells):
    values, xy, block, _ = cells
    alone = moments_of((values, xy, block, np.arange(len(xy))))
    np.testing.assert_allclose(alone.excess, 0, atol=1e-9)
    assert not alone.variance.any()
    pairs = np.array([[0, 1]])
    singles = [frozenset([gene]) for gene in range(4)]
    found = judge_pairs(alone, pairs, np.tile([2, 3], (4, 1)), subunits=singles, known=frozenset())
    assert np.isnan(found.p).all()
    assert np.isnan(found.p_matched).all()


def test_a_complex_has_its_smallest_subunit_and_matches_are_near(cells):
    values = cells[0]
    found = feature_values(sparse.csr_matrix(values), [(0,), (1, 2), (0, 1, 3)]).toarray()
    expected = np.c_[values[:, 0], values[:, [1, 2]].min(axis=1), values[:, [0, 1, 3]].min(axis=1)]
    np.testing.assert_allclose(found, expected)
    pools, genes = matched_genes(np.array([1.0, 2.0, 0.0, 4.0, 9.0]), np.array([2.1, 5.0]), 2)
    assert pools.tolist() == [[1, 3], [3, 4]]
    assert genes.tolist() == [1, 3, 4]


def test_weaker_way_counts_and_known_pairs_are_no_match(cells):
    found = moments_of(cells)
    pairs, pools = np.array([[0, 1]]), np.tile([2, 3], (4, 1))
    singles = [frozenset([gene]) for gene in range(4)]
    tests = judge_pairs(found, pairs, pools, subunits=singles, known=frozenset())
    z = found.excess.sum(axis=0) / np.sqrt(found.variance.sum(axis=0))
    assert tests.z[0] == pytest.approx(min(z[0, 1], z[1, 0]))
    assert tests.n_matched[0] == 2
    less = judge_pairs(found, pairs, pools, subunits=singles, known=frozenset({(2, 3), (3, 2)}))
    assert less.n_matched[0] == 0
    assert np.isnan(less.rank[0])


def test_p_among_others_is_a_share_and_has_a_tail():
    rng = np.random.default_rng(1)
    few = np.arange(9.0)
    assert p_among(5.5, few) == pytest.approx(4 / 10)
    assert p_among(100.0, few) == pytest.approx(1 / 10)
    for draw in (rng.exponential, rng.standard_normal):
        others = draw(size=20_000)
        assert p_among(float(np.quantile(others, 0.9)), others) == pytest.approx(0.1, rel=0.02)
    others = rng.exponential(size=2_000)
    assert p_among(7.0, others) == pytest.approx(np.exp(-7.0), rel=0.7)
    # Of a lighter tail it is too large, which is safe.
    assert p_among(5.0, rng.standard_normal(2_000)) > stats.norm.sf(5.0)
