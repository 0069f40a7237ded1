import json
import os
import subprocess
import sys

import pytest

from spaf_analysis import cli


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["spaf-analysis", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0


def stage_options(stages):
    return ["--model", stages.model, "--run", stages.run, "--build", stages.build]


def test_report_writes_page_and_summary(stages, tmp_path, monkeypatch, capsys):
    page, summary = tmp_path / "report.html", tmp_path / "summary.json"
    code = call(
        monkeypatch, "report", stages.embedded, *stage_options(stages), "-o", page, "--summary", summary,
        "--max-pairs", 30, "--replicates", 20, "--json",
    )  # fmt: skip
    assert code == 0
    assert page.read_text().startswith("<!DOCTYPE html>")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads(summary.read_text())
    assert printed.err == ""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("--key", "X_none"), "has no embedding obsm['X_none']"),
        (("--gene", "NOPE"), "the table has no gene 'NOPE'"),
        (("--model", "nowhere"), "there is no model directory at nowhere"),
        (("--resolution", "0"), "resolution must be above 0, not 0"),
        (("-o", "no/such/folder/page.html"), "the folder no/such/folder does not exist"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(stages, tmp_path, monkeypatch, capsys, change, sentence):
    monkeypatch.chdir(tmp_path)
    few = ("--max-pairs", 10, "--replicates", 5)
    code = call(monkeypatch, "report", stages.embedded, *stage_options(stages), "-o", "page.html", *few, *change)
    written = capsys.readouterr()
    assert code == 2
    assert sentence in written.err
    assert written.err.startswith("spaf-analysis: ")
    assert written.err.count("\n") == 1
    assert written.out == ""
    assert list(tmp_path.iterdir()) == []


def test_wrong_options_exit_with_2(monkeypatch, capsys):
    assert call(monkeypatch, "report", "--no-such-option") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_run_of_a_folder_that_is_not_there(tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, "run", tmp_path / "nowhere", "-o", tmp_path / "out") == 2
    assert capsys.readouterr().err == f"spaf-analysis: there is no folder {tmp_path / 'nowhere'}.\n"


def test_run_into_a_folder_in_use(stages, tmp_path, monkeypatch, capsys):
    (tmp_path / "precious.txt").write_text("keep")
    assert call(monkeypatch, "run", stages.bundle, "-o", tmp_path) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_the_command_line_starts_without_heavy_libraries():
    code = (
        "import sys, spaf_analysis.cli; print(sorted({'torch', 'scanpy', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"


def test_figures_need_no_backend_of_the_notebook_that_started_the_command():
    drawn = "cli.app = lambda: print(__import__('matplotlib').get_backend())"
    code = f"from spaf_analysis import cli; {drawn}; cli.main()"
    environment = {**os.environ, "MPLBACKEND": "module://backend_of_another_environment"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    assert run.stdout.strip() == b"agg"


@pytest.mark.parametrize("arguments", [["--help"], ["report", "--help"], ["run", "--help"], ["cell-pairs", "--help"]])
def test_help(monkeypatch, capsys, arguments):
    assert call(monkeypatch, *arguments) == 0
    assert "spaf-analysis" in capsys.readouterr().out
