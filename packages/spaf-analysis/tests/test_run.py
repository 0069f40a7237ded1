import json
import subprocess

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

import spaf_data
from spaf_analysis import InputError, run_stages
from spaf_analysis.cli import app


def test_one_command_from_a_folder_to_a_report(stages, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["run", str(stages.bundle), "-o", str(out), "--tissue", "Breast", "--set", "seed=1"])
    assert done.exit_code == 0, done.output
    names = {path.name for path in out.iterdir()}
    assert names == {"build", "run", "embedded.h5ad", "report.html", "summary.json"}
    summary = json.loads((out / "summary.json").read_text())
    record = json.loads((out / "run" / "run.json").read_text())
    assert record["parameters"]["config"]["preset"] == "tissue"
    assert record["parameters"]["config"]["seed"] == 1
    assert "Only" in summary["fallback"], "the slide is small"
    assert all(seconds > 0 for seconds in summary["seconds"].values())
    assert "Breast" in (out / "report.html").read_text()


def test_stage_that_fails_ends_the_run(tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"spaf-data build failed \(exit code 2\); its message stands above"):
        run_stages(tmp_path / "empty", tmp_path / "out")
    assert capfd.readouterr().err.startswith("spaf-data: ")


def test_context_reaches_the_build(tmp_path, monkeypatch):
    calls = []

    def record(command, **_):
        calls.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", record)
    with pytest.raises(InputError):
        run_stages(tmp_path, tmp_path / "out", context={"tissue": "Lung", "assay": None})
    assert calls[0][-2:] == ["--tissue", "Lung"]


def test_options_of_the_build_reach_it(tmp_path, monkeypatch):
    calls = []

    def record(command, **_):
        calls.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", record)
    arguments = ["--pixel-size", "0.5", "--radius", "120", "--slide-key", "part"]
    done = CliRunner().invoke(app, ["run", str(tmp_path), "-o", str(tmp_path / "out"), *arguments])
    assert isinstance(done.exception, InputError)
    assert calls[0][-6:] == ["--pixel-size", "0.5", "--radius", "120.0", "--slide-key", "part"]


def test_a_sheet_and_a_reference_make_one_page_that_speaks_of_labels(tmp_path):
    for seed, name in enumerate(("one", "two")):
        spaf_data.simulate_bundle(tmp_path / name, n_cells=200, n_genes=30, seed=seed)
    sheet = tmp_path / "slides.csv"
    sheet.write_text("input,slide,condition\none,s1,Healthy\ntwo,s2,Disease\n")
    reference = spaf_data.bin_transcripts(spaf_data.read_transcripts(tmp_path / "one"))
    middle = np.median(reference.obsm["spatial"], axis=0)
    reference.obs["kind"] = np.where(reference.obsm["spatial"][:, 0] > middle[0], "right", "left")
    reference.write_h5ad(tmp_path / "ref.h5ad")
    out = tmp_path / "out"
    words = ["run", str(sheet), "-o", str(out), "--reference", str(tmp_path / "ref.h5ad"), "--label", "kind"]
    done = CliRunner().invoke(app, [*words, "--config", "neighbours"])
    assert done.exit_code == 0, done.output
    annotated = ad.read_h5ad(out / "annotated.h5ad")
    assert set(annotated.obs["slide"]) == {"s1", "s2"}
    assert {"left", "right"} <= set(annotated.obs["label_pred"])
    summary = json.loads((out / "summary.json").read_text())
    assert {row["class"] for row in summary["labels"]} == {"left", "right"}
    assert {row["method"] for row in summary["integration"]} >= {"embedding", "PCA"}
    assert {"left", "right"} <= {row["of"] for row in summary["type_pairs"]}
    page = (out / "report.html").read_text()
    assert "the groups of label_pred that are most frequent" in page
    assert "by the method" in page
    # The page says of the labels, too, what they cost and by which options they were made.
    assert list(summary["seconds"]) == ["build", "pretrain", "embed", "annotate", "report"]
    assert "Annotate: versions and parameters" in page
    assert annotated.uns["spaf"]["annotate"]["parameters"]["label"] == "kind"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--label", "kind"), "give both --reference and --label"),
        (("--reference", "none.h5ad", "--label", "kind"), "there is no file none.h5ad"),
        (
            ("--reference", "ref.h5ad", "--label", "kind"),
            "ref.h5ad: obs has no column 'kind' (--label); it has",
        ),
    ],
)
def test_a_reference_is_looked_at_before_the_stages(tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", None)
    (tmp_path / "runs").mkdir()
    ad.AnnData(np.ones((3, 2), np.float32)).write_h5ad("ref.h5ad")
    done = CliRunner().invoke(app, ["run", "runs", "-o", "out", *words])
    assert isinstance(done.exception, InputError)
    assert sentence in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_sheet_that_is_none_is_said_before_the_stages(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    (tmp_path / "slides.csv").write_text("name,slide\na,b\n")
    with pytest.raises(ValueError, match="slides.csv has no column 'input'"):
        run_stages(tmp_path / "slides.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_slides_make_one_report(tissue, tmp_path):
    other = tissue.copy()
    other.X = other.X[::-1].copy()
    both = ad.concat({"one": tissue, "two": other}, label="part", index_unique="-")
    both = ad.AnnData(both.X * 10, obs=both.obs[["part"]], var=both.var, obsm={"spatial": both.obsm["spatial"]})
    both.write_h5ad(tmp_path / "both.h5ad")
    out = tmp_path / "out"
    arguments = ["run", str(tmp_path / "both.h5ad"), "-o", str(out), "--slide-key", "part", "--radius", "25"]
    done = CliRunner().invoke(app, [*arguments, "--pixel-size", "1"])
    assert done.exit_code == 0, done.output
    embedded = ad.read_h5ad(out / "embedded.h5ad")
    assert embedded.obs["slide"].value_counts().to_dict() == {"one": tissue.n_obs, "two": tissue.n_obs}
    assert json.loads((out / "summary.json").read_text())["n_cells"] == 2 * tissue.n_obs
    assert json.loads((out / "build" / "build.json").read_text())["distances"]["positive"] == 25
