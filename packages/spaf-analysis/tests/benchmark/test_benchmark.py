"""The whole benchmark: every task by the code of its analysis, its verdicts, its files, and where it goes on."""

import dataclasses
import json
import logging
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from typer.testing import CliRunner

from spaf_analysis import judge_niches
from spaf_analysis.benchmark import Difference, Judged, Method, Score, Task, read_benchmark, rows_of, run_benchmark
from spaf_analysis.benchmark.base import METHODS, TASKS
from spaf_analysis.benchmark.config import benchmark_of
from spaf_analysis.cli import app
from spaf_analysis.deconvolution import METHODS as METHODS_OF_SPOTS


def row(rows, method, measure, case=""):
    (found,) = [one for one in rows if (one.method, one.measure, one.case) == (method, measure, case)]
    return found


def test_what_says_all_wins_or_ties_and_noise_loses(folder):
    cells = run_benchmark(read_benchmark(folder / "benchmark.toml"), folder / "out")
    assert [(cell.task, cell.method, cell.reason) for cell in cells] == [
        ("identity", "good", ""), ("identity", "noise", ""), ("annotation", "good", ""), ("annotation", "noise", ""),
    ]  # fmt: skip
    rows = rows_of(cells)
    identity = [one for one in rows if one.task == "identity"]
    assert row(identity, "good", "macro-F1").score.value > 0.9
    lost = row(identity, "noise", "macro-F1")
    assert lost.verdict == "loses"
    assert lost.difference.high < 0
    assert lost.baseline in {"log counts", "PCA", "k-NN"}
    assert lost.difference.value == pytest.approx(lost.score.value - lost.baseline_score.value)
    roles = {score.name: score.role for score in cells[0].judged.scores}
    assert roles["random numbers"] == roles["most frequent class"] == "control"
    # Counts say all that is to know here, so auto never loses to them by much, and noise is not chosen.
    assert row([one for one in rows if one.task == "annotation"], "noise", "macro-F1").verdict == "ties"
    assert any("auto took" in note for cell in cells[2:] for note in cell.judged.notes)


@pytest.fixture(scope="module")
def judged(cells, tmp_path_factory):
    """All tasks but the slowest baseline, asked once."""
    folder = tmp_path_factory.mktemp("all")
    cells.write_h5ad(folder / "cells.h5ad")
    content = {
        "replicates": 10,
        "data": {
            "tissue": {
                "path": "cells.h5ad", "label": "kind", "region": "region", "batch": "slide", "parts": "slides",
                "spot": 60.0,
            }
        },
        "methods": {"good": {"key": "X_good"}},
        "tasks": {
            "cell-pairs": {"radii": [30.0], "max_pairs": 100, "tower": False}, "niches": {"seeds": 1},
            "integration": {"max_cells": 120}, "deconvolution": {}, "identity": {}, "annotation": {},
            "imputation": {},
        },
    }  # fmt: skip
    config = benchmark_of(content, folder)
    return config, run_benchmark(config, folder / "out")


def test_every_task_has_methods_baselines_and_verdicts(judged):
    _, cells = judged
    assert [cell.reason for cell in cells] == [""] * 7
    for cell in cells:
        roles = {score.role for score in cell.judged.scores}
        assert {"method", "baseline"} <= roles, cell.task
        assert rows_of([cell]), cell.task
        assert cell.judged.units[1] > 1
    by_task = {cell.task: cell.judged for cell in cells}
    names = {task: {score.name for score in one.scores} for task, one in by_task.items()}
    assert {"PCA, cosine", "PCA, pair network", "neighbours in closed form, cosine"} <= names["cell-pairs"]
    assert {"PCA averaged twice", "joint Leiden", "niches, expression", "good, embedding alone"} <= names["niches"]
    assert {"PCA", "scaled PCA", "HVG + PCA", "random projection", "random numbers"} <= names["integration"]
    assert names["deconvolution"] == {"deconvolve", *METHODS_OF_SPOTS, "frequencies of the reference"}
    assert {"impute", "knn", "spage", "ridge"} <= names["imputation"]
    assert {one.case for one in by_task["cell-pairs"].scores} == {"30 um, far", "30 um, hard"}


def test_niches_are_judged_as_by_their_analysis(judged, cells):
    _, found = judged
    (judged_here,) = [cell.judged for cell in found if cell.task == "niches"]
    table = cells.copy()
    table.obsm["X_SpaF"] = table.obsm["X_good"]
    expected = judge_niches(table, "region", seeds=range(1), n_replicates=10).set_index("method")
    for name, of in (("good", "niches, both"), ("PCA averaged twice", "PCA averaged twice"), ("PCA", "PCA")):
        (score,) = [one for one in judged_here.scores if one.name == name and one.measure == "ARI"]
        assert score.value == pytest.approx(expected.loc[of, "ari"])
        assert score.low == pytest.approx(expected.loc[of, "ari_low"])


