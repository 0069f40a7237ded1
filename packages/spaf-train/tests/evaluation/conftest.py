"""Tissue made up for the tests of the metrics."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from spaf_model import SpatialFormer, SpatialFormerConfig
from spaf_train import vocabulary_from_corpus


@pytest.fixture
def tissue() -> ad.AnnData:
    """Two cell types in two halves of a tissue, cut into training and validation."""
    rng = np.random.default_rng(3)
    xy = np.stack(np.meshgrid(np.arange(0, 400, 20.0), np.arange(0, 300, 20.0)), axis=-1).reshape(-1, 2)
    xy += rng.normal(0, 2, xy.shape)
    types = (xy[:, 1] > 150).astype(int)
    rates = np.array([[8, 8, 1, 1, 3, 3], [1, 1, 8, 8, 3, 3]])
    region = np.where(xy[:, 0] < 150, "train", np.where(xy[:, 0] < 210, "gap", "validation"))
    return ad.AnnData(
        sparse.csr_matrix(rng.poisson(rates[types]).astype(np.float32)),
        obs=pd.DataFrame({"split": region}, index=[f"cell{index}" for index in range(len(xy))]),
        obsm={"spatial": xy},
    )


@pytest.fixture
def separate(corpus):
    """A model that reads the two cells of a pair apart."""
    config = SpatialFormerConfig(
        width=16, n_layers=1, n_heads=2, conv_kernel=3, colocalization_rank=4, pair_input="separate", pair_rank=4
    )
    return SpatialFormer(config, vocabulary_from_corpus(corpus), seed=0)
