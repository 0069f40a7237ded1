"""Baselines that the slide itself gives: its own principal components, and what cells share with their neighbours."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_model import InputError, NetworkConfig, TissueModel
from spaf_train.evaluation.baselines import N_COMPONENTS, pca_embedding

if TYPE_CHECKING:
    from spaf_data import Distances
    from spaf_train.evaluation.placed_cells import PlacedCells

logger = logging.getLogger(__name__)

OWN_PCA, Z_PCA = "PCA of the judged slide", "z-scored PCA of the judged slide"
NEIGHBOURS, TOWER = "neighbours, closed form", "tower"
_LEAST_CELLS = 10  # of a slide, below which it has no statistics of its own
_TOWER_CELLS = 1_500  # of training with a neighbour, below which a tower is no better than the closed form
# The smaller of the two networks of `TissueModel`, whatever the number of cells: some ten seconds of one core.
_TOWER = NetworkConfig()


def slide_embeddings(
    judged: PlacedCells, fitted: PlacedCells, distances: Distances, *, seed: int = 0, tower: bool = True
) -> dict[str, NDArray[np.float64]]:
    """Embed the judged cells by what needs no model of many slides.

    Parameters
    ----------
    judged
        Cells to embed. Their own slides, without places, give two of the embeddings: 30 principal components of log
        counts, and of z-scores of those.
    fitted
        Training cells, of the same genes: the closed form of `TissueModel` (``preset="neighbours"``) and, with 1,500
        that have a neighbour, a multilayer perceptron beside it are fitted on these and their places.
    distances
        Its radius says who is a neighbour.
    seed
        Of the perceptron.
    tower
        Whether it is wanted.

    Returns
    -------
    dict
        By name (n_cells, n_dimensions), centred by slide; zeros for cells that cannot be embedded. What there is
        nothing to fit on is left out, with a warning.
    """
    found = {OWN_PCA: _own_components(judged)}
    try:
        training = _table(fitted.take(_on_large_slides(fitted)))
        closed = TissueModel.fit(training, "neighbours", slide_key="slide", radius=distances.positive)
    except InputError as error:
        logger.warning("%s The closed form of neighbours is left out.", error)
        closed = None
    parts = _parts(closed, judged)
    if "identity" in parts:
        found[Z_PCA] = parts["identity"][:, :N_COMPONENTS]
    if closed is None:
        return found
    if not closed.n_place:
        logger.warning(
            "The training cells have no neighbours to learn from: the closed form of neighbours is left out."
        )
        return found
    found[NEIGHBOURS] = parts["place"]
    assert closed.account is not None, "it was fitted"
    if tower and sum(slide.n_with_neighbour for slide in closed.account.slides) >= _TOWER_CELLS:
        model = TissueModel.fit(
            training, "tissue", slide_key="slide", radius=distances.positive, seed=seed, network=_TOWER
        )
        found[TOWER] = _parts(model, judged)["place"]
    return found


def _own_components(cells: PlacedCells) -> NDArray[np.float64]:
    """Return principal components of each slide's own log counts."""
    result = np.zeros((len(cells), N_COMPONENTS))
    for name in np.unique(cells.slide):
        rows = np.flatnonzero(cells.slide == name)
        if rows.size > 2:
            own = pca_embedding(cells.counts[rows], np.arange(rows.size)).coordinates
            result[rows, : own.shape[1]] = own
    return result


def _parts(model: TissueModel | None, cells: PlacedCells) -> dict[str, NDArray[np.float64]]:
    """Return the parts of the embedding, each slide by itself, so that identity is its own principal components."""
    result: dict[str, NDArray[np.float64]] = {}
    if model is None:
        return result
    for name in np.unique(cells.slide):
        rows = np.flatnonzero(cells.slide == name)
        table = _table(cells.take(rows))
        try:
            model.embed(table, identity="slide", parts=True, key_added="X")
        except InputError as error:  # too few cells to standardise by
            logger.warning("%s", error)
            continue
        for part in ("place", "identity"):
            if f"X_{part}" in table.obsm:
                own = np.nan_to_num(np.asarray(table.obsm[f"X_{part}"], dtype=np.float64))
                whole = result.setdefault(part, np.zeros((len(cells), own.shape[1])))
                width = min(whole.shape[1], own.shape[1])  # a small slide has fewer components
                whole[rows, :width] = own[:, :width]
    return result


def _on_large_slides(cells: PlacedCells) -> NDArray[np.int64]:
    occupied = np.asarray(cells.counts.sum(axis=1)).ravel() > 0
    names, code = np.unique(cells.slide, return_inverse=True)
    n_cells = np.bincount(code.ravel(), weights=occupied, minlength=names.size)
    return np.flatnonzero((n_cells >= _LEAST_CELLS)[code.ravel()])


def _table(cells: PlacedCells) -> anndata.AnnData:
    counts = cells.counts.astype(np.float32)
    table = anndata.AnnData(
        counts,
        obs=pd.DataFrame({"slide": cells.slide}, index=np.arange(len(cells)).astype(str)),
        var=pd.DataFrame(index=[f"gene {number}" for number in range(counts.shape[1])]),
    )
    table.obsm["spatial"] = cells.coordinates
    return table
