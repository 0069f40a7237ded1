import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import spaf_model
from spaf_model import SpatialFormer, load_model

Run = Callable[..., int]


def test_embed_adds_to_a_copy_and_leaves_the_input(
    run: Run, slide: Path, directory: Path, model: SpatialFormer, adata: anndata.AnnData
) -> None:
    before = slide.read_bytes()
    output = slide.parent / "new" / "out.h5ad"
    assert run("embed", slide, "--model", directory, "-o", output, "--token-budget", 300) == 0
    assert slide.read_bytes() == before
    written = anndata.read_h5ad(output)
    model.embed(adata)
    np.testing.assert_allclose(written.obsm["X_SpaF"], adata.obsm["X_SpaF"], atol=1e-5)
    np.testing.assert_array_equal(written.obsm["spatial"], adata.obsm["spatial"])
    assert (written.X != adata.X).nnz == 0
    assert written.uns["spaf"]["account"]["read"] == 7
    record = written.uns["spaf"]["embed"]
    assert record["model"] == str(directory)
    assert record["parameters"]["token_budget"] == 300
    assert [file.name for file in output.parent.iterdir()] == ["out.h5ad"]


def test_embed_of_a_file_without_obsm_and_uns(run: Run, slide: Path, directory: Path, adata: anndata.AnnData) -> None:
    anndata.AnnData(adata.X, var=adata.var).write_h5ad(slide)
    context = [f"--{kind}=unknown" for kind in ("tissue", "condition", "species", "assay")]
    output = slide.parent / "out.h5ad"
    assert run("embed", slide, "-m", directory, "-o", output, *context, "--method", "gene") == 0
    assert anndata.read_h5ad(output).obsm["X_SpaF"].shape == (60, 32)


def test_embed_without_a_model_uses_the_starter_and_says_so(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    starter = load_model("starter")
    genes = [starter.vocabulary.tokens[token] for token in starter.vocabulary.gene_token_ids[:300]]
    counts = np.random.default_rng(0).poisson(0.5, (12, len(genes))).astype(np.float32)
    anndata.AnnData(counts, var=pd.DataFrame(index=genes)).write_h5ad(tmp_path / "slide.h5ad")
    output = tmp_path / "out.h5ad"
    with caplog.at_level("INFO"):
        assert run("embed", tmp_path / "slide.h5ad", "-o", output, "--parts") == 0
    assert "the starter model is used" in caplog.text
    written = anndata.read_h5ad(output)
    assert np.isfinite(written.obsm["X_SpaF"]).all()
    assert written.uns["spaf"]["embed"]["model"] == "starter"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tissue", "Kidney"], "knows no tissue 'Kidney'; it knows: unknown, Breast, Lung"),
        (["--layer", "counts"], "no layer 'counts'"),
        (["--device", "toaster"], "device 'toaster'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    options: list[str],
    message: str,
    run: Run,
    slide: Path,
    directory: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = slide.parent / "out.h5ad"
    assert run("embed", slide, "--model", directory, "-o", output, *options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("spaf-model: ")
    assert message in lines[0]
    assert not output.exists()


def test_files_that_cannot_be_used(run: Run, slide: Path, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = slide.parent / "out.h5ad"
    not_h5ad = slide.parent / "notes.txt"
    not_h5ad.write_text("hello")
    cases = {
        "would overwrite the input": ("embed", slide, "--model", directory, "-o", slide),
        "does not exist or is not a file": ("embed", slide.parent / "no.h5ad", "--model", directory, "-o", output),
        "cannot be read as an h5ad": ("embed", not_h5ad, "--model", directory, "-o", output),
        "is not a model directory": ("embed", slide, "--model", slide.parent, "-o", output),
        "no such folder": ("info", slide.parent / "none"),
        "There is no device 'toaster'": ("kernels", "--device", "toaster"),
    }
    for message, arguments in cases.items():
        assert run(*arguments) == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert len(error.splitlines()) == 1
    assert not output.exists()


def test_bad_arguments_exit_2(run: Run, slide: Path, directory: Path) -> None:
    base = ("embed", slide, "--model", directory, "-o", slide.parent / "out.h5ad")
    assert run(*base, "--method", "CLASS") == 2
    assert run(*base, "--precision", "fp8") == 2
    assert run("embed", slide) == 2


def test_info_for_people_and_programs(
    run: Run, directory: Path, capsys: pytest.CaptureFixture[str], model: SpatialFormer
) -> None:
    assert run("info", directory, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["n_parameters"] == model.n_parameters
    assert content["n_genes"] == 40
    assert content["context"]["tissue"] == ["unknown", "Breast", "Lung"]
    assert content["config"]["width"] == 32
    assert run("info", directory) == 0
    text = capsys.readouterr().out
    assert f"{model.n_parameters:,}" in text
    assert "A card of [bold] text." in text


def test_kernels_for_people_and_programs(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("kernels", "--device", "cpu", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert set(content["kernels"]) == {"explicit", "sdpa", "flex", "flash", "onednn"}
    assert content["matmul"]["path"] in ("torch", "onednn")
    assert all(choice["kernel"] == "sdpa" and choice["reason"] for choice in content["choices"])
    assert run("kernels", "--device", "cpu") == 0
    assert "sdpa" in capsys.readouterr().out


def test_installed_command_prints_help() -> None:
    command = [sys.executable, "-m", "spaf_model.cli", "embed", "--help"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "spaf-model embed slide.h5ad --model breast-model -o embedded.h5ad" in finished.stdout


def test_the_package_itself_imports_nothing_heavy() -> None:
    code = "import sys, spaf_model; print(sorted({'torch', 'numpy', 'anndata', 'pandas', 'scipy'} & {*sys.modules}))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "[]\n"
    assert "Model" in dir(spaf_model)
    assert spaf_model.Model is load_model.__globals__["Model"]
