"""A family from outside the package: nothing but counts times a matrix, and one that reads whole slides."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import spaf_model
from spaf_model import (
    CellCounts,
    EmbeddingSettings,
    EmbedsPairs,
    InputError,
    Model,
    Network,
    PredictsColocalization,
    PredictsExpression,
    ReadsWithoutGenes,
    ShowsAttention,
    SpatialFormer,
    Vocabulary,
    asked,
    families,
    family,
    load_model,
    register_family,
)

Run = Callable[..., int]


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    n_genes: int
    width: int = 3

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ToyConfig":
        return cls(**values)


@dataclasses.dataclass
class ToyCells:
    cells: CellCounts

    @property
    def lengths(self) -> np.ndarray:
        return (self.cells.n_genes > 0).astype(np.int64)

    def batch(self, cells: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.cells.matrix()[cells].toarray())


class ToyNetwork(Network[torch.Tensor]):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(config.n_genes, config.width))

    @property
    def width(self) -> int:
        return self.matrix.shape[1]

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        return batch @ self.matrix

    def pool(self, hidden: torch.Tensor, batch: torch.Tensor, method: str) -> torch.Tensor:
        return hidden if method == "sum" else hidden / batch.sum(dim=1, keepdim=True)


class Toy(Model[ToyConfig, ToyNetwork]):
    family = "toy"
    Config = ToyConfig
    methods = ("sum", "mean")

    def make_network(self) -> ToyNetwork:
        return ToyNetwork(self.config)

    @property
    def tokeniser(self) -> Callable[[CellCounts], ToyCells]:
        return ToyCells


class Centred(Toy):
    """Counts less the mean of their slide, and which genes are measured, as parts."""

    family = "centred"
    parts = ("place", "measured")
    reads_whole_slides = True

    def embed_counts(self, cells: CellCounts, **options: Any) -> dict[str, np.ndarray]:
        counts = cells.matrix().toarray()
        for slide in np.unique(cells.slides):
            counts[cells.slides == slide] -= counts[cells.slides == slide].mean(axis=0)
        place = counts @ self.network.matrix.detach().numpy()
        measured = np.tile(cells.measured.astype(np.float32), (cells.n_cells, 1))
        return {"": np.hstack([place, measured]), "place": place, "measured": measured}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_family(Toy)
    register_family(Centred)
    yield
    family._registered.clear()


@pytest.fixture
def genes_alone(genes: list[str]) -> Vocabulary:
    return Vocabulary.of_genes(genes)


@pytest.fixture
def toy(genes_alone: Vocabulary) -> Toy:
    return Toy(ToyConfig(genes_alone.n_tokens), genes_alone, seed=2)


@pytest.fixture
def toy_directory(toy: Toy, tmp_path: Path) -> Path:
    toy.card = "A toy."
    toy.save_pretrained(tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture
def plain(adata: anndata.AnnData) -> anndata.AnnData:
    """Counts without any context, for a family that reads none."""
    return anndata.AnnData(adata.X, var=adata.var, obs=pd.DataFrame(index=adata.obs_names))


def test_toy_family_is_saved_loaded_and_embeds(toy: Toy, toy_directory: Path, plain: anndata.AnnData) -> None:
    expected = plain.X.toarray() @ toy.network.matrix.detach().numpy()
    loaded = load_model(toy_directory)
    assert isinstance(loaded, Toy)
    assert loaded.config == toy.config
    assert loaded.card == "A toy."
    assert json.loads((toy_directory / "config.json").read_text())["family"] == "toy"
    loaded.embed(plain)
    np.testing.assert_allclose(plain.obsm["X_SpaF"], expected, rtol=1e-5)
    spaf_model.tl.embed(plain, toy_directory, method="mean", token_budget=7, key_added="mean")
    totals = np.asarray(plain.X.sum(axis=1))
    np.testing.assert_allclose(plain.obsm["mean"], expected / totals, rtol=1e-5)
    record = plain.uns["spaf"]["embed"]
    assert (record["family"], record["parameters"]["method"]) == ("toy", "mean")


def test_toy_family_in_every_command(
    run: Run, toy: Toy, toy_directory: Path, plain: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slide, out = tmp_path / "plain.h5ad", tmp_path / "out.h5ad"
    plain.write_h5ad(slide)
    assert run("embed", slide, "-m", toy_directory, "--out", out, "--key-added", "X") == 0
    toy.embed(plain)
    np.testing.assert_allclose(anndata.read_h5ad(out).obsm["X"], plain.obsm["X_SpaF"], rtol=1e-5)
    assert run("info", toy_directory, "--json") == 0
    assert json.loads(capsys.readouterr().out)["family"] == "toy"
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("left,right\ncell1,cell2\n")
    capsys.readouterr()
    cannot = {
        ("pairs", slide, "--pairs", pairs): "cannot tell whether two cells are neighbours",
        ("colocalization", slide): "cannot tell which genes lie together in a cell",
        ("attention", slide, "--pairs", pairs): "cannot show attention between genes",
    }
    for command, sentence in cannot.items():
        output = tmp_path / ("new.h5ad" if command[0] == "colocalization" else "new.csv")
        assert run(*command, "-m", toy_directory, "-o", output) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1
        assert f"{sentence}: its family 'toy' has no such output" in error[0]
        assert not output.exists()
    bad = {
        ("--method", "cls"): "method must be one of sum, mean, not 'cls'",
        ("--kernel", "sdpa"): "kernel 'sdpa' cannot be chosen: ToyNetwork has no attention",
        ("--parts",): "the family 'toy' has no named parts",
    }
    for options, sentence in bad.items():
        assert run("embed", slide, "-m", toy_directory, "-o", tmp_path / "new.h5ad", *options) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "new.h5ad").exists()


def test_cells_without_a_gene_and_memory_that_is_short(toy: Toy, plain: anndata.AnnData) -> None:
    dense = plain.X.toarray()
    dense[[4, 9]] = 0
    plain.X = dense
    toy.embed(plain)
    assert np.flatnonzero(np.isnan(plain.obsm["X_SpaF"]).any(axis=1)).tolist() == [4, 9]
    with pytest.raises(InputError, match="'cell4' has no transcript"):
        toy.embed(plain, strict=True)


def test_whole_slides_are_read_at_once_and_parts_are_named(
    genes_alone: Vocabulary, plain: anndata.AnnData, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spaf_model.cell_source._ROWS_AT_A_TIME", 7)
    model = Centred(ToyConfig(genes_alone.n_tokens), genes_alone)
    some = plain[:, 1:].copy()  # without the first gene, which is unknown then
    some.obs["slide"] = ["a", "b"] * 30
    expected = np.hstack([np.zeros((60, 1), dtype=np.float32), some.X.toarray()])
    for slide in (0, 1):
        expected[slide::2] -= expected[slide::2].mean(axis=0)
    model.embed(some)
    place = expected @ model.network.matrix.detach().numpy()
    np.testing.assert_allclose(some.obsm["X_SpaF"][:, :3], place, atol=1e-4)
    assert some.obsm["X_SpaF"][:, 3].tolist() == [0.0] * 60
    assert (some.obsm["X_SpaF"][:, 4:] == 1.0).all()
    assert list(some.obsm) == ["X_SpaF"]
    model.embed(some, parts=True, key_added="other")
    np.testing.assert_array_equal(some.obsm["other_place"], some.obsm["X_SpaF"][:, :3])
    np.testing.assert_array_equal(some.obsm["other_measured"], some.obsm["X_SpaF"][:, 3:])
    assert some.uns["spaf"]["embed"]["n_dimensions"] == {"place": 3, "measured": 40}
    some.obs["where"] = 1
    model.embed(some, slide_key="where", key_added="one slide")
    assert np.abs(some.obsm["one slide"] - some.obsm["X_SpaF"]).max() > 1e-3
    with pytest.raises(InputError, match="obs has no column 'fov' .slide_key.; it has: slide, where"):
        model.embed(some, slide_key="fov")
    some.obs.iloc[3, 0] = None
    with pytest.raises(InputError, match=r"obs\['slide'\] has no slide for cell 'cell3'"):
        model.embed(some)
    with pytest.raises(InputError, match="reads whole slides: it embeds in one process"):
        model.embed(some, distributed=True)
    model.save_pretrained(tmp_path / "centred")
    plain.write_h5ad(tmp_path / "plain.h5ad")
    command = ("embed", tmp_path / "plain.h5ad", "-m", tmp_path / "centred", "-o", tmp_path / "out.h5ad", "--parts")
    assert run(*command) == 0
    assert {"X_SpaF", "X_SpaF_place", "X_SpaF_measured"} == set(anndata.read_h5ad(tmp_path / "out.h5ad").obsm)


def test_a_class_reads_directories_of_its_own_family(toy_directory: Path, directory: Path) -> None:
    with pytest.raises(InputError, match="of the family 'toy', not of 'spatialformer'; spaf_model.load_model reads"):
        SpatialFormer.from_pretrained(toy_directory)
    with pytest.raises(InputError, match="of the family 'spatialformer', not of 'toy'"):
        Toy.from_pretrained(directory)
    assert isinstance(load_model(directory), SpatialFormer)


def test_unknown_family_lists_the_known(toy_directory: Path) -> None:
    assert families() == ["centred", "scgpt_spatial", "spatialformer", "tissue", "toy"]
    family._registered.pop("toy")
    with pytest.raises(InputError, match="There is no family 'toy'; known families: centred, scgpt_spatial, sp"):
        load_model(toy_directory)


def test_a_built_in_name_is_taken() -> None:
    class Other(Toy):
        family = "spatialformer"

    with pytest.raises(InputError, match="'spatialformer' is built in"):
        register_family(Other)


def test_an_installed_package_brings_its_family(toy_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "toy"

        def load(self) -> type[Toy]:
            return Toy

    family._registered.pop("toy")
    monkeypatch.setattr(family, "entry_points", lambda group: [Point()] if group == "spaf_model.families" else [])
    assert isinstance(load_model(toy_directory), Toy)
    assert "toy" in families()


def test_what_a_spatialformer_can_be_asked(model: SpatialFormer, toy: Toy) -> None:
    for what in (EmbedsPairs, PredictsColocalization, ShowsAttention):
        assert asked(model, what) is model
        with pytest.raises(InputError, match="The model not saved cannot .*: its family 'toy' has no such output"):
            asked(toy, what)
    with pytest.raises(InputError, match="cannot predict the counts of genes"):
        asked(model, PredictsExpression)
    with pytest.raises(InputError, match="cannot read cells without some of their genes"):
        asked(model, ReadsWithoutGenes)


def test_defaults_of_a_network(toy: Toy) -> None:
    assert (list(toy.network.blocks()), list(toy.network.adapted_layers)) == ([], [])
    assert toy.network.operations(torch.ones(2, 3)) == 0.0
    assert toy.network.token_budget(torch.device("cpu")) == (8 << 20) // (4 * 3)
    with pytest.raises(InputError, match="has no attention"):
        toy.network.embedder("sum", EmbeddingSettings(kernel="flash"))
