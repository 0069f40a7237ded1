"""A tiny corpus, and what tests do with it."""

import dataclasses

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from spaf_data import Corpus, simulate_bundle, write_corpus
from spaf_model import SpatialFormer, SpatialFormerConfig, Vocabulary
from spaf_train import BatchStream, ObjectivesConfig, SamplingConfig, read_config, vocabulary_from_corpus

GENES = [f"G{number:02d}" for number in range(24)]

TINY = """
seed = 3
[model]
width = 16
n_layers = 1
n_heads = 2
conv_kernel = 3
colocalization_rank = 4
[sampling]
window_blocks = 2
grouping = 64
token_budget = 600
batches_per_step = 2
[optimizer]
warmup_steps = 2
[run]
steps = 6
log_every = 1
validate_every = 3
validation_inputs = 60
checkpoint_every = 2
threads = 1
device = "cpu"
"""

TINY_SPATIAL = """
seed = 3
[model]
family = "scgpt_spatial"
width = 16
n_layers = 1
n_heads = 2
n_neighbours = 6
neighbour_mix = "learnt"
n_experts = 3
balance_rate = 0.05
[sampling]
input = "windows"
window_blocks = 2
token_budget = 600
batches_per_step = 2
[sampling.windows]
cells = 16
neighbours = 6
[objectives.masked_genes]
enabled = false
[objectives.colocalization]
enabled = false
[objectives.pairs]
enabled = false
[objectives.masked_values]
enabled = true
[objectives.cell_values]
enabled = true
[objectives.neighbourhood]
enabled = true
neighbours = 6
""" + TINY[TINY.index("[optimizer]") :]


def make_slide(name: str, *, seed: int, tissue: str, n_cells: int = 200) -> anndata.AnnData:
    """Cells in two stripes of two cell types; in each cell mostly genes of one of three groups are co-localised."""
    generator = np.random.default_rng(seed)
    coordinates = generator.uniform((0, 0), (500, 250), (n_cells, 2))
    cell_type = (coordinates[:, 1] > 125).astype(int)
    rates = np.where(np.arange(24)[None, :] % 2 == cell_type[:, None], 2.5, 0.3)
    counts = generator.poisson(rates).astype(np.int32)
    counts[:, 0] = np.maximum(counts[:, 0], 1)
    pairs = np.array([(a, b) for a in range(24) for b in range(a + 1, 24)])
    both = (counts[:, pairs[:, 0]] > 0) & (counts[:, pairs[:, 1]] > 0)
    alike = pairs[:, 0] // 2 % 3 == pairs[:, 1] // 2 % 3
    colocalized = both & (generator.random(both.shape) < np.where(alike, 0.9, 0.02))
    split = np.where(coordinates[:, 0] < 300, "train", np.where(coordinates[:, 0] > 340, "validation", "gap"))
    obs = pd.DataFrame({"split": split}, index=[f"{name}-{cell}" for cell in range(n_cells)])
    for column, value in {"slide": name, "tissue": tissue, "condition": "Disease", "species": "Human"}.items():
        obs[column] = value
    obs["assay"] = "Xenium"
    adata = anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=GENES))
    adata.obsm["spatial"] = coordinates
    adata.obsm["colocalization"] = sparse.csr_matrix(colocalized.astype(np.int8))
    genes = np.array(GENES, dtype=object)
    table = pd.DataFrame({"gene_a": genes[pairs[:, 0]], "gene_b": genes[pairs[:, 1]]})
    adata.uns["colocalization"] = {"pairs": table, "method": "communities", "parameters": {}}
    return adata


@pytest.fixture(scope="session")
def slides() -> list[anndata.AnnData]:
    return [make_slide("first", seed=0, tissue="Breast"), make_slide("second", seed=1, tissue="Lung")]


@pytest.fixture(scope="session")
def corpus(slides: list[anndata.AnnData], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus(slides, tmp_path_factory.mktemp("corpus") / "corpus", block_cells=40)


@pytest.fixture(scope="session")
def other_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus([make_slide("first", seed=2, tissue="Breast")], tmp_path_factory.mktemp("other") / "corpus")


@pytest.fixture(scope="session")
def spread_corpus(slides: list[anndata.AnnData], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The same slides four times as large, as of another technology: neighbours within 120 um."""
    spread = [slide.copy() for slide in slides]
    for slide in spread:
        slide.obsm["spatial"] = 4.0 * slide.obsm["spatial"]
    return write_corpus(spread, tmp_path_factory.mktemp("spread") / "corpus", block_cells=40, positive_radius=120.0)


@pytest.fixture(scope="session")
def vocabulary(corpus: Corpus) -> Vocabulary:
    return vocabulary_from_corpus(corpus)


@pytest.fixture(scope="session")
def longer(tmp_path_factory):
    """A configuration file with enough steps to be killed within."""
    path = tmp_path_factory.mktemp("longer") / "longer.toml"
    path.write_text(TINY.replace("steps = 6", "steps = 20"))
    return path


@pytest.fixture
def config_path(request, tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_SPATIAL if getattr(request, "param", "") == "scgpt_spatial" else TINY)
    return path


@pytest.fixture
def spatial_path(tmp_path):
    path = tmp_path / "spatial.toml"
    path.write_text(TINY_SPATIAL)
    return path


@pytest.fixture
def config(config_path):
    return read_config(config_path)


@pytest.fixture(scope="session")
def read_by():
    """Return a function that makes a small model of a vocabulary, for what reads cells as it does."""

    def make(vocabulary, **options):
        return SpatialFormer(SpatialFormerConfig(width=4, n_layers=1, n_heads=1, **options), vocabulary)

    return make


@pytest.fixture
def make_stream(corpus, vocabulary, read_by):
    """Return a function that makes a stream of batches; its options are those of the sampling, split and ranks."""

    def make(*, split="train", seed=0, rank=0, world_size=1, objectives=None, max_genes=None, **options):
        sampling = dataclasses.replace(SamplingConfig(window_blocks=2, grouping=64, token_budget=600), **options)
        return BatchStream(
            corpus,
            read_by(vocabulary, max_genes=max_genes),
            sampling,
            objectives or ObjectivesConfig(),
            split=split,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )

    return make


@pytest.fixture
def network(config, vocabulary):
    return SpatialFormer(config.model, vocabulary, seed=0).network


@pytest.fixture(autouse=True)
def one_thread():
    """Keep tests on one thread: the machine may be busy, and threads that wait for each other make it worse."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary):
    """A model with random weights."""
    path = tmp_path_factory.mktemp("model") / "model"
    config = SpatialFormerConfig(width=16, n_layers=1, n_heads=2, conv_kernel=3, colocalization_rank=4, drop_path=0.0)
    model = SpatialFormer(config, vocabulary, seed=1)
    model.card = "# A model\n"
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory):
    """A run of 300 cells and 60 genes, of which pairs share spots."""
    return simulate_bundle(tmp_path_factory.mktemp("simulated") / "bundle", n_cells=300, n_genes=60, seed=0, depth=120)
