"""Several files through the command line, and what is wrong with them in one sentence."""

import json
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spaf_analysis import cli


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    def run(*words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["spaf-analysis", "integrate", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def files(batches, tmp_path):
    """Two files whose cells have the same names, one without a gene of the other."""
    for name, batch in (("a", "b0"), ("b", "b1")):
        part = batches[(batches.obs["batch"] == batch).to_numpy()].copy()
        part.obs_names = [f"cell{cell}" for cell in range(part.n_obs)]
        part[:, 1:].copy().write_h5ad(tmp_path / "b.h5ad") if name == "b" else part.write_h5ad(tmp_path / "a.h5ad")
    return tmp_path


def test_files_are_batches(files, call):
    words = ("a.h5ad", "b.h5ad", "--label", "kind", "--no-harmony", "--replicates", 20)
    for out in ("out.h5ad", "out.csv"):
        code, printed, said = call(*words, "-o", out, "--json")
        assert (code, said) == (0, "")
    result = json.loads(printed)
    assert result["batches"] == ["a", "b"]
    assert pd.read_csv(files / "out.csv")["method"].tolist() == [row["method"] for row in result["scores"]]
    adata = ad.read_h5ad(files / "out.h5ad")
    assert adata.n_vars == 59
    assert adata.obs_names.is_unique
    assert adata.obs_names[0] == "a/cell0"
    assert set(adata.obs["file"]) == {"a", "b"}
    assert np.isfinite(adata.obsm["integration_pca"]).all()


def test_wrong_files_are_one_sentence(files, call):
    other = ad.read_h5ad(files / "b.h5ad")
    other.var_names = [f"ENSG{gene}" for gene in range(other.n_vars)]
    other.write_h5ad(files / "ids.h5ad")
    wide = ad.read_h5ad(files / "b.h5ad")
    wide.obsm["X_SpaF"] = np.zeros((wide.n_obs, 9))
    wide.write_h5ad(files / "wide.h5ad")
    del wide.obsm["X_SpaF"]
    wide.write_h5ad(files / "bare.h5ad")
    unlabelled = ad.read_h5ad(files / "b.h5ad")
    del unlabelled.obs["kind"]
    unlabelled.write_h5ad(files / "other.h5ad")
    logs = ad.read_h5ad(files / "b.h5ad")
    logs.X = logs.X.log1p()
    logs.write_h5ad(files / "logs.h5ad")
    for words, sentence in (
        (("a.h5ad",), "say with --batch which column of obs names what is to be mixed"),
        (("a.h5ad", "a.h5ad"), "a file is named twice"),
        (("a.h5ad", "none.h5ad"), "there is no file none.h5ad"),
        (("a.h5ad", "ids.h5ad"), "ids.h5ad such as ENSG0, ENSG1, ENSG2, and they share less than 5% of them"),
        (
            ("a.h5ad", "wide.h5ad"),
            "have different numbers of dimensions, so no one model made them: a.h5ad 3, wide.h5ad 9",
        ),
        (
            ("a.h5ad", "bare.h5ad"),
            "bare.h5ad: obsm has no embedding 'X_SpaF'; it has: nothing; name another with --key, or a model that "
            "makes it with --model",
        ),
        (("a.h5ad", "b.h5ad", "--label", "none"), "a.h5ad: obs has no column 'none' (--label); it has: kind, batch"),
        (("a.h5ad", "other.h5ad", "--label", "kind"), "other.h5ad: obs has no column 'kind' (--label); it has: batch"),
        (("a.h5ad", "logs.h5ad"), "raw counts are needed: in X"),
        (("a.h5ad", "--batch", "batch"), "obs column 'batch' (--batch) holds only 'b0'"),
    ):
        code, printed, said = call(*words, "--no-harmony", "-o", "new.csv")
        assert (code, printed) == (2, "")
        assert sentence in said
        assert said.count("\n") == 1
        assert not (files / "new.csv").exists()
    for words, sentence in (
        (("a.h5ad", "b.h5ad"), "the result goes nowhere"),
        (("a.h5ad", "b.h5ad", "-o", "b.h5ad"), "would overwrite the input b.h5ad"),
    ):
        code, _, said = call(*words)
        assert code == 2
        assert sentence in said
