import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from spaf_model import InputError
from spaf_train.evaluation import log_counts
from spaf_train.evaluation.log_counts import LogCounts


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.linspace(0.5, 6.0, 8), (60, 8)).astype(np.float32)
    counts[3] = 0
    return ad.AnnData(
        sparse.csr_matrix(counts), obs=pd.DataFrame(index=[f"c{i}" for i in range(60)]),
        var=pd.DataFrame(index=[f"G{i}" for i in range(8)]),
    )  # fmt: skip


def test_values_are_logarithms_over_the_median_total(table):
    rows = np.arange(10, 40)
    fitted, values = LogCounts.fit(table, rows)
    dense = table.X.toarray()
    totals = dense.sum(axis=1)
    depth = np.median(totals[rows])
    assert fitted.depth == depth
    expected = np.log1p(dense / np.maximum(totals, 1)[:, None] * depth)
    assert np.isnan(values[3]).all()
    kept = np.arange(60) != 3
    np.testing.assert_allclose(values[kept], expected[kept], rtol=1e-5)
    np.testing.assert_allclose(fitted.mean, expected[rows].mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(fitted.of(table), values)


def test_only_fitted_cells_are_looked_at(table):
    rows = np.arange(10, 40)
    changed = table.copy()
    changed.X = changed.X.toarray()
    changed.X[40:] *= 7
    one, other = (LogCounts.fit(cells, rows)[0] for cells in (table, changed))
    assert one.depth == other.depth
    np.testing.assert_array_equal(one.mean, other.mean)


def test_a_gene_that_is_not_measured_counts_as_its_mean(table):
    fitted, values = LogCounts.fit(table, np.arange(60)[np.arange(60) != 3])
    fewer = table[:, ["G7", "G6", "G5", "G4", "G3"]].copy()
    found = fitted.of(fewer)
    np.testing.assert_array_equal(found[0, :3], fitted.mean[:3])
    kept = np.arange(60) != 3
    assert np.abs(found[kept, 3:] - values[kept, 3:]).mean() < 0.1
    with pytest.raises(
        InputError, match="measures 3 of the 8 genes that the labels were learnt from, with .* at least"
    ):
        fitted.of(table[:, :3].copy())


def test_of_many_genes_those_that_vary_most(table, monkeypatch):
    monkeypatch.setattr(log_counts, "MAX_GENES", 3)
    rows = np.arange(10, 60)
    fitted, values = LogCounts.fit(table, rows)
    assert values.shape == (60, 3)
    dense = table.X.toarray()[rows]
    totals = dense.sum(axis=1, keepdims=True)
    variance = np.log1p(dense / totals * np.median(totals)).var(axis=0)
    assert set(fitted.genes) == {f"G{gene}" for gene in np.argsort(-variance)[:3]}


def test_what_is_no_count_is_refused(table):
    table.layers["logs"] = table.X.log1p()
    with pytest.raises(InputError, match="raw counts"):
        LogCounts.fit(table, np.arange(60), layer="logs")
    with pytest.raises(InputError, match="No training cell has any count"):
        LogCounts.fit(table, np.array([3]))
