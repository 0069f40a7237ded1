import json
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
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


def test_missing_options_and_help(monkeypatch, capsys):
    code, _, errors = run(monkeypatch, capsys, "pretrain", "small")
    assert code == 2
    assert "--data" in errors
    code, text, _ = run(monkeypatch, capsys, "pretrain", "--help")
    assert code == 0
    assert "spaf-train pretrain small --data build/corpus" in text


def test_version_and_module():
    done = subprocess.run([sys.executable, "-m", "spaf_train", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("spaf-train 0.")
