import json
import subprocess
import sys

import anndata
import numpy as np
import pytest

import spaf_train
from spaf_train import cli


def run(monkeypatch, capsys, *arguments):
    """Run the command line in this process; return exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["spaf-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    return caught.value.code or 0, captured.out, captured.err


def test_pretrain_reports_json(monkeypatch, capsys, config_path, corpus, tmp_path):
    out = tmp_path / "run"
    few = ("--set", "run.steps=2", "--set", "run.validate_every=1")
    code, answer, errors = run(
        monkeypatch, capsys, "pretrain", config_path, "--data", corpus.path, "--out", out, "--json", *few
    )
    assert code == 0, errors
    answer = json.loads(answer)
    assert answer["finished"] is True
    assert answer["step"] == 2
    assert answer["best"]["step"] in (1.0, 2.0)
    assert (out / "model" / "model.safetensors").is_file()
    assert errors == ""


def test_pretrain_fits_the_tissue_by_default(monkeypatch, capsys, caplog, corpus, tmp_path):
    out = tmp_path / "run"
    command = ("pretrain", "--data", corpus.path, "--out", out)
    code, answer, errors = run(monkeypatch, capsys, *command)
    assert code == 0, errors
    assert "Fitted 2" in answer
    assert str(out / "model") in answer
    assert caplog.text.count("a network needs 1,500") == 1
    assert errors == ""
    caplog.clear()
    assert run(monkeypatch, capsys, *command, "--resume")[0] == 0
    assert caplog.text.count("a network needs 1,500") == 1
    assert json.loads((out / "model" / "config.json").read_text())["config"]["preset"] == "tissue"
    again = ("pretrain", "neighbours", "--data", corpus.path, "--out", tmp_path / "other", "--json")
    code, answer, errors = run(monkeypatch, capsys, *again)
    assert code == 0, errors
    assert json.loads(answer)["fallback"] == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tissue", "--set", "radius=0.0"], "radius must be above 0"),
        (["nowhere"], "There is no configuration nowhere"),
        (["small", "--set", "run.stepz=3"], "run.stepz is not an option; did you mean steps"),
    ],
)
def test_mistakes_are_one_line_and_exit_two(monkeypatch, capsys, corpus, tmp_path, arguments, sentence):
    code, _, errors = run(monkeypatch, capsys, "pretrain", *arguments, "--data", corpus.path, "--out", tmp_path / "run")
    assert code == 2
    assert errors.startswith("spaf-train pretrain: ")
    assert sentence in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_corpus_is_named(monkeypatch, capsys, tmp_path):
    code, _, errors = run(
        monkeypatch, capsys, "pretrain", "small", "--data", tmp_path / "nothing", "--out", tmp_path / "run"
    )
    assert code == 2
    assert str(tmp_path / "nothing") in errors
    assert errors.count("\n") == 1


def test_an_output_that_cannot_be_written_is_named(monkeypatch, capsys, config_path, corpus, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    code, _, errors = run(monkeypatch, capsys, "pretrain", config_path, "--data", corpus.path, "--out", out)
    assert code == 2
    assert str(tmp_path / "file") in errors
    assert errors.count("\n") == 1


def test_evaluate_writes_and_prints_json(monkeypatch, capsys, model_dir, corpus, tmp_path):
    few = ("--max-pairs", "20", "--replicates", "4", "--radius", "30")
    code, answer, errors = run(
        monkeypatch, capsys, "evaluate", model_dir, "--data", corpus.path, "-o", tmp_path / "out", "--json", *few
    )
    assert code == 0, errors
    answer = json.loads(answer)
    assert answer == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert {row["score"] for row in answer["masked_genes"]} >= {"model", "unigram"}
    assert {row["radius"] for row in answer["cell_pairs"]["scores"]} == {30.0}
    assert answer["colocalization"]["scores"][0]["score"] == "model"
    code, text, errors = run(monkeypatch, capsys, "evaluate", model_dir, "--data", corpus.path, *few)
    assert code == 0, errors
    for title in ("Masked genes", "Co-localised genes", "Neighbouring cells", "Calibration error", "PCA logistic"):
        assert title in text


def test_finetune_then_predict(monkeypatch, capsys, model_dir, slides, tmp_path):
    adata = slides[0].copy()
    del adata.obsm["colocalization"], adata.uns["colocalization"]
    adata.obs["cell_type"] = np.where(adata.obsm["spatial"][:, 1] > 125, "upper", "lower")
    cells, model, labelled = tmp_path / "cells.h5ad", tmp_path / "types", tmp_path / "labelled.h5ad"
    adata.write_h5ad(cells)
    tune = ("finetune", model_dir, "--task", "labels", "--data", cells, "--method", "probe", "-o", model)
    code, text, errors = run(monkeypatch, capsys, *tune, "--label", "cell_type", "--set", "device=cpu")
    assert code == 0, errors
    assert "fine-tuned model" in text
    assert "most frequent class" in text
    code, answer, errors = run(monkeypatch, capsys, "predict-labels", cells, "--model", model, "-o", labelled, "--json")
    assert code == 0, errors
    assert sum(json.loads(answer).values()) == adata.n_obs
    assert set(anndata.read_h5ad(labelled).obs["label_pred"]) == {"lower", "upper"}
    for arguments, sentence in [
        ((*tune[:-1], tmp_path / "other"), "--task labels needs --label"),
        ((*tune[:-1], tmp_path / "other", "--label", "niche"), "obs has no column 'niche'"),
        ((*tune[:-1], tmp_path / "other", "--label", "cell_type", "--hold-out", "first"), "--hold-out is written"),
        ((*tune, "--label", "cell_type"), "already holds something"),
        ((*tune[:-1], tmp_path / "other", "--label", "cell_type", "--set", "stepz=3"), "did you mean steps"),
        (
            (*tune[:-1], tmp_path / "other", "--label", "cell_type", "--set", "method=half"),
            "must be one of full",
        ),
        (("predict-labels", cells, "--model", model_dir, "-o", labelled), "predicts no labels"),
        (("predict-labels", cells, "--model", model, "-o", cells), "would overwrite the input"),
        (("predict-labels", tmp_path / "no.h5ad", "--model", model, "-o", labelled), "does not exist"),
    ]:
        code, _, errors = run(monkeypatch, capsys, *arguments)
        assert code == 2
        assert sentence in errors
        assert errors.count("\n") == 1
    assert not (tmp_path / "other").exists()


def test_finetune_for_pairs(monkeypatch, capsys, model_dir, corpus, tmp_path):
    tune = ("finetune", model_dir, "--task", "pairs", "--data", corpus.path, "--rank", "2", "-o", tmp_path / "out")
    few = ("--set", "steps=2", "--set", "validate_every=1", "--set", "validation_inputs=50", "--set", "device=cpu")
    code, answer, errors = run(monkeypatch, capsys, *tune, *few, "--json")
    assert code == 0, errors
    assert json.loads(answer)["parameters"]["rank"] == 2
    assert (tmp_path / "out" / "model.safetensors").is_file()
    code, _, errors = run(monkeypatch, capsys, *tune[:-1], tmp_path / "other", "--label", "cell_type")
    assert code == 2
    assert "--label is an option of --task labels" in errors


def test_the_model_that_comes_with_the_package_goes_by_its_name(monkeypatch, capsys, corpus, tmp_path):
    for command in (("evaluate", "starter-1"), ("finetune", "starter-1", "--task", "pairs", "-o", tmp_path / "out")):
        code, _, errors = run(monkeypatch, capsys, *command, "--data", corpus.path)
        assert code == 2
        assert "no such folder" not in errors


def test_missing_options_and_help(monkeypatch, capsys):
    code, _, errors = run(monkeypatch, capsys, "pretrain", "small")
    assert code == 2
    assert "--data" in errors
    code, text, _ = run(monkeypatch, capsys, "pretrain", "--help")
    assert code == 0
    assert "spaf-train pretrain small --data build/corpus" in text


def test_help_needs_no_library():
    """The libraries take seconds to import; of spaf_data the defaults are there, which need none."""
    code = (
        "import sys, spaf_train, spaf_train.cli; "
        "print(sorted({'torch', 'numpy', 'anndata', 'scipy', 'sklearn', 'spaf_model'} & {*sys.modules}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert answer == "[]\n"


def test_every_public_name_is_there_when_it_is_used():
    for name in spaf_train.__all__:
        assert getattr(spaf_train, name) is not None


def test_version_and_module():
    done = subprocess.run([sys.executable, "-m", "spaf_train", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("spaf-train 0.")
