"""The niche state of the own-tissue model: of components of two ways to standardise counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaf_model.joint import unit
from spaf_model.niche import N_CELLS, surroundings
from spaf_model.tissue.components import principal_components

if TYPE_CHECKING:
    from spaf_model.tissue.standardise import PearsonResiduals, Rows, ZScores

_COMPONENTS = 30


def niche_state(
    pearson: PearsonResiduals,
    zscores: ZScores,
    coordinates: NDArray[np.float64],
    *,
    k: int = N_CELLS,
    seed: int = 0,
    n_threads: int = 1,
) -> Rows:
    """Return the state of each cell of one slide together with its surroundings, (n_cells, at most 120).

    Principal components of the z-scores and of the Pearson residuals, averaged once and twice over the cell and its k
    nearest ones.
    """
    parts = [
        unit(slide.project(principal_components([slide], _COMPONENTS, seed=seed)[0])) for slide in (zscores, pearson)
    ]
    return surroundings(np.concatenate(parts, axis=1), coordinates, k, n_threads=n_threads)
