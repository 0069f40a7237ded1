import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial import cKDTree
from typer.testing import CliRunner

import spaf_analysis as spaf
from spaf_analysis import InputError
from spaf_analysis.cli import app
from spaf_analysis.deconvolution import (
    accuracy,
    deconvolve_counts,
    judge_methods,
    signatures,
    spots_of_cells,
    spots_of_tissue,
)
from spaf_analysis.deconvolution.methods import (
    FUNCTIONS,
    adapted,
    least_squares,
    platform,
    poisson,
    proportions,
)

N_GENES = 120


def reference(seed: int = 0, n_types: int = 4, cells: int = 40) -> tuple[sparse.csr_matrix, np.ndarray]:
    rng = np.random.default_rng(seed)
    means = rng.lognormal(-0.5, 1.0, N_GENES)[None] * rng.lognormal(0.0, 1.0, (n_types, N_GENES))
    code = np.repeat(np.arange(n_types), cells)
    counts = rng.poisson(means[code] * rng.gamma(5.0, 0.2, (code.size, 1)))
    return sparse.csr_matrix(counts, dtype=np.float64), np.array([f"type {kind}" for kind in code])


def log_likelihood(counts, expected):
    return (counts * np.log(expected) - expected).sum(axis=1)


def tables(seed: int = 0) -> tuple[ad.AnnData, ad.AnnData, np.ndarray]:
    counts, labels = reference(seed)
    genes = [f"G{gene}" for gene in range(N_GENES)]
    cells = ad.AnnData(counts, obs=pd.DataFrame({"kind": labels}, index=[f"c{i}" for i in range(len(labels))]))
    cells.var_names = genes
    made = spots_of_cells(counts, labels, n_spots=30, seed=seed)
    spots = ad.AnnData(made.counts[:, ::-1].tocsr(), obs=pd.DataFrame(index=[f"s{i}" for i in range(30)]))
    spots.var_names = genes[::-1]
    spots.obsm["spatial"] = np.random.default_rng(1).uniform(0, 500, (30, 2))
    return spots, cells, made.proportions


def test_poisson_is_the_maximum_of_the_likelihood():
    counts, labels = reference()
    known = signatures(counts, labels)
    spots = spots_of_cells(counts, labels, n_spots=5, seed=3)
    found = poisson(spots.counts, known)
    slow = np.full((5, 4), 1.0)
    dense = spots.counts.toarray()
    for _ in range(3000):
        slow = slow * ((dense / (slow @ known.means)) @ known.means.T) / known.means.sum(axis=1)
    np.testing.assert_allclose(proportions(found), proportions(slow), atol=0.02)
    best = log_likelihood(dense, found @ known.means)
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = found * rng.lognormal(0.0, 0.1, found.shape)
        assert (log_likelihood(dense, other @ known.means) <= best + 0.02).all()


def test_weights_are_repeated_genes():
    counts, labels = reference()
    spots = spots_of_cells(counts, labels, n_spots=5, seed=3).counts
    known = signatures(counts, labels)
    weights = np.random.default_rng(0).integers(0, 3, N_GENES).astype(float)
    repeated = np.repeat(np.arange(N_GENES), weights.astype(int))
    longer = type(known)(known.types, known.means[:, repeated], known.n_cells)
    for run in (poisson, least_squares):
        weighted, long = run(spots, known, weights), run(spots[:, repeated].tocsr(), longer)
        np.testing.assert_allclose(proportions(weighted), proportions(long), atol=1e-3)


@pytest.mark.parametrize("method", ["poisson", "platform", "least-squares"])
def test_planted_proportions_are_found(method):
    counts, labels = reference()
    spots = spots_of_cells(counts, labels, n_spots=60, cells=20, seed=5)
    found = deconvolve_counts(spots.counts, counts, labels, method=method, n_replicates=0)
    rmse, pearson = accuracy(found.cells, spots.proportions)
    assert rmse < 0.07
    assert pearson > 0.95


def test_factors_of_genes_are_learnt_from_all_spots():
    counts, labels = reference()
    known = signatures(counts, labels)
    shifted = spots_of_cells(counts, labels, n_spots=150, cells=20, gene_effect=0.8, seed=5)
    error = {
        run: accuracy(proportions(run(shifted.counts, known)), shifted.proportions)[0] for run in (poisson, platform)
    }
    assert error[platform] < 0.8 * error[poisson]
    alike = spots_of_cells(counts, labels, n_spots=150, cells=20, seed=5)
    error = {run: accuracy(proportions(run(alike.counts, known)), alike.proportions)[0] for run in (poisson, platform)}
    assert error[platform] < 1.15 * error[poisson]
    empty = sparse.csr_matrix(alike.counts.shape)
    assert np.isnan(platform(empty, known)).all()


