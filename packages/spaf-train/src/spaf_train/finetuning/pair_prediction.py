"""How likely two cells are neighbours, by a model that was fine-tuned for pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from numpy.typing import NDArray

from spaf_data import slides_of_cells
from spaf_model import EmbedsPairs, InputError, asked, load_model
from spaf_train.evaluation.calibrated_cosine import CalibratedCosine
from spaf_train.evaluation.judging import centred_cosine


def predict_pairs(
    adata: anndata.AnnData,
    model_dir: str | Path,
    left: Sequence[str] | NDArray[np.generic],
    right: Sequence[str] | NDArray[np.generic],
    *,
    device: str = "cpu",
    **options: Any,
) -> NDArray[np.float64]:
    """Return the probability that the two cells of each pair are neighbours.

    Parameters
    ----------
    adata
        Raw counts, cells x genes. Whole slides: where the head is the calibrated cosine, each cell is seen from the
        centre of its slide.
    model_dir
        What `finetune_pairs` wrote, or any model with a pair head.
    left, right
        Names or positions of the two cells of each pair.
    device
        Of the network.
    **options
        tissue, condition, species, assay, layer and the like, as for `spaf_model.Model.embed`.

    Returns
    -------
    array
        (n_pairs,); NaN where a cell has no gene of the model.

    Raises
    ------
    InputError
        If a cell is not there, the sides differ in length, the model tells no pairs, and as for `Model.embed`.

    Examples
    --------
    ::

        from spaf_train import predict_pairs

        predict_pairs(adata, "models/merscope", ["cell1", "cell2"], ["cell7", "cell9"], tissue="Brain")
    """
    model = load_model(model_dir, device=device)
    head = CalibratedCosine.find(model_dir)
    if head is None:
        found = asked(model, EmbedsPairs).embed_pairs(adata, left, right, **options)
        return np.asarray(found.probabilities, dtype=np.float64)
    sides = [_positions(adata, cells, name) for cells, name in ((left, "left"), (right, "right"))]
    if sides[0].size != sides[1].size:
        raise InputError(f"left and right must have equal lengths, not {sides[0].size} and {sides[1].size}.")
    cells = anndata.AnnData(X=adata.X, obs=adata.obs, var=adata.var, layers=dict(adata.layers))
    model.embed(cells, method=head.pooling, key_added="X", **options)
    states = np.asarray(cells.obsm["X"], dtype=np.float64)
    readable = np.asarray(np.isfinite(states).all(axis=1))
    slide = slides_of_cells(adata.obs)
    slide = np.full(adata.n_obs, "") if slide is None else slide
    cosines = centred_cosine(np.nan_to_num(states), slide, np.flatnonzero(readable))(*sides)
    return np.where(readable[sides[0]] & readable[sides[1]], head.probability(cosines), np.nan)


def _positions(
    adata: anndata.AnnData, cells: Sequence[str] | NDArray[np.generic], side: str
) -> NDArray[np.int64]:  # fmt: skip
    values = np.asarray(cells)
    if values.dtype.kind in "iu":
        outside = values[(values < 0) | (values >= adata.n_obs)]
        if outside.size:
            raise InputError(f"{side} has the position {outside[0]}; the AnnData has {adata.n_obs} cells.")
        return values.astype(np.int64)
    found = adata.obs_names.get_indexer(values.astype(str))
    if (found < 0).any():
        missing = str(values[found < 0][0])
        raise InputError(f"{side} names cells that are not in the AnnData, such as {missing!r}.")
    return np.asarray(found, dtype=np.int64)
