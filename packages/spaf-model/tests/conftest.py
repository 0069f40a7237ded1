import sys
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from spaf_model import CONTEXT_KINDS, RankedCells, SpatialFormer, SpatialFormerConfig, Vocabulary
from spaf_model.cli import main

N_GENES = 40
CONTEXT = {"condition": "Disease", "tissue": "Breast", "species": "Human", "assay": "Xenium"}


@pytest.fixture
def genes() -> list[str]:
    return [f"GENE{position}" for position in range(N_GENES)]


@pytest.fixture
def vocabulary(genes: list[str]) -> Vocabulary:
    return Vocabulary.build(
        genes,
        scale=np.linspace(0.5, 3.0, N_GENES),
        gene_ids=[f"ENSG{position:011d}" for position in range(N_GENES)],
        tissue=["Breast", "Lung"],
        condition=["Disease"],
        species=["Human"],
        assay=["Xenium"],
    )


@pytest.fixture
def config() -> SpatialFormerConfig:
    return SpatialFormerConfig(width=32, n_layers=2, n_heads=4, conv_kernel=5, colocalization_rank=8)


@pytest.fixture
def model(config: SpatialFormerConfig, vocabulary: Vocabulary) -> SpatialFormer:
    model = SpatialFormer(config, vocabulary, seed=3)
    randomise(model.network)
    return model


def randomise(network: torch.nn.Module) -> None:
    """Give every tensor values that a test can tell apart from its initial ones."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(noise.abs() + 0.5)
            elif tensor.ndim < 2:
                tensor.add_(0.2 * noise)
            else:
                tensor.copy_(noise * tensor.shape[-1] ** -0.5)


@pytest.fixture
def randomised() -> Callable[[torch.nn.Module], None]:
    return randomise


@pytest.fixture
def adata(genes: list[str]) -> anndata.AnnData:
    """60 cells of Poisson counts of very different depth, with the whole context in obs."""
    rng = np.random.default_rng(5)
    depth = rng.gamma(1.0, 0.8, size=(60, 1)) + 0.05
    counts = rng.poisson(depth * rng.gamma(0.7, 1.0, size=(1, N_GENES)))
    counts[counts.sum(axis=1) == 0, 0] = 1
    obs = pd.DataFrame(
        {kind: pd.Categorical([name] * 60) for kind, name in CONTEXT.items()},
        index=[f"cell{position}" for position in range(60)],
    )
    return anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=genes))


@pytest.fixture
def ranked(vocabulary: Vocabulary) -> RankedCells:
    """30 cells of 1 to 30 genes."""
    rng = np.random.default_rng(7)
    n_genes = rng.integers(1, 31, size=30)
    tokens = [rng.permutation(vocabulary.gene_token_ids)[:n] for n in n_genes]
    return RankedCells(indptr=np.concatenate([[0], np.cumsum(n_genes)]), tokens=np.concatenate(tokens))


@pytest.fixture
def context(vocabulary: Vocabulary, ranked: RankedCells) -> np.ndarray:
    return np.tile([vocabulary.context_id(kind, CONTEXT[kind]) for kind in CONTEXT_KINDS], (ranked.n_cells, 1))


@pytest.fixture
def slide(adata: anndata.AnnData, tmp_path: Path) -> Path:
    """The cells of `adata` as a file."""
    adata.obsm["spatial"] = np.random.default_rng(0).random((60, 2)) * 100
    adata.uns["spaf"] = {"account": {"read": 7}}
    adata.write_h5ad(tmp_path / "slide.h5ad")
    return tmp_path / "slide.h5ad"


@pytest.fixture
def directory(model: SpatialFormer, tmp_path: Path) -> Path:
    """The model as a directory."""
    model.card = "A card of [bold] text."
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command line with some arguments and return its exit code."""

    def run_command(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["spaf-model", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return int(exit_.value.code or 0)

    return run_command
