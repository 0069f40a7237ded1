import numpy as np
import pytest
from scipy import sparse
from scipy.stats import spearmanr

from spaf_analysis import InputError
from spaf_analysis.imputation import METHODS, fit_imputation
from spaf_analysis.imputation.blend import AccuracyModel, Evidence, blend_weights, correlations
from spaf_analysis.imputation.spaces import find_spaces, leading, log_counts
from spaf_analysis.imputation.ways import around, fit_ways

N_SHARED = 60
NAMES = [f"G{gene}" for gene in range(90)]


def fitted(made, **options):
    query, reference = made["query"][:, :N_SHARED], made["reference"]
    return fit_imputation(query, reference[:, :N_SHARED], reference[:, N_SHARED:], NAMES, **options)


def realised(found, made):
    truth = log_counts(made["query"]).toarray()
    place = {name: at for at, name in enumerate(NAMES)}
    values = found.dense()
    return np.array(
        [np.corrcoef(values[:, at], truth[:, place[gene]])[0, 1] for at, gene in enumerate(found.genes.gene)]
    )


def test_genes_that_follow_the_shared_ones_are_found_and_others_are_not_promised(made):
    found = fitted(made)
    assert found.genes["gene"].tolist() == NAMES[N_SHARED:]
    accuracy = realised(found, made)
    assert accuracy[:-6].mean() > 0.45
    assert np.abs(accuracy[-6:]).max() < 0.45, "of depth alone"
    expected = found.genes["expected"].to_numpy()
    assert spearmanr(expected, accuracy).statistic > 0.7
    assert expected[-6:].max() < expected[:-6].mean() / 1.5
    assert abs(expected.mean() - accuracy.mean()) < 0.1
    assert found.genes["accuracy"].isna().all()
    assert (found.genes["expected_low"] <= found.genes["expected_high"]).all()
    assert found.rank_correlation > 0.5


def test_the_default_is_what_did_best_on_held_out_genes(made):
    found = fitted(made)
    assert set(found.methods["method"]) == set(METHODS) - {"model"}
    assert found.methods["pearson"].is_monotonic_decreasing
    assert found.method == found.methods["method"].iloc[0]
    assert (
        (found.methods["low"] < found.methods["pearson"]) & (found.methods["pearson"] < found.methods["high"])
    ).all()
    best = found.held_out["accuracy"].mean()
    assert best == pytest.approx(found.methods["pearson"].iloc[0])


@pytest.mark.parametrize("method", ["knn", "blend"])
def test_accuracies_are_those_of_the_predictions_that_are_given(made, method):
    found = fitted(made, method=method, measured=True)
    measured = found.genes["measured"].to_numpy()
    assert measured.sum() == N_SHARED
    truth = log_counts(made["query"][:, :N_SHARED]).toarray()
    values = found.dense()
    for at in np.flatnonzero(measured):
        gene = NAMES.index(found.genes["gene"][at])
        assert found.genes["accuracy"][at] == pytest.approx(np.corrcoef(values[:, at], truth[:, gene])[0, 1], abs=2e-3)


def test_a_measured_gene_is_predicted_without_having_been_read(made):
    before = fitted(made, method="knn", measured=True)
    query = made["query"].tolil()
    query[:, 7] = np.random.default_rng(5).poisson(9.0, (500, 1))
    after = fitted(made | {"query": query.tocsr()}, method="knn", measured=True)
    at = before.genes.index[before.genes["gene"] == "G7"][0]
    np.testing.assert_allclose(before.dense()[:, at], after.dense()[:, at], atol=1e-5)
    assert not np.allclose(before.dense(), after.dense(), atol=1e-3)


def test_blocks_are_the_standardised_ways_weighted(made):
    found = fitted(made, method="blend")
    part = found.parts[-1]
    genes = np.arange(part.genes.size)
    rows = np.arange(500)
    base = [way.predict(rows, genes) for way in part.ways]
    smooth = part.smoothing.toarray()
    both = base + [smooth @ one[part.anchors] for one in base]
    slow = np.zeros((500, genes.size))
    for gene in genes:
        at = [one[:, gene] for one in both]
        mean = np.array([one[part.anchors].mean() for one in at])
        spread = np.array([one[part.anchors].std() for one in at])
        weight = part.weights[gene]
        standard = sum(w * (one - m) / s for w, one, m, s in zip(weight, at, mean, spread, strict=True) if w > 0)
        slow[:, gene] = weight @ mean + weight @ spread * standard
    np.testing.assert_allclose(found.dense(), slow, atol=2e-4)


