"""Genes that lie in a part of each simulated cell.

Cells and nuclei are discs around one centre. Of a gene of a pattern a share of the transcripts is moved:

- nuclear: into the nucleus, uniform over it;
- perinuclear: into the innermost quarter of the ring between nucleus and outline;
- peripheral: into the outermost quarter of that ring, which also is the edge of the cell;
- central: into the disc of a third of the cell's radius;
- polarised: into a wedge of 90 degrees, of a direction drawn for each gene and cell, at the distance they had;
- punctate: to one of four small spots, drawn for each gene and cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spaf_data.simulate.recipe import PATTERNS

if TYPE_CHECKING:
    from spaf_data.simulate.recipe import Simulation
    from spaf_data.simulate.tissue import Cells, Tissue

_QUARTER = 0.25  # of the ring between nucleus and outline
_CENTRE = 1 / 3  # of the radius of the cell
_WEDGE = np.pi / 2
_N_SPOTS = 4
_SPOT = 0.3  # um, standard deviation of a spot in each direction


def move_to_patterns(
    recipe: Simulation,
    tissue: Tissue,
    rng: np.random.Generator,
    cells: Cells,
    *,
    gene: np.ndarray,
    cell: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
) -> None:
    """Move transcripts of the genes of patterns; `x` and `y`, from the centre of their cell, are written to."""
    of_pattern = tissue.pattern[gene]
    moved = np.flatnonzero((of_pattern >= 0) & (rng.random(len(gene)) < recipe.pattern_fraction))
    for number, name in enumerate(PATTERNS):
        rows = moved[of_pattern[moved] == number]
        owner, radius, nucleus = cell[rows], cells.radius[cell[rows]], cells.nucleus_radius[cell[rows]]
        distance, angle = np.hypot(x[rows], y[rows]), np.arctan2(y[rows], x[rows])
        if name == "polarised":
            direction = _drawn_for_pairs(rng, owner, gene[rows], 1)[:, 0]
            angle = 2 * np.pi * direction + rng.uniform(-_WEDGE / 2, _WEDGE / 2, len(rows))
        elif name == "punctate":
            distance, angle = _in_spots(rng, owner, gene[rows], radius)
        else:
            inner, outer = {
                "nuclear": (np.zeros_like(nucleus), nucleus),
                "perinuclear": (nucleus, nucleus + _QUARTER * (radius - nucleus)),
                "peripheral": (radius - _QUARTER * (radius - nucleus), radius),
                "central": (np.zeros_like(radius), _CENTRE * radius),
            }[name]
            distance = np.sqrt(rng.uniform(inner**2, outer**2))
        x[rows], y[rows] = distance * np.cos(angle), distance * np.sin(angle)


def _drawn_for_pairs(rng: np.random.Generator, cell: np.ndarray, gene: np.ndarray, n: int) -> np.ndarray:
    """Return `n` uniform numbers for each row, the same for all rows of a gene and cell."""
    _, pair = np.unique(np.column_stack([cell, gene]), axis=0, return_inverse=True)
    pair = pair.ravel()
    return rng.random((int(pair.max(initial=-1)) + 1, n))[pair]


def _in_spots(
    rng: np.random.Generator, cell: np.ndarray, gene: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances from the centre and angles of transcripts in spots of their gene and cell."""
    drawn = _drawn_for_pairs(rng, cell, gene, 2 * _N_SPOTS)
    rows, spot = np.arange(len(cell)), rng.integers(_N_SPOTS, size=len(cell))
    distance, angle = radius * np.sqrt(drawn[rows, spot]), 2 * np.pi * drawn[rows, _N_SPOTS + spot]
    noise_x, noise_y = rng.normal(0.0, _SPOT, (2, len(cell)))
    x, y = distance * np.cos(angle) + noise_x, distance * np.sin(angle) + noise_y
    # What lies outside is mirrored at the outline.
    away = np.hypot(x, y)
    return np.where(away > radius, np.maximum(2 * radius - away, 0.0), away), np.arctan2(y, x)