def test_no_measure_of_identity_prefers_noise(judged):
    _, cells = judged
    (integration,) = [cell.judged for cell in cells if cell.task == "integration"]
    values = {(one.name, one.measure): one.value for one in integration.scores}
    for measure in ("NMI", "ARI", "purity"):
        assert values["PCA", measure] > values["random numbers", measure] + 0.2


def test_the_less_error_wins(judged):
    _, cells = judged
    (row,) = [one for one in rows_of(cells) if one.task == "deconvolution" and one.measure == "RMSE"]
    scores = {one.name: one.value for cell in cells if cell.task == "deconvolution"
              for one in cell.judged.scores if one.measure == "RMSE" and one.role == "baseline"}  # fmt: skip
    assert row.baseline == min(scores, key=scores.get)


def test_page_json_and_markdown_say_the_same(folder):
    ran = CliRunner().invoke(app, ["benchmark", str(folder / "benchmark.toml"), "-o", str(folder / "out"), "--json"])
    assert ran.exit_code == 0, ran.output
    assert {path.name for path in (folder / "out").iterdir()} == {
        "cells", "benchmark.html", "benchmark.json", "benchmark.md"
    }  # fmt: skip
    content = json.loads((folder / "out" / "benchmark.json").read_text())
    assert json.loads(ran.stdout) == content
    markdown, page = ((folder / "out" / f"benchmark.{end}").read_text() for end in ("md", "html"))
    for one in content["rows"]:
        for text in (markdown, page):
            assert f"{one['score']:.3f} ({one['score_low']:.3f} to {one['score_high']:.3f})" in text
        assert one["verdict"] in markdown
    assert "<script" not in page
    assert page.count("noise") > 2


def test_what_was_judged_is_not_judged_again(folder, monkeypatch):
    config = read_benchmark(folder / "benchmark.toml")
    first = run_benchmark(config, folder / "out")
    files = sorted((folder / "out" / "cells").iterdir())
    assert len(files) == 4
    before = {file: file.stat().st_mtime_ns for file in files}
    monkeypatch.setattr(TASKS["identity"], "judge", None)
    monkeypatch.setattr(TASKS["annotation"], "judge", None)
    second = run_benchmark(read_benchmark(folder / "benchmark.toml"), folder / "out")
    assert {file: file.stat().st_mtime_ns for file in (folder / "out" / "cells").iterdir()} == before
    for one, other in zip(first, second, strict=True):
        np.testing.assert_equal(dataclasses.asdict(one), dataclasses.asdict(other))


def test_another_input_is_another_cell_and_a_damaged_one_is_made_again(folder, cells, caplog):
    toml = folder / "benchmark.toml"
    toml.write_text(
        toml.read_text().replace("[tasks.annotation]\n", "").replace('[methods.noise]\nkey = "X_noise"', "")
    )
    run_benchmark(read_benchmark(toml), folder / "out")
    (file,) = (folder / "out" / "cells").iterdir()
    whole = json.loads(file.read_text())
    file.write_text(file.read_text()[:100])
    with caplog.at_level(logging.WARNING):
        run_benchmark(read_benchmark(toml), folder / "out")
    assert "is damaged and computed again" in caplog.text
    again = json.loads(file.read_text())
    assert again["judged"] == whole["judged"]
    changed = cells.copy()
    changed.obsm["X_good"] = changed.obsm["X_good"] + 1.0
    changed.write_h5ad(folder / "cells.h5ad")
    run_benchmark(read_benchmark(toml), folder / "out")
    assert len(list((folder / "out" / "cells").iterdir())) == 2
    toml.write_text("seed = 1\n" + toml.read_text())
    run_benchmark(read_benchmark(toml), folder / "out")
    assert len(list((folder / "out" / "cells").iterdir())) == 3


