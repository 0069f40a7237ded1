"""Tasks that ask a model more than an embedding, of the cells of two types."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from spaf_analysis.benchmark.methods import OfModel
from spaf_analysis.errors import InputError
from spaf_model import asked

if TYPE_CHECKING:
    import anndata as ad

    from spaf_analysis.benchmark.base import Method
    from spaf_analysis.benchmark.data import Data

AskedT = TypeVar("AskedT")


def model_that(method: Method, data: Data, what: type[AskedT]) -> AskedT:
    """Return the model of a method as one that can be asked something, such as `spaf_model.PerturbsPairs`.

    Raises
    ------
    InputError
        If the method is an embedding, and no model, or the model cannot be asked that.
    """
    if not isinstance(method, OfModel):
        raise InputError(f"method {method.name!r} is an embedding of cells; a model is needed that can be asked more.")
    return asked(method.model(data), what)


def labelled(data: Data) -> ad.AnnData:
    """Return a copy of the cells that have one of the labels that say something."""
    codes, _ = data.codes(str(data.options.label))
    return data.taken(np.flatnonzero(codes >= 0))


def chosen_types(table: ad.AnnData, data: Data, left: str | None, right: str | None) -> tuple[str, str]:
    """Return the two types whose pairs of cells are looked at: those named, else the most frequent and itself."""
    label = str(data.options.label)
    first = str(table.obs[label].astype(str).value_counts().idxmax()) if left is None else left
    return first, first if right is None else right
