"""Bad input: one sentence on stderr, exit code 2, the input as it was, no output."""

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import anndata
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from spaf_model.spatialformer.layers import TokenEmbedding

Run = Callable[..., int]
Embed = Callable[..., str]


@pytest.fixture
def refused(run: Run, slide: Path, directory: Path, capsys: pytest.CaptureFixture[str]) -> Embed:
    """Run `embed` on the slide, which must fail, and return its one sentence."""

    def embed(*options: object) -> str:
        before = slide.read_bytes()
        others = set(slide.parent.iterdir())
        output = slide.parent / "out.h5ad"
        assert run("embed", slide, "--model", directory, "-o", output, *options) == 2
        captured = capsys.readouterr()
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("spaf-model: ")
        assert captured.out == ""
        assert slide.read_bytes() == before
        assert set(slide.parent.iterdir()) == others
        return lines[0]

    return embed


def rewrite(slide: Path, change: Callable[[anndata.AnnData], object]) -> None:
    adata = anndata.read_h5ad(slide)
    change(adata)
    adata.write_h5ad(slide)


def test_no_gene_in_common(refused: Embed, slide: Path) -> None:
    rewrite(slide, lambda adata: setattr(adata, "var_names", [f"other{gene}" for gene in range(40)]))
    assert "Only 0 of 40 genes are among the model's 40 genes" in refused("--min-gene-fraction", 0)


def test_coverage_below_the_limit(refused: Embed, slide: Path) -> None:
    names = [f"GENE{gene}" if gene < 15 else f"other{gene}" for gene in range(40)]
    rewrite(slide, lambda adata: setattr(adata, "var_names", names))
    sentence = refused()
    assert "Only 15 of 40 genes" in sentence
    assert "at least 50%" in sentence


@pytest.mark.filterwarnings("ignore:Variable names are not unique:UserWarning")
def test_duplicate_genes(refused: Embed, slide: Path) -> None:
    names = [f"GENE{max(gene, 1)}" for gene in range(40)]
    rewrite(slide, lambda adata: setattr(adata, "var_names", names))
    assert "Gene 'GENE1' occurs more than once" in refused()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-3.0, "Counts must not be negative: cell 'cell12' has the value -3.0"),
        (np.nan, "Counts must be finite: cell 'cell12' has the value nan"),
        (np.inf, "Counts must be finite: cell 'cell12' has the value inf"),
        (70.5, "Counts must be whole numbers: cell 'cell12' has the value 70.5"),
        (0.5, "look log-normalised or scaled (cell 'cell12' has the value 0.5); raw counts are needed"),
    ],
)
def test_values_that_are_not_counts(value: float, message: str, refused: Embed, slide: Path) -> None:
    def plant(adata: anndata.AnnData) -> None:
        dense = adata.X.toarray()
        dense[12, 3] = value
        adata.X = dense

    rewrite(slide, plant)
    assert message in refused()


def test_log_counts(refused: Embed, slide: Path, run: Run, directory: Path) -> None:
    def transform(adata: anndata.AnnData) -> None:
        adata.layers["counts"] = adata.X.copy()
        adata.X = np.log1p(adata.X.toarray())

    rewrite(slide, transform)
    sentence = refused()
    assert "look log-normalised" in sentence
    assert "layer" in sentence
    output = slide.parent / "out.h5ad"
    assert run("embed", slide, "-m", directory, "-o", output, "--layer", "counts") == 0


def test_empty_cells_are_nan_unless_strict(refused: Embed, slide: Path, run: Run, directory: Path) -> None:
    def empty(adata: anndata.AnnData) -> None:
        dense = adata.X.toarray()
        dense[12] = 0
        adata.X = dense

    rewrite(slide, empty)
    assert "Cell 'cell12' has no transcript of a gene of the model, and strict is set" in refused("--strict")
    output = slide.parent / "out.h5ad"
    assert run("embed", slide, "-m", directory, "-o", output) == 0
    written = anndata.read_h5ad(output)
    assert np.flatnonzero(np.isnan(written.obsm["X_SpaF"]).all(axis=1)).tolist() == [12]
    assert written.uns["spaf"]["embed"]["n_empty"] == 1