def test_spots_lean_on_their_neighbours_where_that_is_asked_for():
    spots, cells, _ = tables()
    spots.X = sparse.csr_matrix(spots.X.multiply((np.arange(30) != 3)[:, None]))
    nearest = cKDTree(spots.obsm["spatial"]).query(spots.obsm["spatial"], k=7)[1][:, 1:]
    by_hand = spots.copy()
    dense = spots.X.toarray()
    whole = np.round(12 * (dense + 0.5 * dense[nearest].mean(axis=1)))
    by_hand.X = sparse.csr_matrix(whole * (np.arange(30) != 3)[:, None])
    options = {"method": "poisson", "n_replicates": 0}
    smooth = spaf.tl.deconvolve(spots, cells, "kind", smooth=0.5, **options)
    np.testing.assert_allclose(smooth.cells, spaf.tl.deconvolve(by_hand, cells, "kind", **options).cells, atol=5e-3)
    assert np.isnan(smooth.cells[3]).all()
    assert spots.uns["proportions"]["smooth"] == 0.5
    markers = spaf.tl.deconvolve(spots, cells, "kind", smooth=0.5, method="markers", n_replicates=0)
    assert np.isfinite(np.delete(markers.cells, 3, axis=0)).all()
    with pytest.raises(InputError, match="smooth must be at least 0, not -1"):
        spaf.tl.deconvolve(spots, cells, "kind", smooth=-1.0)
    del spots.obsm["spatial"]
    with pytest.raises(InputError, match="no coordinates 'spatial'"):
        spaf.tl.deconvolve(spots, cells, "kind", smooth=0.5)


def exact_spots(factor: np.ndarray, n_spots: int = 150, *, one_mixture: bool = False):
    """Counts that are Poisson's around signatures times a factor of each gene."""
    counts, labels = reference()
    rng = np.random.default_rng(4)
    known = signatures(counts, labels)
    mixture = np.repeat([[1.0, 2.0, 3.0, 4.0]], n_spots, axis=0) if one_mixture else rng.gamma(1.0, 2.5, (n_spots, 4))
    amount = mixture * rng.uniform(0.5, 2.0, (n_spots, 1))
    return counts, labels, sparse.csr_matrix(rng.poisson(amount @ (known.means * factor)).astype(float))


def test_spots_are_judged_by_the_signatures_that_explained_them():
    factor = np.random.default_rng(2).lognormal(0.0, 0.7, N_GENES)
    counts, labels, spots = exact_spots(factor)
    found = {
        method: deconvolve_counts(spots, counts, labels, method=method, n_replicates=0)
        for method in ("platform", "poisson")
    }
    assert np.median(found["platform"].misfit) == pytest.approx(1.0, abs=0.1)
    assert found["platform"].fits.mean() > 0.97
    assert np.median(found["poisson"].misfit) > 2.0
    known = signatures(counts, labels)
    sizes = adapted(spots, known)[0].sizes
    assert np.abs(sizes / known.sizes - 1.0).max() > 0.05
    np.testing.assert_allclose(found["platform"].rna, proportions(found["platform"].cells * sizes), atol=1e-9)


