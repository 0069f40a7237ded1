"""Tools on AnnData, in the manner of scanpy's ``tl``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spaf_model.inputs import CellTables
from spaf_model.model import SpatialFormer
from spaf_model.published.embed_data import embed_data
from spaf_model.shipped import STARTER

__all__ = ["embed", "embed_data", "predict_colocalization"]


def embed(adata: CellTables, model: SpatialFormer | str | Path = STARTER, **options: Any) -> None:
    """Embed the cells of an AnnData into ``obsm["X_SpaF"]``.

    Parameters
    ----------
    adata
        Raw counts, cells x genes; or a SpatialData, or a list of either.
    model
        A model, the path of a model directory, or the name of a model that comes with the package.
    **options
        As for `SpatialFormer.embed`.
    """
    _loaded(model).embed(adata, **options)


def predict_colocalization(
    adata: CellTables, model: SpatialFormer | str | Path, threshold: float = 0.7, **options: Any
) -> None:
    """Find the gene pairs that a model expects to lie together, into ``obsm["colocalization_pred"]``.

    Parameters
    ----------
    adata
        Raw counts, cells x genes; or a SpatialData, or a list of either.
    model
        A model, or the path of a model directory.
    threshold
        Least probability of a pair.
    **options
        As for `SpatialFormer.predict_colocalization`.
    """
    _loaded(model).predict_colocalization(adata, threshold, **options)


def _loaded(model: SpatialFormer | str | Path) -> SpatialFormer:
    return model if isinstance(model, SpatialFormer) else SpatialFormer.from_pretrained(model)
