"""Runs in the file shapes of the vendors, made from one small truth."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import shapely

SIDE = 10.0  # um, of square cells that lie 12 um apart
STEP = 12.0
N_SIDE = 6


@dataclass(frozen=True)
class Truth:
    """Transcripts in square cells on a lattice and between them."""

    x: np.ndarray
    y: np.ndarray
    plane: np.ndarray
    gene: np.ndarray
    cell: np.ndarray  # number from 1, 0 in no cell
    corners: np.ndarray  # low corner of each cell

    def squares(self, side: float = SIDE) -> list[shapely.Polygon]:
        """The outlines of the cells, in order."""
        return [shapely.box(x, y, x + side, y + side) for x, y in self.corners]

    def counts(self) -> pd.DataFrame:
        """Cells x genes without controls and without transcripts in no cell."""
        kept = (self.cell > 0) & ~np.char.startswith(self.gene.astype(str), "Blank")
        return pd.crosstab(self.cell[kept], self.gene[kept])


@pytest.fixture(scope="session")
def truth() -> Truth:
    """36 square cells, 3,000 transcripts of six genes and one control, in two z planes."""
    rng = np.random.default_rng(11)
    n = 3000
    x, y = rng.uniform(0, N_SIDE * STEP, (2, n))
    column, row = (x // STEP).astype(int), (y // STEP).astype(int)
    inside = (x - column * STEP < SIDE) & (y - row * STEP < SIDE)
    corners = np.array([[c * STEP, r * STEP] for r in range(N_SIDE) for c in range(N_SIDE)])
    return Truth(
        x=x,
        y=y,
        plane=rng.integers(0, 2, n),
        gene=rng.choice(["KRT5", "VIM", "HLA_A", "Negr1", "CD3E", "ACTB", "Blank-7"], n),
        cell=np.where(inside, row * N_SIDE + column + 1, 0),
        corners=corners,
    )
