"""Tasks on genes that act together: rows beside baselines, and nothing called where nothing is there."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

import spaf_data
from spaf_analysis import InputError
from spaf_analysis.benchmark import read_benchmark, rows_of, run_benchmark
from spaf_analysis.benchmark.base import Settings
from spaf_analysis.benchmark.config import benchmark_of
from spaf_analysis.benchmark.tasks._replication import agreement, dealt_anew, share, weights_of_genes
from spaf_model import SpatialFormer, SpatialFormerConfig, Vocabulary

CONTEXT = {"tissue": "B", "condition": "D", "species": "H", "assay": "X"}


def values(judged, measure, case=""):
    return {one.name: one.value for one in judged.scores if (one.measure, one.case) == (measure, case)}


@pytest.fixture(scope="module")
def of_transcripts(tmp_path_factory):
    """Gene pairs and patterns of a run in which both are planted."""
    folder = tmp_path_factory.mktemp("run")
    spaf_data.simulate_bundle(
        folder / "run", n_cells=150, n_genes=50, depth=150, n_colocalized_pairs=8, n_pattern_genes=2, seed=3
    )
    cells = spaf_data.bin_transcripts(spaf_data.read_transcripts(folder / "run"), min_transcripts=1)
    cells = cells[np.random.default_rng(0).permutation(cells.n_obs)[:140]].copy()  # some are left out, in no order
    cells.obs["kind"] = np.where(np.arange(cells.n_obs) % 2, "a", "b")
    cells.write_h5ad(folder / "cells.h5ad")
    content = {
        "replicates": 20,
        "data": {"tissue": {"path": "cells.h5ad", "transcripts": "run", "label": "kind"}},
        "methods": {"any": {"key": "spatial"}},
        "tasks": {"gene-pairs": {"min_cells": 10}, "patterns": {}},
    }
    config = benchmark_of(content, folder)
    return folder, config, run_benchmark(config, folder / "out")


def test_planted_genes_agree_in_halves_and_nothing_is_called_where_genes_are_dealt_anew(of_transcripts):
    _, _, cells = of_transcripts
    assert [(cell.task, cell.reason) for cell in cells] == [("gene-pairs", ""), ("patterns", "")]
    pairs, patterns = (cell.judged for cell in cells)
    assert values(pairs, "Spearman of both halves")["enrichment of pairs"] > 0.1
    for case in ("", "markers beyond their genes"):
        called = values(pairs, "called, genes dealt anew", case)
        assert called["enrichment of pairs"] < 0.02
        assert len(called) == 2
    assert values(patterns, "Spearman of both halves", "nuclear")["labels permuted in cells"] > 0.2
    cases = {one.case for one in patterns.scores}
    assert {"nuclear", "cytoplasmic", "central", "polarised", "punctate"} <= cases
    for case in cases:
        assert values(patterns, "called, genes dealt anew", case)["labels permuted in cells"] <= 0.1
    assert {row.verdict for row in rows_of(cells)} <= {"wins", "ties", "loses"}
    assert {row.case for row in rows_of(cells) if row.task == "patterns"} == {"nuclear", "central"}


def test_another_run_is_another_cell_of_the_table_and_none_a_sentence(of_transcripts):
    folder, config, cells = of_transcripts
    again = run_benchmark(config, folder / "out")
    assert [cell.seconds for cell in again] == [cell.seconds for cell in cells]
    (data,) = config.data
    before = data.fingerprint
    del data.__dict__["fingerprint"]
    (folder / "run" / "note").write_text("another file")
    assert data.fingerprint != before
    (folder / "benchmark.toml").write_text(
        'data.tissue.path = "cells.h5ad"\ndata.tissue.transcripts = "gone"\nmethods.any.key = "spatial"'
    )
    with pytest.raises(InputError, match=r"there is no run .*gone \(transcripts\)"):
        read_benchmark(folder / "benchmark.toml").check()


def test_genes_dealt_anew_keep_what_a_cell_has_and_where(of_transcripts):
    folder, _, _ = of_transcripts
    read = spaf_data.read_transcripts(folder / "run")
    other = dealt_anew(read, 0)
    for one in (read, other):
        assert one.n_transcripts == read.n_transcripts
    key = read.cell.astype(np.int64) * read.n_genes
    np.testing.assert_array_equal(
        np.sort(key + read.gene), np.sort(other.cell.astype(np.int64) * read.n_genes + other.gene)
    )
    places = [sorted(zip(one.cell.tolist(), one.x.tolist(), one.y.tolist(), strict=True)) for one in (read, other)]
    assert places[0] == places[1]
    x = read.x[read.cell == 0][np.argsort(read.gene[read.cell == 0], kind="stable")]
    assert not np.array_equal(x, other.x[other.cell == 0])


def test_drawn_genes_weigh_rows_as_if_they_were_repeated():
    rng = np.random.default_rng(0)
    genes = np.stack(np.triu_indices(8, 1), axis=1)
    one, other = rng.normal(size=(2, len(genes)))
    other += one
    weights = weights_of_genes(genes, 8, Settings(replicates=5))
    value, draws = agreement(one, other, weights)
    assert value == pytest.approx(spearmanr(one, other).statistic)
    ranks = np.stack([values.argsort().argsort() for values in (one, other)])
    repeated = np.repeat(ranks, weights[2].astype(int), axis=1)
    assert draws[2] == pytest.approx(np.corrcoef(repeated)[0, 1])
    flags = one > 0
    value, draws = share(flags, weights)
    assert value == flags.mean()
    assert draws[2] == pytest.approx(np.repeat(flags, weights[2].astype(int)).mean())
    with pytest.raises(InputError, match="both halves of the tissue tell of 5 rows together; 10 are needed"):
        agreement(np.where(np.arange(28) < 5, one, np.nan), other, weights)


@pytest.fixture(scope="module")
def of_cells(cells, tmp_path_factory):
    """Ligands, perturbation and attention of cells with labels, asked of a model with random weights."""
    folder = tmp_path_factory.mktemp("cells")
    table = cells.copy()
    for kind, name in CONTEXT.items():
        table.obs[kind] = name
    table.write_h5ad(folder / "cells.h5ad")
    (folder / "pairs.csv").write_text("ligand,receptor\nG1,G2\nG3,G4\nG5,G6\n")
    vocabulary = Vocabulary.build(
        list(table.var_names), scale=np.ones(40), **{kind: (name,) for kind, name in CONTEXT.items()}
    )
    sizes = {"width": 16, "n_layers": 1, "n_heads": 2, "conv_kernel": 3}
    for pair_input in ("joint", "separate"):
        model = SpatialFormer(SpatialFormerConfig(**sizes, pair_input=pair_input), vocabulary, seed=0)
        model.save_pretrained(folder / pair_input)
    content = {
        "replicates": 20,
        "data": {"tissue": {"path": "cells.h5ad", "label": "region"}},
        "methods": {"separate": {"model": "separate"}, "good": {"key": "X_good"}},
        "tasks": {
            "ligrec": {"resource": "pairs.csv", "n_pairs": 100, "n_shuffles": 2, "tile": 120.0},
            "perturbation": {"left": "r0", "max_pairs": 40, "min_pairs": 4, "n_shuffles": 1, "n_permutations": 200},
        },
    }  # fmt: skip
    found = run_benchmark(benchmark_of(content, folder), folder / "out")
    content["methods"] |= {"joint": {"model": "joint"}}
    content["tasks"] = {"attention": {"left": "r0", "n_pairs": 2, "n_shuffles": 3}}
    found += run_benchmark(benchmark_of(content, folder), folder / "out")
    return {(cell.task, cell.method): cell for cell in found}


def test_random_pairs_are_called_by_the_usual_null_and_not_within_types(of_cells):
    (cell,) = [cell for (task, _), cell in of_cells.items() if task == "ligrec"]
    assert cell.reason == ""
    wrong = values(cell.judged, "share with p of at most .05", "cells change places")
    assert wrong["dealt within type and tile"] < 0.12
    assert wrong["dealt among all cells"] > 2 * wrong["dealt within type and tile"]
    assert values(cell.judged, "mean rank among pairs as frequent", "3 pairs of the resource")["chance"] == 0.5


def test_models_are_asked_beside_what_needs_none(of_cells):
    for task, methods in (("perturbation", ("separate",)), ("attention", ("joint",))):
        for method in methods:
            cell = of_cells[task, method]
            assert cell.reason == ""
            assert {row.method for row in rows_of([cell])} == {method}
    measure = "share with p of at most .05, cells of a type dealt anew"
    wrong = values(of_cells["perturbation", "separate"].judged, measure)
    assert max(wrong.values()) < 0.15
    assert set(wrong) == {"separate", "product of amounts"}
    found = values(of_cells["attention", "joint"].judged, "Spearman with deletion")
    assert set(found) == {"joint", "product of detection rates", "position alone"}


def test_what_cannot_be_asked_is_a_sentence(of_cells):
    assert "is an embedding of cells" in of_cells["perturbation", "good"].reason
    assert "is an embedding of cells" in of_cells["attention", "good"].reason
    assert "no gene of one attends to one of the other" in of_cells["attention", "separate"].reason


@pytest.mark.parametrize("option", ["n_pairs", "tile"])
def test_options_of_ligrec_are_checked(option):
    from spaf_analysis.benchmark.base import TASKS

    with pytest.raises(InputError, match=f"{option} must be above 0"):
        dataclasses.replace(TASKS["ligrec"](), **{option: 0})
