import dataclasses
import inspect
import json
import sys

import pytest

from spaf_train import GeneEmbeddingOptions, GeneEmbeddings, cli
from spaf_train.commands.gene_embeddings import gene_embeddings_command


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["spaf-train", "gene-embeddings", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return call


def test_a_bundle_becomes_a_folder(run, bundle, tmp_path):
    out = tmp_path / "genes"
    code, answer, errors = run("--input", bundle, "--out", out, "--dimensions", 8, "--null", "cells", "--json")
    assert code == 0, errors
    record = json.loads(answer)
    assert (record["n_genes"], record["parameters"]["null"]) == (60, "cells")
    assert GeneEmbeddings.load(out).vectors.shape == (60, 8)
    code, text, errors = run(bundle, "-o", out, "--dimensions", 4, "--across-cells")
    assert code == 0, errors
    assert "genes have a vector of 4 dimensions" in text
    assert GeneEmbeddings.load(out).record["parameters"]["across_cells"] is True


def test_mistakes_are_one_line_and_exit_two(run, bundle, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = ("--out", tmp_path / "genes")
    (tmp_path / "taken").write_text("")
    for arguments, sentence in [
        (("--input", bundle, *out, "--dimensions", 60), "dimensions is 60, and must be at most"),
        (("--input", bundle, *out, "--null", "random"), "null must be one of cells, abundance, not 'random'"),
        (("--input", bundle, *out, "--radius", 0), "radius must be above 0 um"),
        (("--input", tmp_path / "nowhere", *out), "nowhere does not exist"),
        (("--input", empty, *out), "empty is not a run with transcripts or counts"),
        (out, "give either runs"),
        (("--input", bundle, *out, "--platform", "microscope"), "unknown platform 'microscope'"),
        (
            ("--input", bundle, *out, "--platform", "table", "--columns", "gene"),
            "--columns has 'gene' without a column",
        ),
        (("--dataset", "brain", *out), "there is no data set 'brain'; the choices are xenium_breast_window"),
        (("--sheet", tmp_path / "taken", *out), "has no column 'input'"),
        (("--input", bundle, *out, "--build", empty), "no build with a slide 'bundle'"),
        (("--input", bundle, "--out", tmp_path / "taken"), "exists and is no folder of gene embeddings"),
    ]:
        code, _, errors = run(*arguments)
        assert code == 2, arguments
        assert sentence in errors
        assert errors.startswith("spaf-train gene-embeddings: ")
        assert errors.count("\n") == 1
        assert not (tmp_path / "genes").exists()
    code, _, errors = run("--input", bundle, *out, "--dimension", 4)
    assert code == 2
    assert "--dimension" in errors


def test_help_has_an_example(run):
    code, text, _ = run("--help")
    assert code == 0
    assert "spaf-train gene-embeddings XENIUM_FOLDER --out genes" in text


def test_defaults_of_the_command_are_those_of_the_options():
    shown = inspect.signature(gene_embeddings_command).parameters
    for field in dataclasses.fields(GeneEmbeddingOptions):
        assert shown[field.name].default == field.default, field.name
