"""The command, and the section of the report."""

import json
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spaf_analysis import cli, tl
from spaf_analysis.perturbation.section import PerturbationSection
from spaf_model import SpatialFormer, SpatialFormerConfig, Vocabulary


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["spaf-analysis", "perturb", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0


@pytest.fixture
def files(make_tissue, tmp_path):
    adata = make_tissue(0, n_cells=700)
    context = {"assay": ("X",), "species": ("H",), "tissue": ("B",), "condition": ("D",)}
    for kind, names in context.items():
        adata.obs[kind] = names[0]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    vocabulary = Vocabulary.build(list(adata.var_names), scale=np.ones(30), **context)
    sizes = {"width": 16, "n_layers": 1, "n_heads": 2, "conv_kernel": 3, "pair_input": "separate"}
    SpatialFormer(SpatialFormerConfig(**sizes), vocabulary, seed=0).save_pretrained(tmp_path / "model")
    return tmp_path / "cells.h5ad", tmp_path / "model"


FEW = ("--max-pairs", 30, "--permutations", 200, "--gene", "GENE1", "--gene", "GENE2", "--gene", "GENE3")


def test_a_table_json_and_cells_with_the_result(files, tmp_path, monkeypatch, capsys):
    cells, model = files
    types = ("--cell-type", "type", "--left", "A", "--right", "B")
    assert call(monkeypatch, cells, "-m", model, *types, *FEW, "-o", tmp_path / "found.csv", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert len(pd.read_csv(tmp_path / "found.csv")) == printed["n_tested"] == len(printed["table"])
    assert call(monkeypatch, cells, "-m", model, *types, *FEW, "-o", tmp_path / "with.h5ad") == 0
    assert ad.read_h5ad(tmp_path / "with.h5ad").uns["perturbation"]["n_tested"] == printed["n_tested"]


def test_counts_in_a_layer_give_what_they_give_in_x(files, tmp_path, monkeypatch, capsys):
    cells, model = files
    in_layer = ad.read_h5ad(cells)
    in_layer.layers["counts"] = in_layer.X.copy()
    in_layer.X = in_layer.X / 3
    in_layer.write_h5ad(tmp_path / "layer.h5ad")
    pairs = ("--cell-type", "type", "--left", "A", "--right", "B", *FEW)
    for words in (pairs, ("--neighbours", "--gene", "GENE1")):
        assert call(monkeypatch, cells, "-m", model, *words, "--json") == 0
        expected = json.loads(capsys.readouterr().out)["table"]
        assert call(monkeypatch, tmp_path / "layer.h5ad", "-m", model, *words, "--layer", "counts", "--json") == 0
        assert json.loads(capsys.readouterr().out)["table"] == expected
        assert call(monkeypatch, tmp_path / "layer.h5ad", "-m", model, *words, "--layer", "raw", "--json") == 2
        assert "the table has no layer 'raw'; it has: counts" in " ".join(capsys.readouterr().err.split())


def test_context_that_the_table_lacks_is_given_by_options(files, tmp_path, monkeypatch, capsys):
    cells, model = files
    bare = ad.read_h5ad(cells)
    bare.obs = bare.obs[["type"]]
    bare.write_h5ad(tmp_path / "bare.h5ad")
    types = ("--cell-type", "type", "--left", "A", "--right", "B")
    context = ("--condition", "D", "--tissue", "B", "--species", "H", "--assay", "X")
    pairs = (*types, *FEW, "--json")
    around = ("--neighbours", "--gene", "GENE1", "--json")
    for words in (pairs, around):
        assert call(monkeypatch, cells, "-m", model, *words) == 0
        expected = json.loads(capsys.readouterr().out)["table"]
        assert call(monkeypatch, tmp_path / "bare.h5ad", "-m", model, *words) == 2
        assert "--condition, --tissue, --species and --assay" in capsys.readouterr().err
        assert call(monkeypatch, tmp_path / "bare.h5ad", "-m", model, *words, *context) == 0
        assert json.loads(capsys.readouterr().out)["table"] == expected


def test_pairs_from_a_file(files, make_pairs, tmp_path, monkeypatch, capsys):
    cells, model = files
    table = ad.read_h5ad(cells)
    names = table.obs_names.to_numpy()
    pairs = pd.DataFrame({"left": names[:60], "right": names[60:120], "near": np.arange(60) < 30})
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    assert call(monkeypatch, cells, "-m", model, "--pairs", tmp_path / "pairs.csv", *FEW, "--tile", 2000, "--json") == 0
    assert json.loads(capsys.readouterr().out)["n_near"] == 30


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cell-type", "type", "--left", "A", "--right", "Z", "--json"), "no cells of type 'Z'"),
        (("--pairs", "none.csv", "--json"), "there is no file none.csv"),
        (("--neighbours", "--left", "A", "--gene", "GENE1", "--json"), "--left is for pairs of cells"),
        (("--neighbours", "--gene", "GENE1", "-o", "x.csv"), "would be lost"),
        (("--cell-type", "type", "--left", "A", "--right", "B"), "the result goes nowhere"),
        (("--cell-type", "type", "--left", "A", "--right", "B", "--change", "drop", "--json"), "change must be one of"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(files, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, files[0], "-m", files[1], *arguments) == 2
    written = capsys.readouterr()
    assert words in written.err
    assert written.err.count("\n") == 1


class Cells:
    """What a section reads of a context."""

    def __init__(self, adata):
        self.adata = adata


def test_the_section_says_what_was_found_or_how_to_find_it(score, make_tissue):
    adata = make_tissue(0)
    empty = PerturbationSection.compute(Cells(adata))
    assert empty.stored is None
    assert empty.numbers() == {}
    tl.perturb(adata, score, cell_type="type", left="A", right="B", n_permutations=200)
    made = PerturbationSection.compute(Cells(adata))
    assert len(made.figures) == 1
    assert made.numbers()["perturbation"]["n_tested"] == 900
    assert len(made.view()["rows"]) == 10
