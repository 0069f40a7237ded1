"""Cells with a planted label, for fine-tuning."""

import anndata
import numpy as np
import pytest


@pytest.fixture
def cells(slides) -> anndata.AnnData:
    """Cells of one slide whose type decides which half of the genes they express."""
    adata = slides[0].copy()
    del adata.obsm["colocalization"], adata.uns["colocalization"]
    adata.obs["cell_type"] = np.where(adata.obsm["spatial"][:, 1] > 125, "upper", "lower")
    adata.X = adata.X.astype(np.float32)
    return adata
