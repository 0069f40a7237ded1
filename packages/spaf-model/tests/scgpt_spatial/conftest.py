from collections.abc import Callable

import numpy as np
import pytest
import torch

from spaf_model import CellCounts, Vocabulary
from spaf_model.scgpt_spatial import ScGPTSpatial, ScGPTSpatialConfig, ValueBatch, ValuedCells

SMALL = {"width": 32, "n_layers": 3, "n_heads": 4}
TECHNOLOGIES = ["merfish", "visium", "xenium"]


def small(**options: object) -> ScGPTSpatialConfig:
    return ScGPTSpatialConfig(**{**SMALL, **options})  # type: ignore[arg-type]


CONFIGS = {
    "new": small(),
    "experts": small(n_experts=4, balance_rate=0.1),
    "experts by cell": small(n_experts=3, n_active=1, routing="cell"),
    "published": small(
        norm="post", asked_projection=False, n_experts=4, balance_rate=0.0, output="bins", dropout=0.2,
        attention_dropout=0.2,
    ),
}  # fmt: skip


@pytest.fixture
def vocabulary(genes: list[str]) -> Vocabulary:
    """Of genes with population means, and of technologies."""
    return Vocabulary.build(
        genes,
        scale=np.linspace(0.5, 3.0, len(genes)),
        gene_ids=[f"ENSG{position:011d}" for position in range(len(genes))],
        assay=TECHNOLOGIES,
        unknown=(),
    )


@pytest.fixture(params=CONFIGS)
def model(
    request: pytest.FixtureRequest, vocabulary: Vocabulary, randomised: Callable[[torch.nn.Module], None]
) -> ScGPTSpatial:
    model = ScGPTSpatial(CONFIGS[request.param], vocabulary, seed=3)
    randomised(model.network)
    model.network.eval()
    return model


@pytest.fixture
def cells(vocabulary: Vocabulary) -> CellCounts:
    """30 cells of 0 to 29 genes, of three technologies."""
    rng = np.random.default_rng(7)
    n_genes = rng.permutation(30)
    tokens = [rng.permutation(vocabulary.gene_token_ids)[:n] for n in n_genes]
    assays = [vocabulary.context_id("assay", TECHNOLOGIES[cell % 3]) for cell in range(30)]
    context = np.full((30, 4), -1, dtype=np.int64)
    context[:, 3] = assays
    measured = np.zeros(vocabulary.n_tokens, dtype=bool)
    measured[vocabulary.gene_token_ids] = True
    return CellCounts(
        indptr=np.concatenate([[0], np.cumsum(n_genes)]),
        tokens=np.concatenate(tokens),
        counts=(rng.poisson(2.0, n_genes.sum()) + 1).astype(np.float32),
        context=context,
        measured=measured,
        slides=np.zeros(30, dtype=np.int64),
    )


@pytest.fixture
def valued(model: ScGPTSpatial, cells: CellCounts) -> ValuedCells:
    return model.tokeniser(cells)


@pytest.fixture
def batch(valued: ValuedCells) -> ValueBatch:
    """Eight cells of different length."""
    return valued.batch(np.flatnonzero(valued.lengths)[:8])


@pytest.fixture
def asking(valued: ValuedCells) -> ValueBatch:
    """The same with every third gene asked for."""
    is_asked = np.arange(valued.genes.tokens.size) % 3 == 0
    return valued.split_batch(np.flatnonzero(valued.lengths)[:8], is_asked)[0]