@pytest.mark.parametrize("smooth", [0.0, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("method", ["platform", "poisson", "least-squares"])
def test_misfits_are_of_the_counts_of_a_spot_itself(method, smooth):
    counts, labels, made = exact_spots(np.ones(N_GENES), one_mixture=True)
    genes = [f"G{gene}" for gene in range(N_GENES)]
    cells = ad.AnnData(counts, obs=pd.DataFrame({"kind": labels}, index=[f"c{i}" for i in range(len(labels))]))
    spots = ad.AnnData(made, obs=pd.DataFrame(index=[f"s{i}" for i in range(made.shape[0])]))
    cells.var_names = spots.var_names = genes
    spots.obsm["spatial"] = np.random.default_rng(1).uniform(0, 500, (made.shape[0], 2))
    found = spaf.tl.deconvolve(spots, cells, "kind", smooth=smooth, method=method, n_replicates=0)
    assert found.misfit.mean() == pytest.approx(1.0, abs=0.06)


def test_scores_of_markers_follow_the_truth():
    counts, labels = reference()
    spots = spots_of_cells(counts, labels, n_spots=60, cells=20, seed=5)
    found = deconvolve_counts(spots.counts, counts, labels, method="markers", n_replicates=0)
    assert accuracy(found.cells, spots.proportions)[1] > 0.7
    assert np.isnan(found.misfit).all()
    assert found.fits.all()


def test_scores_of_markers_on_a_panel_of_fewer_genes_than_markers():
    counts, labels = reference()
    few = np.arange(0, N_GENES, 2)
    spots = spots_of_cells(counts[:, few], labels, n_spots=60, cells=20, seed=5)
    found = deconvolve_counts(spots.counts, counts[:, few], labels, method="markers", n_replicates=0)
    assert found.cells.std() > 0.05, "not one share for all types"
    assert accuracy(found.cells, spots.proportions)[1] > 0.7


def test_the_chosen_method_had_the_least_error_on_made_spots():
    counts, labels = reference()
    judged = judge_methods(counts, labels, 500.0)
    assert judged is not None
    assert set(judged["method"]) == set(FUNCTIONS)
    assert judged["rmse"].is_monotonic_increasing
    found = deconvolve_counts(spots_of_cells(counts, labels, n_spots=5).counts, counts, labels, n_replicates=0)
    assert found.judged is not None
    least = found.judged["rmse"].iloc[0]
    assert found.judged.set_index("method").loc[found.method, "rmse"] <= 1.02 * least


def test_scores_without_amounts_are_never_chosen(monkeypatch):
    counts, labels = reference()
    spots = spots_of_cells(counts, labels, n_spots=20).counts
    best = pd.DataFrame({"method": ["markers", "least-squares", "poisson"], "rmse": [0.1, 0.2, 0.3], "pearson": 0.5})
    monkeypatch.setattr("spaf_analysis.deconvolution.compute.judge_methods", lambda *_, **__: best)
    assert deconvolve_counts(spots, counts, labels, n_replicates=0).method == "least-squares"


def test_of_tied_methods_the_one_that_learns_from_spots_is_chosen(monkeypatch):
    counts, labels = reference()
    spots = spots_of_cells(counts, labels, n_spots=20).counts
    for error, chosen in ((0.101, "platform"), (0.11, "poisson")):
        judged = pd.DataFrame({"method": ["poisson", "platform"], "rmse": [0.1, error], "pearson": 0.5})
        monkeypatch.setattr("spaf_analysis.deconvolution.compute.judge_methods", lambda *_, found=judged, **__: found)
        assert deconvolve_counts(spots, counts, labels, n_replicates=0).method == chosen


def test_types_that_are_one_are_said_to_be_alike():
    counts, labels = reference(cells=200)
    doubled = labels.astype("U20")
    doubled[np.flatnonzero(labels == "type 0")[::2]] = "type 0 again"
    alike = signatures(counts, doubled).alike()
    assert [pair[:2] for pair in alike] == [("type 0", "type 0 again")]
    assert signatures(counts, labels).alike() == []


def test_a_spot_of_something_else_does_not_fit():
    counts, labels = reference()
    other, names = reference(seed=77)
    spots = spots_of_cells(counts, labels, n_spots=40, cells=20, seed=5).counts
    strange = spots_of_cells(other, names, n_spots=1, cells=20, seed=5).counts
    found = deconvolve_counts(sparse.vstack([spots, strange]).tocsr(), counts, labels, method="poisson", n_replicates=0)
    assert not found.fits[-1]
    assert found.fits[:-1].mean() > 0.9


def test_misfit_is_one_where_counts_scatter_as_taken():
    counts, labels = reference()
    known = signatures(counts, labels)
    rng = np.random.default_rng(0)
    true = rng.uniform(2, 6, (200, 4))
    spots = sparse.csr_matrix(rng.poisson(true @ known.means).astype(float))
    found = deconvolve_counts(spots, counts, labels, method="poisson", n_replicates=0)
    assert np.mean(found.misfit) == pytest.approx(1.0, abs=0.06)


def test_errors_tell_the_scatter_over_genes():
    counts, labels = reference()
    spots = spots_of_cells(counts, labels, n_spots=60, cells=20, gene_effect=0.4, seed=5)
    found = deconvolve_counts(spots.counts, counts, labels, method="poisson", n_replicates=20)
    assert found.error is not None
    away = np.abs(found.cells - spots.proportions)
    there = spots.proportions > 0.1
    assert 0.75 < (away[there] < 2 * found.error[there]).mean() <= 1.0
    assert found.error.max() < 0.5


def test_squares_hold_the_cells_in_them():
    counts, labels = reference()
    places = np.random.default_rng(0).uniform(0, 300, (len(labels), 2))
    made = spots_of_tissue(counts, labels, places, width=100.0)
    assert made.counts.sum() == counts.sum()
    assert made.n_cells.sum() == len(labels)
    first = (np.floor(places / 100.0) * 100.0 + 50.0 == made.coordinates[0]).all(axis=1)
    np.testing.assert_array_equal(made.counts[0].toarray().ravel(), np.asarray(counts[first].sum(axis=0)).ravel())
    assert made.proportions[0, 0] == pytest.approx((labels[first] == made.types[0]).mean())


def test_effects_and_depth_of_made_spots():
    counts, labels = reference()
    plain = spots_of_cells(counts, labels, n_spots=50, seed=2)
    thin = spots_of_cells(counts, labels, n_spots=50, depth=0.2, gene_effect=0.5, seed=2)
    np.testing.assert_array_equal(plain.proportions, thin.proportions)
    assert 0.1 < thin.counts.sum() / plain.counts.sum() < 0.4
    with pytest.raises(InputError, match="depth must be above 0"):
        spots_of_cells(counts, labels, depth=0.0)
    with pytest.raises(InputError, match="width of a spot must be above 0"):
        spots_of_tissue(counts, labels, np.zeros((len(labels), 2)), width=0.0)


def test_results_lie_in_the_table():
    spots, cells, truth = tables()
    found = spaf.tl.deconvolve(spots, cells, "kind", method="poisson", n_replicates=4)
    table = spots.obsm["proportions"]
    assert list(table.columns) == [f"type {kind}" for kind in range(4)]
    assert list(table.index) == list(spots.obs_names)
    assert accuracy(table.to_numpy(), truth)[0] < 0.1
    np.testing.assert_allclose(spots.obsm["proportions_rna"].sum(axis=1), 1.0)
    assert spots.obsm["proportions_error"].shape == table.shape
    assert spots.obs["proportions_fits"].dtype == "boolean"
    assert spots.uns["proportions"]["method"] == found.method == "poisson"
    assert spots.uns["proportions"]["n_shared_genes"] == N_GENES
    assert spots.uns["proportions"]["share_of_counts_read"] == 1.0
    spaf.tl.deconvolve(spots, cells, "kind", method="poisson", n_replicates=0)
    assert "proportions_error" not in spots.obsm


def test_two_runs_are_equal_and_empty_spots_have_none():
    spots, cells, _ = tables()
    spots.X = sparse.csr_matrix(spots.X.multiply((np.arange(30) != 3)[:, None]))
    first = spaf.tl.deconvolve(spots, cells, "kind", n_replicates=2)
    second = spaf.tl.deconvolve(spots, cells, "kind", n_replicates=2)
    np.testing.assert_array_equal(first.cells, second.cells)
    np.testing.assert_array_equal(first.error, second.error)
    assert np.isnan(first.cells[3]).all()
    assert np.isfinite(np.delete(first.cells, 3, axis=0)).all()
    assert spots.uns["proportions"]["n_empty"] == 1
    assert spots.obs["proportions_fits"].isna().tolist() == [spot == 3 for spot in range(30)]
    spaf.tl.deconvolve(spots, cells, "kind", method="markers", n_replicates=0)
    assert spots.obs["proportions_fits"].isna().all()
    assert spots.uns["proportions"]["n_without_fit"] == 0


def test_types_with_a_slash_have_columns_without(tmp_path):
    spots, cells, _ = tables()
    cells.obs["kind"] = cells.obs["kind"].replace({"type 0": "T/NK", "type 1": "T_NK"})
    spaf.tl.deconvolve(spots, cells, "kind", method="poisson", n_replicates=0)
    spots.write_h5ad(tmp_path / "out.h5ad")
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    assert list(written.obsm["proportions"].columns) == ["T_NK_", "T_NK", "type 2", "type 3"]
    assert list(written.uns["proportions"]["types"]) == ["T/NK", "T_NK", "type 2", "type 3"]
    assert written.obs["proportions_fits"].dtype == "boolean"


def test_markers_compare_the_spots_of_a_slide():
    spots, cells, _ = tables()
    alone = spots[:15].copy()
    spaf.tl.deconvolve(alone, cells, "kind", method="markers", n_replicates=0)
    spots.obs["slide"] = ["a"] * 15 + ["b"] * 15
    spaf.tl.deconvolve(spots, cells, "kind", method="markers", n_replicates=0)
    np.testing.assert_allclose(spots.obsm["proportions"][:15], alone.obsm["proportions"])
    few = spots[10:].copy()
    with pytest.raises(InputError, match="slide 'a' has 5 with counts of shared genes, where at least 10 are needed"):
        spaf.tl.deconvolve(few, cells, "kind", method="markers")


def test_genes_are_found_by_id():
    spots, cells, _ = tables()
    spots.var["gene_ids"] = [f"ENSG{int(name[1:]):011d}" for name in spots.var_names]
    cells.var["gene_ids"] = [f"ENSG{int(name[1:]):011d}.3" for name in cells.var_names]
    cells.var_names = [f"other{gene}" for gene in range(N_GENES)]
    spaf.tl.deconvolve(spots, cells, "kind", method="poisson", n_replicates=0)
    assert spots.uns["proportions"]["n_shared_genes"] == N_GENES


def test_what_cannot_be_used_is_said():
    spots, cells, _ = tables()

    def fails(match: str, **options: object) -> None:
        with pytest.raises(InputError, match=match):
            spaf.tl.deconvolve(spots, cells, **({"label": "kind"} | options))
        assert "proportions" not in spots.obsm

    fails("no column 'type' .label.; it has: kind", label="type")
    fails("there is no method 'em'; the methods are: auto, poisson", method="em")
    fails("number of replicates must be 0 or at least 2, not 1", n_replicates=1)
    fails("the spots has no layer 'raw'; it has: none", layer="raw")
    cells.obs["kind"] = "one"
    fails("holds only 'one'; at least 2")
    cells.obs["kind"] = [None, "nan"] * (cells.n_obs // 2)
    fails("holds no value; at least 2")
    spots, cells, _ = tables()
    cells.X = np.log1p(cells.X.toarray())
    fails("the reference: .*log")
    spots, cells, _ = tables()
    spots.X = spots.X.astype(float)
    spots.X.data[0] = np.nan
    fails("the spots: ")
    spots, cells, _ = tables()
    cells.var_names = [f"other{gene}" for gene in range(N_GENES)]
    alike = r"share less than 5%.*if these are the same genes, name them alike .*\(a column 'gene_ids' of var\)\."
    fails(rf"{alike} Are they of one species\?$")


def test_missing_labels_are_left_out_and_a_type_of_one_cell_is_kept():
    spots, cells, _ = tables()
    kinds = cells.obs["kind"].astype(object)
    kinds.iloc[0], kinds.iloc[1] = np.nan, "rare"
    cells.obs["kind"] = kinds
    spaf.tl.deconvolve(spots, cells, "kind", n_replicates=0)
    assert spots.uns["proportions"]["n_unlabelled"] == 1
    assert "rare" in spots.obsm["proportions"]


def test_picture_and_command(tmp_path):
    spots, cells, _ = tables()
    with pytest.raises(InputError, match="no proportions 'proportions'"):
        spaf.pl.proportion(spots, "type 1")
    spots.write_h5ad(tmp_path / "spots.h5ad")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    out = tmp_path / "out.h5ad"
    words = ["deconvolve", str(tmp_path / "spots.h5ad"), "--reference", str(tmp_path / "cells.h5ad"), "--label", "kind"]
    ran = CliRunner().invoke(app, [*words, "-o", str(out), "--json", "--replicates", "2"])
    assert ran.exit_code == 0, ran.output
    written = ad.read_h5ad(out)
    assert spaf.pl.proportion(written, "type 1").figure is not None
    with pytest.raises(InputError, match="no type 'type 9'; it has: type 0"):
        spaf.pl.proportion(written, "type 9")
    csv = tmp_path / "out.csv"
    assert CliRunner().invoke(app, [*words, "-o", str(csv), "--method", "poisson"]).exit_code == 0
    assert list(pd.read_csv(csv).columns) == ["spot", "type 0", "type 1", "type 2", "type 3"]