def test_neighbours_are_the_nearest(made):
    query, reference = made["query"][:, :N_SHARED], made["reference"]
    spaces = find_spaces(query, reference[:, :N_SHARED], np.arange(500))
    logs = log_counts(reference)
    knn = fit_ways(spaces, logs)[0].predict(np.array([3]), np.arange(5))
    one, others = spaces.of("joint")[0][3], spaces.of("joint")[1]
    nearest = np.argsort(((others - one) ** 2).sum(axis=1))[:50]
    np.testing.assert_allclose(knn[0], logs.toarray()[nearest][:, :5].mean(axis=0), atol=1e-5)
    anchors = np.arange(0, 500, 2)
    weights = around(spaces.of("joint")[0], anchors)
    assert weights.shape == (500, 250)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-5)


def test_ridge_is_that_of_scikit_learn(made):
    from sklearn.linear_model import Ridge

    query, reference = made["query"][:, :N_SHARED], made["reference"]
    spaces = find_spaces(query, reference[:, :N_SHARED], np.arange(500))
    logs = log_counts(reference)
    way = next(way for way in fit_ways(spaces, logs) if way.name == "ridge")
    read, known = spaces.of("components")
    slow = Ridge(alpha=5.0 * 400).fit(known[:, :50], logs.toarray()).predict(read[:, :50])
    np.testing.assert_allclose(way.predict(np.arange(500), np.arange(90)), slow, atol=2e-3)


def test_leading_axes_are_those_of_the_largest_variance():
    values = np.random.default_rng(0).normal(size=(300, 6)) * np.array([1, 5, 2, 1, 1, 3.0])
    axes = leading(np.cov(values.T), 3)
    assert np.abs(axes).argmax(axis=0).tolist() == [1, 5, 2]
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)