def test_unknown_tissue_lists_the_known(refused: Embed) -> None:
    assert "knows no tissue 'Kidney'; it knows: unknown, Breast, Lung" in refused("--tissue", "Kidney")


def test_context_that_nobody_gives(refused: Embed, slide: Path) -> None:
    rewrite(slide, lambda adata: adata.obs.pop("condition"))
    sentence = refused()
    assert "The condition of the cells is not known" in sentence
    assert "unknown, Disease" in sentence


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("pair_head.weight"), "missing: pair_head.weight"),
        (lambda tensors: tensors.update(surplus=torch.zeros(1)), "unexpected: surplus"),
        (
            lambda tensors: tensors.update({"pair_head.weight": torch.zeros(2, 31)}),
            "misshapen: pair_head.weight (2, 31) instead of (2, 32)",
        ),
    ],
)
def test_tensors_that_do_not_fit(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, refused: Embed, directory: Path
) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")
    assert message in refused()


def test_truncated_safetensors(refused: Embed, directory: Path) -> None:
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model.safetensors is damaged or truncated" in refused()


def test_model_directory_of_a_newer_version(refused: Embed, directory: Path) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": 2}))
    assert "has format version 2, and this spaf-model reads up to 1: install a newer one" in refused()


def test_pickle_in_place_of_the_weights(refused: Embed, directory: Path, tmp_path: Path) -> None:
    (directory / "model.safetensors").write_bytes(pickle.dumps(Hostile(tmp_path / "made")))
    assert "model.safetensors is damaged or truncated" in refused()
    assert not (tmp_path / "made").exists()


class Hostile:
    """Makes a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("which", ["checkpoint", "scale"])
def test_pickle_that_tries_to_execute_code(
    which: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, scale, tokens = tmp_path / "a.ckpt", tmp_path / "gene_median.pkl", tmp_path / "tokenv5.json"
    tensors = {"state_dict": {"adjprojector.project_i.weight": torch.zeros(1, 1)}, "hyper_parameters": {}}
    hostile = Hostile(tmp_path / "made")
    torch.save(tensors | ({"callbacks": hostile} if which == "checkpoint" else {}), checkpoint)
    scale.write_bytes(pickle.dumps({"GENE0": hostile if which == "scale" else 1.0}))
    tokens.write_text("{}")
    options = ("--vocabulary", tokens, "--scale", scale, "--attention", "flash", "-o", tmp_path / "model")
    assert run("convert", checkpoint, *options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    name = checkpoint.name if which == "checkpoint" else scale.name
    assert re.search(rf"{re.escape(name)} asks for (posix|nt)\.mkdir and was not loaded", lines[0])
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "model").exists()


def test_memory_of_the_device_that_runs_out(refused: Embed, monkeypatch: pytest.MonkeyPatch) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
    monkeypatch.setattr(TokenEmbedding, "forward", Mock(side_effect=error))
    sentence = refused("--token-budget", 4096)
    assert "ran out of memory at 4096 tokens a batch: lower token_budget (--token-budget" in sentence


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "left,right\ncell1,cell2\ncell1,nobody\n",
            "right names cells that are not in the AnnData (1), such as 'nobody'",
        ),
        ("left,right\ncell1,cell2\ncell1\n", "right names cells that are not in the AnnData (1), such as ''"),
        ("a,b\ncell1,cell2\n", "pairs.csv has no column 'left'; it has: a, b"),
        ("left,right\ncell1,cell2,cell3,cell4\ncell1\n", "pairs.csv has rows with more values than there are columns"),
        ("", "pairs.csv cannot be read as a table"),
    ],
)
def test_pairs_that_cannot_be_read(
    content: str, message: str, run: Run, slide: Path, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = slide.parent / "pairs.csv", slide.parent / "out.csv"
    file.write_text(content)
    before = slide.read_bytes()
    for command in ("pairs", "attention"):
        assert run(command, slide, "--pairs", file, "-m", directory, "-o", output) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert message in lines[0]
    assert slide.read_bytes() == before
    assert not output.exists()


def test_a_checkpoint_that_is_not_there(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", tmp_path / "nope", "-o", tmp_path / "model") == 2
    assert "There is no file or folder" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