def test_a_kill_loses_the_cell_at_hand_and_no_other(folder, monkeypatch):
    """The third of four cells kills its process; what goes on computes that one and the last."""
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from spaf_analysis.benchmark import read_benchmark, run_benchmark
        folder, asked = Path(sys.argv[1]), []
        def step(name):
            asked.append(name)
            if len(asked) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
        run_benchmark(read_benchmark(folder / "benchmark.toml"), folder / "out", progress=step)
    """)
    killed = subprocess.run([sys.executable, "-c", script, str(folder)], check=False)
    assert killed.returncode == -signal.SIGKILL
    before = {file.name: file.stat().st_mtime_ns for file in (folder / "out" / "cells").glob("*.json")}
    assert len(before) == 2
    monkeypatch.setattr(TASKS["identity"], "judge", None)  # its two cells are there
    cells = run_benchmark(read_benchmark(folder / "benchmark.toml"), folder / "out")
    after = {file.name: file.stat().st_mtime_ns for file in (folder / "out" / "cells").glob("*.json")}
    assert len(after) == len(cells) == 4
    assert {name: after[name] for name in before} == before


def test_a_task_and_a_method_are_one_class_each(folder, monkeypatch):
    monkeypatch.setattr("spaf_analysis.benchmark.base.TASKS", TASKS)
    known = dict(TASKS), dict(METHODS)
    try:

        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Width(Task):
            """How many dimensions there are, against a baseline of two."""

            least: float = 0.0

            name = "width"
            title = "Dimensions"

            def judge(self, data, method, settings):
                width = float(method.embed(data).shape[1]) + self.least
                scores = [
                    Score(name=method.name, role="method", measure="dimensions", value=width),
                    Score(name="two", role="baseline", measure="dimensions", value=2.0),
                ]
                minus = Difference(
                    name=method.name, baseline="two", measure="dimensions", value=width - 2, low=width - 2.5,
                    high=width - 1.5,
                )  # fmt: skip
                return Judged(scores, [minus], ("cells", data.table.n_obs))

        class Zeros(Method):
            """As many zeros as it is told."""

            option = "zeros"

            def embed(self, data, learn_from=None):
                return np.zeros((data.table.n_obs, int(self.value)))

        toml = folder / "benchmark.toml"
        toml.write_text(toml.read_text().partition("[tasks")[0] + '[tasks.width]\nleast = 1\n[methods.z]\nzeros = "1"')
        rows = rows_of(run_benchmark(read_benchmark(toml), folder / "out"))
    finally:
        for registry, before in zip((TASKS, METHODS), known, strict=True):
            registry.clear()
            registry.update(before)
    assert {(one.method, one.score.value, one.verdict) for one in rows} == {
        ("good", 4.0, "wins"), ("noise", 5.0, "wins"), ("z", 2.0, "ties"),
    }  # fmt: skip


def test_few_tiles_give_no_verdict(folder, cells):
    few = cells[(cells.obsm["spatial"] < 130).all(axis=1)].copy()
    few.write_h5ad(folder / "cells.h5ad")
    toml = folder / "benchmark.toml"
    toml.write_text(toml.read_text().replace('region = "region"', ""))
    rows = rows_of(run_benchmark(read_benchmark(folder / "benchmark.toml"), folder / "out"))
    assert {one.verdict for one in rows} == {"no verdict"}


def test_a_model_a_fitted_one_and_a_random_one(folder, cells):
    from spaf_model import TissueModel

    TissueModel.fit(cells, "neighbours").save_pretrained(folder / "model")
    content = {
        "replicates": 10,
        "data": {"tissue": {"path": "cells.h5ad", "label": "kind"}},
        "methods": {"mine": {"model": "model"}, "own": {"fit": "neighbours"}, "random": {"random": "model"}},
        "tasks": {"identity": {}},
    }
    cells = run_benchmark(benchmark_of(content, folder), folder / "out")
    assert [cell.reason for cell in cells] == [""] * 3
    values = {one.method: one.score.value for one in rows_of(cells) if one.measure == "macro-F1"}
    assert values["mine"] == pytest.approx(values["own"], abs=0.02)
    assert values["mine"] > values["random"] - 0.05
    # Other weights in the same place are another cell.
    TissueModel.fit(make_other(folder), "neighbours").save_pretrained(folder / "other")
    (folder / "other" / "model.safetensors").replace(folder / "model" / "model.safetensors")
    run_benchmark(benchmark_of(content, folder), folder / "out")
    assert len(list((folder / "out" / "cells").iterdir())) == 5


def make_other(folder):
    import anndata

    other = anndata.read_h5ad(folder / "cells.h5ad")
    other.X = other.X[::-1].copy()
    return other


def test_labels_of_a_reference_in_a_file_of_its_own(folder, cells):
    left, right = ((cells.obs["slide"] == name).to_numpy() for name in ("left", "right"))
    cells[left].write_h5ad(folder / "ref.h5ad")
    cells[right].write_h5ad(folder / "query.h5ad")
    content = {
        "replicates": 10,
        "data": {"query": {"path": "query.h5ad", "label": "kind", "reference": "ref.h5ad"}},
        "methods": {"good": {"key": "X_good"}, "own": {"fit": "neighbours"}},
        "tasks": {"annotation": {}},
    }
    found = run_benchmark(benchmark_of(content, folder), folder / "out")
    assert [one.method for one in rows_of(found)] == ["good", "good"]
    assert row(rows_of(found), "good", "macro-F1").score.value > 0.9
    assert "gives a reference of other cells no place on the same axes" in found[1].reason