def test_correlations_are_those_of_numpy():
    rng = np.random.default_rng(0)
    ways, truth = rng.normal(size=(3, 200, 4)).astype(np.float32), rng.normal(size=(200, 4))
    ways[1] += truth
    between, with_truth, mean, spread = correlations(ways.copy(), truth)
    for gene in range(4):
        slow = np.corrcoef(np.vstack([ways[:, :, gene], truth[:, gene]]))
        np.testing.assert_allclose(between[gene], slow[:3, :3], atol=1e-4)
        np.testing.assert_allclose(with_truth[gene], slow[:3, 3], atol=1e-4)
    np.testing.assert_allclose(mean, ways.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(spread, ways.std(axis=1), atol=1e-4)


def test_weights_go_to_what_is_right_for_genes_of_a_kind():
    n = 200
    kind = np.arange(n) % 2
    truth = np.where(kind[:, None] == 0, [0.6, 0.1], [0.1, 0.6])
    between = np.broadcast_to(np.array([[1.0, 0.1], [0.1, 1.0]]), (n, 2, 2))
    evidence = Evidence(between, truth, kind[:, None].astype(float))
    weights = blend_weights(evidence, evidence)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    assert (weights >= 0).all()
    assert (weights[kind == 0][:, 0] > 0.55).all()
    assert (weights[kind == 1][:, 1] > 0.55).all()
    blend = evidence.accuracy(weights)
    assert (blend > 0.55).all()


def test_expected_accuracy_is_calibrated():
    rng = np.random.default_rng(0)
    about = rng.normal(size=(400, 3))
    accuracy = 0.3 + about @ [0.1, -0.05, 0.0] + rng.normal(0, 0.02, 400)
    model = AccuracyModel.fit(about[:300], accuracy[:300])
    found = model.predict(about[300:])
    assert np.abs(found - np.clip(accuracy[300:], 0, 1)).mean() < 0.03
    low, high = model.residuals
    inside = (accuracy[300:] >= found + low) & (accuracy[300:] <= found + high)
    assert 0.65 < inside.mean() < 0.95


def test_intervals_of_accuracies_are_of_genes_that_were_not_fitted(made):
    rng = np.random.default_rng(0)
    inside, inside_of_own = [], []
    for _ in range(200):
        about, accuracy = rng.normal(size=(60, 6)), rng.normal(0.5, 0.1, 60)
        expected = np.empty(25)
        for fold in range(5):
            held = np.arange(25) % 5 == fold
            expected[held] = AccuracyModel.fit(about[:25][~held], accuracy[:25][~held]).predict(about[:25][held])
        for residuals, other in ((inside, expected), (inside_of_own, None)):
            model = AccuracyModel.fit(about[:25], accuracy[:25], other)
            away = accuracy[25:] - model.predict(about[25:])
            residuals.append(np.mean((away >= model.residuals[0]) & (away <= model.residuals[1])))
    assert np.mean(inside) == pytest.approx(0.8, abs=0.04)
    assert np.mean(inside_of_own) < 0.72
    found = fitted(made).held_out
    realised_between = (found.accuracy >= found.expected_low) & (found.accuracy <= found.expected_high)
    assert realised_between.mean() == pytest.approx(0.8, abs=0.02)


def test_nothing_follows_from_the_order_of_genes(made):
    order = np.random.default_rng(4).permutation(N_SHARED)
    query, reference = made["query"][:, :N_SHARED], made["reference"]
    names = [NAMES[gene] for gene in order] + NAMES[N_SHARED:]
    first = fitted(made, measured=True, method="blend")
    shared = query[:, order], reference[:, :N_SHARED][:, order]
    second = fit_imputation(*shared, reference[:, N_SHARED:], names, measured=True, method="blend")
    assert first.genes["gene"].tolist() == second.genes["gene"].tolist()
    np.testing.assert_allclose(first.held_out["accuracy"], second.held_out["accuracy"], atol=2e-3)
    np.testing.assert_allclose(first.dense(), second.dense(), atol=0.02)


def test_runs_are_equal_and_cells_without_counts_are_served(made):
    query = sparse.csr_matrix(made["query"].multiply((np.arange(500) != 3)[:, None]))
    first, second = (fitted(made | {"query": query}).dense() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(first).all()


@pytest.mark.parametrize("without_depth", [False, True])
def test_cells_without_counts_get_what_the_mean_of_the_reference_lets_expect(made, without_depth):
    query = sparse.csr_matrix(made["query"].multiply(~np.isin(np.arange(500), (3, 77))[:, None]))
    logs = log_counts(made["reference"]).toarray()[:, N_SHARED:]
    found = {
        method: fitted(made | {"query": query}, method=method, without_depth=without_depth).dense()
        for method in ("ridge", "ridge-200", "knn", "spage", "kernel", "blend")
    }
    for method in ("ridge", "ridge-200"):
        np.testing.assert_allclose(found[method][3], logs.mean(axis=0), atol=1e-3)
    for values in found.values():
        np.testing.assert_array_equal(values[3], values[77])
        assert np.corrcoef(values[3], logs.mean(axis=0))[0, 1] > 0.85
        assert np.abs(values[3] - logs.mean(axis=0)).mean() < 0.5 * logs.std(axis=0).mean()
    reference = made["reference"][::-1]
    turned = fitted(made | {"query": query, "reference": reference}, method="spage", without_depth=without_depth)
    np.testing.assert_allclose(turned.dense()[3], found["spage"][3], atol=1e-3)


def test_depth_is_removed_where_that_is_asked_for(made):
    rng = np.random.default_rng(3)
    thin = rng.uniform(0.15, 1.0, (900, 1))
    parts = {
        name: sparse.csr_matrix(rng.binomial(made[name].toarray().astype(int), share).astype(np.float32))
        for name, share in (("query", thin[:500]), ("reference", thin[500:]))
    }
    depth = np.log(np.asarray(parts["query"][:, :N_SHARED].sum(axis=1)).ravel())
    follows = {}
    for removed in (False, True):
        found = fitted(parts, method="blend", without_depth=removed)
        follows[removed] = np.mean([abs(np.corrcoef(depth, gene)[0, 1]) for gene in found.dense().T[:-6]])
        part = found.parts[-1]
        alone = part.ways[0].predict(np.arange(500), np.arange(24))
        assert np.isfinite(alone).all()
    assert follows[True] < 0.7 * follows[False]


def test_what_cannot_be_used_is_said(made):
    with pytest.raises(InputError, match="no method 'gimvi'; the methods are: auto, knn, spage"):
        fitted(made, method="gimvi")
    with pytest.raises(InputError, match="'model' needs a model"):
        fitted(made, method="model")
    query, reference = made["query"], made["reference"]
    with pytest.raises(InputError, match="15 shared genes vary .* at least 20"):
        fit_imputation(query[:, :15], reference[:, :15], reference[:, 60:], NAMES[:15] + NAMES[60:])
    with pytest.raises(InputError, match="the reference has 30 cells with counts"):
        fit_imputation(query[:, :60], reference[:30, :60], reference[:30, 60:], NAMES)
    with pytest.raises(InputError, match="no gene to impute"):
        fit_imputation(query[:, :60], reference[:, :60], reference[:, :0], NAMES[:60])
