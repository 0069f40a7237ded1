"""Patterns of genes inside cells: into a table, drawn, in the report, on the command line, and beside the baseline."""

import json
import sys
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from sklearn.metrics import roc_auc_score

from spaf_analysis import InputError, cli, pl, tl
from spaf_analysis.patterns import leading_patterns, location_baseline, pattern_counts
from spaf_analysis.patterns.section import PatternsSection
from spaf_data import bin_transcripts, location_summary, read_transcripts, simulate_bundle

N_PLANTED = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return simulate_bundle(
        tmp_path_factory.mktemp("patterns") / "bundle",
        n_cells=80,
        n_genes=80,
        seed=5,
        depth=400,
        n_colocalized_pairs=0,
        n_pattern_genes=N_PLANTED,
    )


@pytest.fixture(scope="module")
def truth(run):
    return json.loads((run / "truth.json").read_text())["patterns"]


@pytest.fixture(scope="module")
def cells(run):
    adata = bin_transcripts(read_transcripts(run), min_transcripts=1)
    tl.patterns(adata, run, cell_scores=True)
    return adata


@pytest.fixture
def call(monkeypatch, capsys):
    def say(*words):
        monkeypatch.setattr(sys, "argv", ["spaf-analysis", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return say


def test_planted_genes_are_found(cells, truth):
    table = cells.uns["patterns"]["table"]
    called = table[table["fdr"] <= 0.05]
    for name, genes in truth.items():
        assert set(genes) <= set(called.loc[called["pattern"] == name, "gene"]), name
    counts = pattern_counts(table)
    assert counts.loc["nuclear", "n_called"] == (called["pattern"] == "nuclear").sum()
    leading = leading_patterns(table).set_index("gene")["pattern"]
    assert (leading[truth["punctate"]] == "punctate").all()
    assert leading.index.is_unique


def test_scores_of_cells_are_where_the_cells_are(cells, run, truth):
    some = cells[::-1][:30].copy()
    del some.layers["patterns_nuclear"]
    tl.patterns(some, run, patterns=["nuclear"], cell_scores=True)
    assert some.uns["patterns"]["n_cells"] == 30
    found, before = some.layers["patterns_nuclear"].toarray(), cells.layers["patterns_nuclear"].toarray()[::-1][:30]
    np.testing.assert_allclose(found, before, rtol=1e-6)
    assert found[:, cells.var_names.get_indexer(truth["nuclear"])].mean() > 0.5


def test_spatial_data_reads_its_own_points(run):
    dask = pytest.importorskip("dask.dataframe")
    import spatialdata

    transcripts = read_transcripts(run)
    genes = pd.Categorical(np.array(transcripts.genes)[transcripts.gene])
    points = pd.DataFrame(
        {"x": transcripts.x, "y": transcripts.y, "gene": genes, "cell_id": transcripts.cells[transcripts.cell]}
    )
    element = spatialdata.models.PointsModel.parse(
        dask.from_pandas(points, npartitions=1), feature_key="gene", instance_key="cell_id"
    )
    table = bin_transcripts(transcripts, min_transcripts=1)
    store = spatialdata.SpatialData(points={"transcripts": element}, tables={"cells": table})
    tl.patterns(store, table_key="cells")
    stored = store.tables["cells"].uns["patterns"]
    assert set(stored["missing"]) == {"nuclear", "cytoplasmic", "perinuclear", "peripheral"}
    assert isinstance(pl.patterns(store, table_key="cells"), Axes)


def test_genes_are_drawn_by_pattern(cells):
    axes = pl.patterns(cells, n=10)
    assert len(axes.get_yticks()) == 10
    names = [label.get_text() for label in axes.get_xticklabels()]
    # Of the two sides of a statistic one is drawn.
    assert names == ["central", "nuclear", "perinuclear", "peripheral", "polarised", "punctate"]


def test_the_report_shows_what_is_stored_or_says_what_it_needs(cells, truth, html_of):
    section = PatternsSection.compute(SimpleNamespace(adata=cells))
    page = html_of(section)
    assert "1 figures" in page
    assert truth["punctate"][0] in page
    assert section.numbers()["genes_of_pattern"]["nuclear"] >= N_PLANTED
    bare = ad.AnnData(np.ones((3, 2)))
    assert "spaf-analysis patterns RUN" in html_of(PatternsSection.compute(SimpleNamespace(adata=bare)))
    bare.uns["patterns"] = {
        "table": cells.uns["patterns"]["table"].assign(fdr=1.0), "missing": {"peripheral": "outlines of cells"}
    }  # fmt: skip
    page = html_of(PatternsSection.compute(SimpleNamespace(adata=bare)))
    assert "No gene is called" in page
    assert "for which the run has no\noutlines of cells" in page
    with pytest.raises(InputError, match="no gene of uns"):
        pl.patterns(bare)


def test_the_command_writes_what_its_ending_says(run, cells, tmp_path, call):
    assert call("patterns", run, "-o", tmp_path / "out.csv") == (0, "", "")
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["gene"].tolist() == cells.uns["patterns"]["table"]["gene"].tolist()
    cells[:40].write_h5ad(tmp_path / "some.h5ad")
    words = ("--cells", tmp_path / "some.h5ad", "--pattern", "punctate", "--cell-scores", "--key-added", "mine")
    code, printed, said = call("patterns", run, *words, "-o", tmp_path / "out.h5ad", "--json")
    assert (code, said) == (0, "")
    written, shown = ad.read_h5ad(tmp_path / "out.h5ad"), json.loads(printed)
    assert written.layers["mine_punctate"].nnz
    assert shown["n_cells"] == written.n_obs == 40
    assert {row["pattern"] for row in shown["table"]} == {"punctate"}


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_wrong_input_is_one_sentence(run, cells, tissue, tmp_path, call):
    out = tmp_path / "out.csv"
    for words, what in (
        ((run, "--pattern", "round"), "there is no pattern 'round'; the choices are nuclear"),
        ((run, "--cell-scores"), "name an .h5ad file with -o"),
        ((run, "--min-cells", 100), "no gene that at least 100 of its 80 cells"),
        ((tmp_path / "none",), "none does not exist"),
    ):
        code, printed, said = call("patterns", *words, "-o", out)
        assert (code, printed, len(said.splitlines())) == (2, "", 1)
        assert what in said
    assert not out.exists()
    with pytest.raises(InputError, match="an AnnData holds no transcripts"):
        tl.patterns(cells)
    with pytest.raises(InputError, match=r"no cell of the table is one of transcripts\.parquet: its first is 'cell0'"):
        tl.patterns(tissue, run)
    with pytest.raises(InputError, match="uns has no patterns inside cells 'other'"):
        pl.patterns(cells, key="other")
    twice = cells[:, [0, *range(cells.n_vars)]].copy()
    for layer in list(twice.layers):
        del twice.layers[layer]
    gene = cells.var_names[0]
    with pytest.raises(InputError, match=f"the table has two genes named '{gene}'; make gene names unique first"):
        tl.patterns(twice, run, cell_scores=True)
    tl.patterns(twice, run, patterns=["punctate"])  # which needs no genes of the table
    assert not twice.layers
    double = ad.concat([cells, cells], keys=["a", "b"], index_unique="-")
    double.obs["id"] = [name.rsplit("-", 1)[0] for name in double.obs_names]
    double.uns["spatialdata_attrs"] = {"instance_key": "id"}
    with pytest.raises(InputError, match="several rows for a cell"):
        tl.patterns(double, run)


def test_the_baseline_learns_from_other_genes(run, truth):
    summary = location_summary(read_transcripts(run))
    has = summary.index.isin(truth["nuclear"])
    scores = location_baseline(summary, has)
    assert roc_auc_score(has, scores) > 0.85
    with pytest.raises(InputError, match="2 genes with transcripts have the pattern"):
        location_baseline(summary, has & (np.cumsum(has) < 3))
