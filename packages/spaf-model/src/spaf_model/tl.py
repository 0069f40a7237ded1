"""Tools on AnnData, in the manner of scanpy's ``tl``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata

from spaf_model.model import SpatialFormer
from spaf_model.shipped import STARTER

__all__ = ["embed"]


def embed(adata: anndata.AnnData, model: SpatialFormer | str | Path = STARTER, **options: Any) -> None:
    """Embed the cells of an AnnData into ``obsm["X_SpaF"]``.

    Parameters
    ----------
    adata
        Raw counts, cells x genes.
    model
        A model, the path of a model directory, or the name of a model that comes with the package.
    **options
        As for `SpatialFormer.embed`.
    """
    if not isinstance(model, SpatialFormer):
        model = SpatialFormer.from_pretrained(model)
    model.embed(adata, **options)
