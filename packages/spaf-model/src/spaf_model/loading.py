"""Reading a model directory whose family the caller need not know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaf_model.model import Model
from spaf_model.shipped import STARTER

if TYPE_CHECKING:
    import torch


def load_model(
    path: str | Path = STARTER, *, base_url: str | None = None, device: torch.device | str = "cpu"
) -> Model[Any, Any]:
    """Read a model directory of any family.

    Parameters
    ----------
    path
        The directory, the name of a model that comes with the package, or ``NAME@REVISION`` of a model of the web.
    base_url
        Where a model of the web is fetched from the first time (`fetch_model`).
    device
        Where the weights go.

    Raises
    ------
    InputError
        If it is not one, of no known family, and as `Model.from_pretrained`.

    Examples
    --------
    >>> from spaf_model import load_model
    >>> load_model("starter").family
    'tissue'
    """
    model: Model[Any, Any] = Model.from_pretrained(path, base_url=base_url, device=device)
    return model
