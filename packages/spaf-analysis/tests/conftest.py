"""Tissue made up for the tests, and the files that the earlier stages write."""

import json
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import jinja2
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import spaf_data
from spaf_analysis.report.words import count, figure, small
from spaf_model import SpatialFormer, SpatialFormerConfig, Vocabulary
from spaf_train.evaluation import pair_network


@dataclass(frozen=True)
class Stages:
    """Where the stages before the report left their results."""

    bundle: Path
    build: Path
    run: Path
    model: Path
    embedded: Path


@pytest.fixture(scope="session", autouse=True)
def quick_networks():
    """Train pair networks, which every judgement of pairs needs, for two epochs only."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pair_network, "_MAX_EPOCHS", 2)
        yield


@pytest.fixture
def html_of():
    """Lay out the body of one section, without its pictures."""

    def laid_out(section) -> str:
        environment = jinja2.Environment(autoescape=True)
        environment.filters |= {"count": count, "figure": figure, "small": small}
        shown = {"section": section, "show": lambda figures: f"{len(figures)} figures"}
        return environment.from_string(section.template).render(**shown, **section.view())

    return laid_out


@pytest.fixture
def tissue() -> ad.AnnData:
    """Two cell types in two halves of a tissue, with a cell graph, a split and an embedding that knows the types."""
    rng = np.random.default_rng(3)
    xy = np.stack(np.meshgrid(np.arange(0, 400, 20.0), np.arange(0, 300, 20.0)), axis=-1).reshape(-1, 2)
    xy += rng.normal(0, 2, xy.shape)
    types = (xy[:, 1] > 150).astype(int)
    rates = np.array([[8, 8, 1, 1, 3, 3], [1, 1, 8, 8, 3, 3]])
    adata = ad.AnnData(
        sparse.csr_matrix(rng.poisson(rates[types]).astype(np.float32)),
        obs=pd.DataFrame(index=[f"cell{index}" for index in range(len(xy))]),
        var=pd.DataFrame(index=["LEFT1", "LEFT2", "RIGHT1", "RIGHT2", "BOTH1", "BOTH2"]),
    )
    adata.obs["type"] = pd.Categorical(types.astype(str))
    adata.obs["n_transcripts"] = np.asarray(adata.X.sum(axis=1)).ravel().astype(int)
    adata.obs["slide"] = pd.Categorical(["s1"] * adata.n_obs)
    region = np.where(xy[:, 0] < 150, "train", np.where(xy[:, 0] < 210, "gap", "validation"))
    adata.obs["split"] = pd.Categorical(region, categories=["train", "validation", "gap"])
    adata.obsm["spatial"] = xy
    adata.obsm["X_SpaF"] = np.c_[types, 1 - types, rng.normal(0, 0.2, (len(xy), 3))].astype(np.float32)
    spaf_data.spatial_neighbors(adata, radius=30.0)
    return adata


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """A simulated run, built and embedded for real, by a model with random weights; the log of training is made up."""
    folder = tmp_path_factory.mktemp("stages")
    bundle, build, run = folder / "bundle", folder / "build", folder / "run"
    spaf_data.simulate_bundle(bundle, n_cells=500, n_genes=40, seed=1)
    source = spaf_data.SlideSource(
        path=bundle, slide="sim", tissue="Breast", condition="Disease", species="Human", assay="Xenium"
    )
    spaf_data.build_corpus([source], build)
    corpus = spaf_data.Corpus(build / "corpus")
    scale = corpus.gene_statistics["nonzero_mean"].reindex(corpus.genes).fillna(1.0)
    vocabulary = Vocabulary.build(
        corpus.genes, scale=scale.to_numpy(), species=("Human",), assay=("Xenium",), tissue=("Breast",),
        condition=("Disease",),
    )  # fmt: skip
    config = SpatialFormerConfig(width=16, n_layers=1, n_heads=2, conv_kernel=5, colocalization_rank=4)
    model = SpatialFormer(config, vocabulary, seed=0)
    model.network.eval()
    model.card = "# A card <with> brackets"
    run.mkdir()
    model.save_pretrained(run / "model")
    adata = ad.read_h5ad(build / "slides" / "sim.h5ad")
    model.embed(adata)
    adata.write_h5ad(folder / "embedded.h5ad")
    write_run(run)
    return Stages(bundle, build, run, run / "model", folder / "embedded.h5ad")


def write_run(run: Path) -> None:
    """Write the log and the record of a training run."""
    steps = np.arange(0, 100, 10)
    loss = 3 * np.exp(-steps / 50) + 4
    columns = {
        "loss": loss, "loss_masked_genes": loss / 2, "loss_colocalization": loss / 30, "loss_pairs": loss / 10,
        "accuracy_masked_genes": steps / 500,
    }  # fmt: skip
    training = pd.DataFrame({"step": steps, "split": "train", **columns, "auroc_pairs": np.nan})
    validation = training[::2].assign(split="validation", auroc_pairs=np.linspace(0.5, 0.7, 5))
    pd.concat([training, validation]).sort_values("step", kind="stable").to_csv(run / "metrics.csv", index=False)
    record = {
        "command": "spaf-train pretrain",
        "versions": {"spaf-train": "0.1.0"},
        "parameters": {"optimizer": {"learning_rate": 0.001}},
        "seconds": 12.5,
        "peak_rss_mb": 321.0,
        "steps": 100,
        "best_step": 60,
    }
    (run / "run.json").write_text(json.dumps(record))
