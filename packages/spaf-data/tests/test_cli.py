import json
import shutil
import subprocess
import sys
from hashlib import sha256

import anndata
import numpy as np
import pandas as pd
import pytest

from spaf_data import bin_transcripts, cli, read_transcripts, write_corpus
from spaf_data.corpus.manifest import _checksum


def run(*arguments, monkeypatch, capsys):
    """Run the command line in this process; return exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["spaf-data", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


@pytest.fixture
def spaf_data(monkeypatch, capsys):
    return lambda *arguments: run(*arguments, monkeypatch=monkeypatch, capsys=capsys)


def test_from_nothing_to_a_verified_corpus(spaf_data, tmp_path):
    bundle, out = tmp_path / "slides" / "one", tmp_path / "built"
    assert spaf_data("simulate", "--cells", 300, "--genes", 40, "--seed", 5, "--out", bundle)[0] == 0
    code, answer, said = spaf_data("build", bundle.parent, "--tissue", "Skin", "--out", out, "--json")
    assert (code, said) == (0, "")
    record = json.loads(answer)
    assert [slide["slide"] for slide in record["slides"]] == ["one"]
    assert record["slides"][0]["tissue"] == "Skin"

    code, answer, _ = spaf_data("info", out, "--json")
    totals = json.loads(answer)["totals"]
    assert totals["all"]["cells"] == record["slides"][0]["split"]["train"] + record["slides"][0]["split"]["validation"]
    code, answer, _ = spaf_data("info", out / "corpus")
    assert code == 0
    assert "Skin" in answer
    assert f"{totals['all']['pairs']:,}" in answer

    assert spaf_data("verify", out)[0] == 0
    shard = next((out / "corpus").glob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    code, _, said = spaf_data("verify", out)
    assert code == 2
    assert shard.name in said


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("newer", "format version 99"),
        ("missing shard", "lacks the shard"),
        ("hostile member", "../"),
        ("no corpus", "no manifest.json"),
    ],
)
def test_bad_corpus_is_one_sentence_and_exit_2(spaf_data, built_corpus, tmp_path, kind, sentence):
    corpus = shutil.copytree(built_corpus, tmp_path / "corpus")
    shard = min(corpus.glob("*.tar"))
    manifest = corpus / "manifest.json"
    if kind == "newer":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format_version": 99}))
    elif kind == "missing shard":
        shard.unlink()
    elif kind == "hostile member":
        content = bytearray(shard.read_bytes())
        content[:3] = b"../"  # of the name of its first member
        content[148:156] = b"%06o\0 " % (sum(content[:148]) + 8 * ord(" ") + sum(content[156:512]))
        shard.write_bytes(content)
        # The manifest is made to fit, so that nothing but the name is wrong.
        described = json.loads(manifest.read_text())
        del described["checksum"]
        next(each for each in described["shards"] if each["name"] == shard.name)["sha256"] = sha256(content).hexdigest()
        manifest.write_text(json.dumps({**described, "checksum": _checksum(described)}))
    else:
        manifest.unlink()
    code, answer, said = spaf_data("verify", corpus)
    assert (code, answer) == (2, "")
    assert said.startswith("spaf-data: ")
    assert said.count("\n") == 1
    assert sentence in said


@pytest.fixture(scope="module")
def built_corpus(bundle, tmp_path_factory):
    slide = bin_transcripts(read_transcripts(bundle), slide="s")
    slide.obs["split"] = "train"
    out = tmp_path_factory.mktemp("built") / "corpus"
    write_corpus([slide], out, colocalization_key=None, block_cells=100)
    return out


def test_help_needs_no_library():
    """The libraries take seconds to import."""
    code = (
        "import sys, spaf_data.cli; print(sorted({'numpy', 'numba', 'anndata', 'pandas', 'pyarrow'} & {*sys.modules}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert answer == "[]\n"


def test_account_is_shown(spaf_data, bundle, transcripts, tmp_path):
    code, answer, _ = spaf_data("build", bundle, "--out", tmp_path / "out")
    assert code == 0
    for count in transcripts.account.as_dict().values():
        assert f"{count:,}" in answer or count == transcripts.account.kept


def test_account_of_many_slides_is_their_sum(spaf_data, bundle, transcripts, tmp_path, monkeypatch):
    monkeypatch.setattr("spaf_data._build_summary._MOST_COLUMNS", 1)
    sheet = tmp_path / "slides.csv"
    sheet.write_text(f"input,slide\n{bundle},a\n{bundle},b\n")
    code, answer, _ = spaf_data("build", "--sheet", sheet, "--out", tmp_path / "out")
    assert code == 0
    assert "2 slides" in answer
    assert f"{2 * transcripts.account.read:,}" in answer


def damaged(kind, table, write_table):
    if kind == "no bundle":
        folder = write_table(table)
        (folder / "transcripts.parquet").rename(folder / "rows.parquet")
    elif kind == "no feature_name":
        folder = write_table(table.drop(columns="feature_name"))
    elif kind == "truncated":
        folder = write_table(table)
        file = folder / "transcripts.parquet"
        file.write_bytes(file.read_bytes()[:-1000])
    elif kind == "truncated gzip":
        folder = write_table(table, "transcripts.csv.gz")
        file = folder / "transcripts.csv.gz"
        file.write_bytes(file.read_bytes()[:-1000])
    elif kind == "nothing assigned":
        folder = write_table(table.assign(cell_id="UNASSIGNED"))
    elif kind == "negative cell":
        folder = write_table(table.assign(cell_id=-7))
    elif kind in ("nan", "inf"):
        table.loc[table.cell_id != "UNASSIGNED", "x_location"] = np.float32(kind)
        folder = write_table(table)
    elif kind in ("cell twice", "gene twice"):
        folder = write_table(table)
        cells = pd.DataFrame({"cell_id": table.cell_id.unique(), "x_centroid": 1.0, "y_centroid": 2.0})
        if kind == "cell twice":
            pd.concat([cells, cells.head(1)]).to_parquet(folder / "cells.parquet")
        else:
            targets = [{"type": {"data": {"id": f"ENSG{k}", "name": "GENE00001"}}} for k in range(2)]
            (folder / "gene_panel.json").write_text(json.dumps({"payload": {"targets": targets}}))
    return folder


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("no bundle", "is not a run with transcripts or counts; looked for transcripts.parquet"),
        ("no feature_name", "transcripts.parquet has no column 'feature_name'; it has: transcript_id, cell_id"),
        ("truncated", "transcripts.parquet cannot be read"),
        ("truncated gzip", "transcripts.csv.gz cannot be read"),
        ("nothing assigned", "has no transcript that is assigned to a cell"),
        ("negative cell", "transcripts.parquet has the cell_id -7; a cell's number cannot be negative"),
        ("nan", "transcripts.parquet has a position that is not finite (NaN or infinite) in row "),
        ("inf", "transcripts.parquet has a position that is not finite (NaN or infinite) in row "),
        ("cell twice", "cells.parquet has two rows for cell "),
        ("gene twice", "gene_panel.json has two ids for the gene 'GENE00001': ENSG0 and ENSG1"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(spaf_data, table, write_table, tmp_path, kind, sentence):
    folder = damaged(kind, table, write_table)
    before = sorted(tmp_path.rglob("*"))
    code, answer, said = spaf_data("build", folder, "--out", tmp_path / "out")
    assert code == 2
    assert answer == ""
    assert said.count("\n") == 1
    assert said.startswith("spaf-data: ")
    assert sentence in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["build", "--out", "x"], "either runs"),
        (["build", "--out", "x", "a", "--dataset", "xenium_breast_window"], "not both"),
        (["build", "--out", "x", "nowhere"], "nowhere does not exist"),
        (["build", "--out", "x", "--dataset", "unheard_of"], "unheard_of"),
        (["build", "a"], "--out"),
        (["build", "--out", "x", "--sheet", "nowhere.csv"], "nowhere.csv: No such file"),
        (["build", "--out", "x", "--sheet", "a.csv", "a"], "not both"),
        (["build", "--out", "x", "--sheet", "a.csv", "--slide", "s"], "the column 'slide' does"),
        (["info", "nowhere"], "nowhere"),
        (["simulate", "--genes", "3", "--out", "x"], "n_genes must be at least"),
    ],
)
def test_bad_arguments(spaf_data, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    code, _, said = spaf_data(*arguments)
    assert code == 2
    assert sentence in said
    assert not list(tmp_path.iterdir())


def test_runs_as_they_were_named_before(spaf_data, bundle, tmp_path):
    """``--input`` goes on working beside folders by place, and is not shown."""
    shutil.copytree(bundle, tmp_path / "other")
    code, answer, _ = spaf_data("build", bundle, "--input", tmp_path / "other", "--out", tmp_path / "out", "--json")
    assert code == 0
    assert [slide["slide"] for slide in json.loads(answer)["slides"]] == [bundle.name, "other"]
    code, answer, _ = spaf_data("build", "--help")
    assert code == 0
    assert "FOLDER" in answer
    assert "--input" not in answer


def test_one_name_for_several_slides(spaf_data, table, write_table, tmp_path):
    folders = [write_table(table), write_table(table)]
    code, _, said = spaf_data("build", folders[0], folders[1], "--slide", "s", "--out", tmp_path / "out")
    assert code == 2
    assert "--slide names one slide, and there are 2 bundles" in said


def test_disk_full_is_one_sentence(spaf_data, bundle, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("spaf_data._build_slide.read_transcripts", fail)
        code, _, said = spaf_data("build", bundle, "--out", tmp_path / "out")
    assert (code, said) == (2, "spaf-data: No space left on device.\n")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("spaf_data.build.write_corpus", fail)
    code, _, said = spaf_data("build", bundle, "--out", tmp_path / "out")
    assert code == 2
    assert said.count("\n") == 1
    assert "No space left on device; the same command takes up 1 finished slides, which are kept in" in said


def test_sheet_with_a_slide_that_fails(spaf_data, bundle, table, write_table, tmp_path):
    damaged = write_table(table.drop(columns="feature_name"))
    sheet = tmp_path / "slides.csv"
    sheet.write_text(f"input,slide,tissue\n{bundle},good,Breast\n{damaged.name},bad,\n")
    out = tmp_path / "out"
    code, answer, said = spaf_data("build", "--sheet", sheet, "--tissue", "Skin", "--out", out, "--jobs", 2, "--json")
    assert code == 1
    record = json.loads(answer)
    assert [(slide["slide"], slide["tissue"]) for slide in record["slides"]] == [("good", "Breast")]
    assert [failure["slide"] for failure in record["failed"]] == ["bad"]
    assert said.count("\n") == 1
    assert said.startswith("spaf-data: slide bad failed and is not in the corpus: ")
    assert "no column 'feature_name'" in said
    assert spaf_data("verify", out)[0] == 0


def test_sheet_that_is_wrong(spaf_data, tmp_path):
    sheet = tmp_path / "slides.csv"
    sheet.write_text("input,slide\nnowhere,s\n")
    code, _, said = spaf_data("build", "--sheet", sheet, "--out", tmp_path / "out")
    assert code == 2
    assert "slides.csv, row 2, column 'input'" in said
    assert [file.name for file in tmp_path.iterdir()] == ["slides.csv"]


def test_dataset_brings_its_context(spaf_data, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("spaf_data.datasets.xenium_breast_window", lambda: bundle)
    code, answer, _ = spaf_data(
        "build", "--dataset", "xenium_breast_window", "--condition", "Cancer", "--out", tmp_path / "out", "--json"
    )
    assert code == 0
    (slide,) = json.loads(answer)["slides"]
    assert {key: slide[key] for key in ("slide", "tissue", "condition", "species", "assay")} == {
        "slide": "xenium_breast_window", "tissue": "Breast", "condition": "Cancer", "species": "Human",
        "assay": "Xenium",
    }  # fmt: skip


def test_installed_command_answers():
    done = subprocess.run([sys.executable, "-m", "spaf_data", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    for command in ("build", "info", "verify", "simulate"):
        assert command in done.stdout
    assert done.stderr == ""


def test_build_from_counts_in_pixels(spaf_data, bundle, tmp_path):
    slide = bin_transcripts(read_transcripts(bundle))
    table = anndata.AnnData(slide.X, slide.obs[[]], slide.var, obsm={"spatial": slide.obsm["spatial"] * 20})
    table.write_h5ad(tmp_path / "table.h5ad")
    build = ("build", tmp_path / "table.h5ad", "--out", tmp_path / "out", "--json")
    code, _, said = spaf_data(*build)
    assert code == 2
    assert "pixels or mm? Give the size of a pixel in um (pixel_size, --pixel-size)" in said
    code, _, said = spaf_data(*build, "--pixel-size", "0.05", "--platform", "merscope")
    assert code == 2
    assert "table.h5ad is not a run with transcripts or counts; looked for detected_transcripts.csv" in said
    code, answer, _ = spaf_data(*build, "--pixel-size", "0.05")
    assert code == 0
    (built,) = json.loads(answer)["slides"]
    assert built["slide"] == "table"
    assert built["n_cells"] == slide.n_obs
    assert built["n_gene_pairs"] == 0
    adata = anndata.read_h5ad(tmp_path / "out" / "slides" / "table.h5ad")
    assert adata.uns["spaf"]["parameters"]["pixel_size"] == 0.05
