"""Patterns inside cells: planted ones are found, others are not, and what a run lacks is said."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from spaf_data import (
    InputError,
    Outlines,
    Transcripts,
    read_outlines,
    read_transcripts,
    simulate_bundle,
    subcellular_patterns,
)
from spaf_data.patterns import PATTERNS, location_summary
from spaf_data.simulate.recipe import PATTERNS as PLANTED


@pytest.fixture(scope="module")
def patterned(tmp_path_factory):
    return simulate_bundle(
        tmp_path_factory.mktemp("patterns") / "bundle",
        n_cells=120,
        n_genes=90,
        seed=5,
        depth=300,
        n_colocalized_pairs=0,
        n_pattern_genes=2,
    )


@pytest.fixture(scope="module")
def run(patterned):
    found = read_transcripts(patterned)
    return found, read_outlines(patterned, found)


def test_planted_patterns_are_found_and_no_others(patterned, run):
    truth = json.loads((patterned / "truth.json").read_text())["patterns"]
    found = subcellular_patterns(run[0], outlines=run[1])
    assert not found.missing
    assert set(found.table["pattern"]) == set(PATTERNS)
    called = found.table[found.table["fdr"] < 0.05]
    for name in PLANTED:
        genes = set(called.loc[called["pattern"] == name, "gene"])
        assert set(truth[name]) <= genes, name
    planted = {gene for genes in truth.values() for gene in genes}
    others = found.table[~found.table["gene"].isin(planted)]
    assert len(others) > 300
    assert (others["fdr"] < 0.05).sum() <= 3
    assert 0.8 < others["z"].std() < 1.2


def test_scores_of_cells_add_up_to_the_table(run):
    found = subcellular_patterns(run[0], patterns=["nuclear", "punctate"], cell_scores=True)
    assert sorted(found.scores) == ["nuclear", "punctate"]
    score = found.scores["nuclear"]
    assert score.shape == (run[0].n_cells, run[0].n_genes)
    seen = np.diff(score.tocsc().indptr)
    rows = found.table[found.table["pattern"] == "nuclear"].set_index("gene")
    assert (rows["n_cells"] == pd.Series(seen, index=run[0].genes).loc[rows.index]).all()
    # Cells in parts give what cells at once give.
    first = replace_cells(run[0], slice(0, 50))
    alone = subcellular_patterns(first, patterns=["nuclear"], cell_scores=True).scores["nuclear"]
    np.testing.assert_array_equal(alone.toarray(), score[:50].toarray())


def replace_cells(transcripts, cells):
    first, last = transcripts.offsets[cells.start], transcripts.offsets[cells.stop]
    rows = slice(first, last)
    return Transcripts.from_arrays(
        x=transcripts.x[rows],
        y=transcripts.y[rows],
        gene=transcripts.gene[rows],
        cell=transcripts.cell[rows],
        genes=transcripts.genes,
        cells=transcripts.cells[cells],
        in_nucleus=transcripts.in_nucleus[rows],
    )


def test_outlines_of_nuclei_stand_for_flags(run):
    transcripts, outlines = run
    without = replace(transcripts, nucleus_known=False, in_nucleus=np.zeros(transcripts.n_transcripts, bool))
    found = subcellular_patterns(without, outlines=outlines, patterns=["nuclear"]).table
    flagged = subcellular_patterns(transcripts, patterns=["nuclear"]).table.set_index("gene")
    # An outline of 24 sides is a little smaller than the disc that the flags are of.
    np.testing.assert_allclose(found["z"], flagged["z"].loc[found["gene"]], atol=1.2)


def test_p_is_uniform_where_labels_are_permuted(run):
    transcripts, outlines = run
    rng = np.random.default_rng(1)
    gene = np.empty_like(transcripts.gene)
    for start, stop in zip(transcripts.offsets[:-1], transcripts.offsets[1:], strict=True):
        gene[start:stop] = rng.permutation(transcripts.gene[start:stop])
    order = np.lexsort((gene, transcripts.cell))
    shuffled = replace(
        transcripts,
        x=transcripts.x[order],
        y=transcripts.y[order],
        gene=gene[order],
        in_nucleus=transcripts.in_nucleus[order],
    )
    table = subcellular_patterns(shuffled, outlines=outlines).table
    for pattern, rows in table.groupby("pattern"):
        assert 0.35 < rows["p"].mean() < 0.65, pattern
    assert 0.02 < (table["p"] < 0.05).mean() < 0.09
    assert (table["fdr"] < 0.05).sum() <= 1


def test_what_a_run_lacks_is_named(run):
    transcripts, outlines = run
    plain = replace(transcripts, nucleus_known=False, in_nucleus=np.zeros(transcripts.n_transcripts, bool))
    found = subcellular_patterns(plain)
    assert set(found.table["pattern"]) == {"central", "edge", "polarised", "punctate"}
    assert set(found.missing) == {"nuclear", "cytoplasmic", "perinuclear", "peripheral"}
    with pytest.raises(InputError, match=r"transcripts\.parquet has no outlines of cells, which the pattern 'periph"):
        subcellular_patterns(transcripts, outlines=Outlines(nuclei=outlines.nuclei), patterns=["peripheral"])
    with pytest.raises(InputError, match="no outlines of nuclei"):
        subcellular_patterns(transcripts, patterns=["perinuclear"])
    with pytest.raises(InputError, match="no flags of nuclear transcripts or outlines of nuclei"):
        subcellular_patterns(plain, patterns=["nuclear"])


def test_wrong_input_is_one_sentence(run):
    transcripts, _ = run
    with pytest.raises(InputError, match="no pattern 'nucleolar'; the choices are nuclear, cytoplasmic"):
        subcellular_patterns(transcripts, patterns=["nucleolar"])
    with pytest.raises(InputError, match="radius must be above 0 um"):
        subcellular_patterns(transcripts, radius=0)
    with pytest.raises(InputError, match="min_cells must be at least 1"):
        subcellular_patterns(transcripts, min_cells=0)
    with pytest.raises(InputError, match="no gene that at least 500 of its 120 cells"):
        subcellular_patterns(transcripts, min_cells=500)
    pixels = replace(transcripts, x=transcripts.x * 40, y=transcripts.y * 40)
    with pytest.raises(InputError, match="are these pixels"):
        subcellular_patterns(pixels)


def test_a_run_of_another_kind_has_no_outlines(run, tmp_path):
    transcripts, outlines = run
    assert outlines.cells.n_cells == outlines.nuclei.n_cells == transcripts.n_cells
    other = replace(transcripts, parameters={"platform": "table"})
    assert read_outlines(tmp_path, other) == Outlines()


def test_a_bundle_without_outlines_has_none(bundle, transcripts):
    assert read_outlines(bundle, transcripts) == Outlines()


def test_locations_in_numbers(patterned, run):
    truth = json.loads((patterned / "truth.json").read_text())["patterns"]
    table = location_summary(run[0])
    assert table.index.tolist() == run[0].genes
    assert table["n_transcripts"].sum() == run[0].n_transcripts
    assert table.loc[truth["nuclear"], "nucleus_fraction"].min() > table["nucleus_fraction"].median() + 0.2
    assert table.loc[truth["peripheral"], "distance_50"].min() > table.loc[truth["central"], "distance_50"].max()
    plain = replace(run[0], nucleus_known=False)
    assert location_summary(plain)["nucleus_fraction"].isna().all()
