"""Tools on AnnData, in the manner of scanpy's ``tl``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaf_model.asking import PredictsColocalization, asked
from spaf_model.loading import load_model
from spaf_model.model import Model
from spaf_model.shipped import STARTER
from spaf_model.spatialformer.published.embed_data import embed_data

if TYPE_CHECKING:
    from spaf_model.inputs import CellTables

__all__ = ["embed", "embed_data", "predict_colocalization"]


def embed(adata: CellTables, model: Model[Any, Any] | str | Path = STARTER, **options: Any) -> None:
    """Embed the cells of an AnnData into ``obsm["X_SpaF"]``.

    Parameters
    ----------
    adata
        Raw counts, cells x genes; or a SpatialData, or a list of either.
    model
        A model of any family, the path of a model directory, or the name of a model that comes with the package.
    **options
        As for `Model.embed`.
    """
    _loaded(model).embed(adata, **options)


def predict_colocalization(
    adata: CellTables, model: Model[Any, Any] | str | Path, threshold: float = 0.7, **options: Any
) -> None:
    """Find the gene pairs that a model expects to lie together, into ``obsm["colocalization_pred"]``.

    Parameters
    ----------
    adata
        Raw counts, cells x genes; or a SpatialData, or a list of either.
    model
        A model, the path of a model directory, or the name of a model that comes with the package.
    threshold
        Least probability of a pair.
    **options
        As for `SpatialFormer.predict_colocalization`.

    Raises
    ------
    InputError
        If the family of the model has no such output.
    """
    asked(_loaded(model), PredictsColocalization).predict_colocalization(adata, threshold, **options)


def _loaded(model: Model[Any, Any] | str | Path) -> Model[Any, Any]:
    return model if isinstance(model, Model) else load_model(model)
