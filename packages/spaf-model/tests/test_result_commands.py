"""The commands `pairs`, `colocalization` and `attention` against the same in Python."""

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from spaf_model import SpatialFormer

Run = Callable[..., int]


@pytest.fixture
def pair_file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(4)
    names = np.array([f"cell{cell}" for cell in range(60)])
    table = pd.DataFrame({"left": names[rng.integers(0, 60, 12)], "right": names[rng.integers(0, 60, 12)], "x": 1})
    table.to_csv(tmp_path / "pairs.csv", index=False)
    return tmp_path / "pairs.csv"


def test_pairs(
    run: Run, slide: Path, directory: Path, pair_file: Path, model: SpatialFormer, adata: anndata.AnnData
) -> None:
    before = slide.read_bytes()
    given = pd.read_csv(pair_file)
    expected = model.embed_pairs(adata, given["left"], given["right"])
    folder = slide.parent / "results"
    base = ("pairs", slide, "--pairs", pair_file, "--model", directory, "-o", folder / "out.csv")
    assert run(*base) == 0
    written = pd.read_csv(folder / "out.csv")
    assert list(written.columns) == ["left", "right", "probability"]
    assert (written[["left", "right"]].to_numpy() == given[["left", "right"]].to_numpy()).all()
    np.testing.assert_allclose(written["probability"], expected.probabilities, atol=1e-5)
    assert [file.name for file in folder.iterdir()] == ["out.csv"]
    assert run(*base, "--embeddings", folder / "out.npy", "--precision", "bf16") == 0
    embeddings = np.load(folder / "out.npy")
    cosine = (embeddings * expected.embeddings).sum(axis=1)
    cosine /= np.linalg.norm(embeddings, axis=1) * np.linalg.norm(expected.embeddings, axis=1)
    assert cosine.min() > 0.999
    assert slide.read_bytes() == before


def test_pair_with_an_empty_cell_has_no_probability(
    run: Run, slide: Path, directory: Path, pair_file: Path, adata: anndata.AnnData
) -> None:
    cell = pd.read_csv(pair_file)["left"][0]
    dense = adata.X.toarray()
    dense[adata.obs_names.get_loc(cell)] = 0
    adata.X = dense
    adata.write_h5ad(slide)
    output = slide.parent / "out.csv"
    assert run("pairs", slide, "--pairs", pair_file, "--model", directory, "-o", output) == 0
    written = pd.read_csv(output)
    has_cell = (written[["left", "right"]] == cell).any(axis=1)
    assert (written["probability"].isna() == has_cell).all()


def test_colocalization(run: Run, slide: Path, directory: Path, model: SpatialFormer, adata: anndata.AnnData) -> None:
    before = slide.read_bytes()
    output = slide.parent / "out.h5ad"
    base = ("colocalization", slide, "--model", directory, "-o", output)
    assert run(*base, "--threshold", 0.6) == 0
    written = anndata.read_h5ad(output)
    model.predict_colocalization(adata, 0.6)
    difference = written.obsm["colocalization_pred"] - adata.obsm["colocalization_pred"]
    assert abs(difference).max() < 1e-5
    pd.testing.assert_frame_equal(
        written.uns["colocalization_pred"]["pairs"].astype(str),
        adata.uns["colocalization_pred"]["pairs"].astype(str),
        check_index_type=False,
    )
    assert written.uns["spaf"]["account"]["read"] == 7
    assert written.uns["spaf"]["predict_colocalization"]["model"] == str(directory)
    assert slide.read_bytes() == before
    # Once more on its own output: results are replaced, not doubled.
    assert run("colocalization", output, "-m", directory, "-o", slide.parent / "more.h5ad", "--threshold", 0.8) == 0
    fewer = anndata.read_h5ad(slide.parent / "more.h5ad")
    assert fewer.uns["colocalization_pred"]["threshold"] == 0.8
    assert 0 < fewer.obsm["colocalization_pred"].nnz < written.obsm["colocalization_pred"].nnz


def test_attention(
    run: Run, slide: Path, directory: Path, pair_file: Path, model: SpatialFormer, adata: anndata.AnnData
) -> None:
    output = slide.parent / "attention.csv"
    base = ("attention", slide, "--pairs", pair_file, "--model", directory, "-o", output)
    assert run(*base, "--layers", 1, "--heads", 0, "--heads", 2, "--min-pairs", 2) == 0
    written = pd.read_csv(output)
    result = model.attention(adata, pd.read_csv(pair_file), layers=[1], heads=[0, 2])
    for direction, part in written.groupby("direction"):
        expected = result.table(str(direction), min_pairs=2).set_index(["query", "key"])  # type: ignore[arg-type]
        found = part.set_index(["query", "key"]).loc[expected.index]
        np.testing.assert_allclose(found["weight"], expected["weight"], atol=1e-5)
        np.testing.assert_array_equal(found["n_pairs"], expected["n_pairs"])
        assert len(found) == len(part)
    assert written["direction"].nunique() == 4
    assert run(*base, "--with-alibi") == 0
    assert pd.read_csv(output)["weight"].min() > 0


@pytest.mark.parametrize("command", ["embed", "pairs", "colocalization", "attention", "convert", "info", "kernels"])
def test_every_command_has_help_with_an_example(command: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert f"spaf-model {command} " in capsys.readouterr().out
