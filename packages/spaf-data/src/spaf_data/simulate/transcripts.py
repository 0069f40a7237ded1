"""The transcripts of simulated cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from spaf_data.readers.xenium import encode_cell_id
from spaf_data.simulate.patterns import move_to_patterns

if TYPE_CHECKING:
    from spaf_data.simulate.recipe import Simulation
    from spaf_data.simulate.tissue import Cells, Tissue

_CONTROLS = [f"NegControlProbe_{i:05d}" for i in range(8)] + [f"BLANK_{i:04d}" for i in range(4)]
_THICKNESS = 10.0  # um of tissue above z = 10


def make_transcripts(recipe: Simulation, tissue: Tissue, rng: np.random.Generator, cells: Cells) -> pa.Table:
    """Return the transcripts of a chunk of cells, controls, noise and unassigned ones among them, in random order."""
    n_cells = len(cells.number)
    depth = rng.poisson(recipe.depth * rng.lognormal(0.0, recipe.depth_sigma, n_cells))
    gene = np.concatenate(
        [
            rng.choice(len(tissue.genes), size=n, p=tissue.profiles[domain, kind])
            for n, domain, kind in zip(depth, cells.domain, cells.kind, strict=True)
        ]
    )
    cell = np.repeat(np.arange(n_cells), depth)
    n = len(gene)
    nuclear = rng.random(n) < tissue.nuclear[gene]
    # Uniform over the disc of the nucleus, or over the ring around it.
    inner = np.where(nuclear, 0.0, cells.nucleus_radius[cell])
    outer = np.where(nuclear, cells.nucleus_radius[cell], cells.radius[cell])
    distance = np.sqrt(rng.uniform(inner**2, outer**2))
    angle = rng.uniform(0.0, 2 * np.pi, n)
    x, y = distance * np.cos(angle), distance * np.sin(angle)
    z = rng.uniform(0.0, _THICKNESS, n)

    in_spot = np.flatnonzero((tissue.spot[gene] >= 0) & (rng.random(n) < recipe.spot_fraction))
    owner = cell[in_spot]
    place = _spot_places(rng, n_cells, recipe.n_colocalized_pairs)[:, owner, tissue.spot[gene[in_spot]]]
    place *= np.stack([cells.radius[owner], cells.radius[owner], np.full(len(owner), _THICKNESS)])
    place += rng.normal(0.0, recipe.spot_radius, place.shape)
    x[in_spot], y[in_spot], z[in_spot] = _folded(place, cells.radius[owner])
    if recipe.n_pattern_genes:
        move_to_patterns(recipe, tissue, rng, cells, gene=gene, cell=cell, x=x, y=y)
    nuclear = np.hypot(x, y) < cells.nucleus_radius[cell]

    feature = gene.copy()
    is_control = rng.random(n) < recipe.control_fraction
    feature[is_control] = len(tissue.genes) + rng.integers(len(_CONTROLS), size=int(is_control.sum()))
    stray = rng.random(n) < recipe.unassigned_fraction
    x, y = x + cells.x[cell], y + cells.y[cell]
    x[stray] = rng.uniform(0.0, (tissue.n_columns + 1) * recipe.spacing, int(stray.sum()))
    y[stray] = rng.uniform(cells.y.min(), cells.y.max(), int(stray.sum()))
    low = rng.random(n) < recipe.low_quality_fraction
    qv = np.where(low, rng.uniform(0.0, 20.0, n), np.minimum(40.0, rng.uniform(20.0, 60.0, n)))

    ids = pa.array([encode_cell_id(int(number) + 1) for number in cells.number] + ["UNASSIGNED"])
    order = rng.permutation(n)
    owner = np.where(stray, n_cells, cell)[order].astype(np.int32)
    names = pa.array(tissue.genes + _CONTROLS)
    return pa.table(
        {
            # Unique over the slide: no cell has 2^32 transcripts.
            "transcript_id": pa.array(
                (cells.number[cell].astype(np.uint64) << np.uint64(32) | np.arange(n, dtype=np.uint64))[order]
            ),
            "cell_id": pa.DictionaryArray.from_arrays(owner, ids).cast(pa.string()),
            "overlaps_nucleus": pa.array((nuclear & ~stray)[order].astype(np.uint8)),
            "feature_name": pa.DictionaryArray.from_arrays(feature[order].astype(np.int32), names).cast(pa.string()),
            "x_location": pa.array(x[order].astype(np.float32)),
            "y_location": pa.array(y[order].astype(np.float32)),
            "z_location": pa.array((z + 10.0)[order].astype(np.float32)),
            "qv": pa.array(qv[order].astype(np.float32)),
        }
    )


def _spot_places(rng: np.random.Generator, n_cells: int, n_spots: int) -> np.ndarray:
    """Return the centres of the spots of each cell, shape (3, n_cells, n_spots), in a disc of radius 1 and height 1.

    Each is uniform over the cell, as the other transcripts nearly are, and knows of no other: a spot that kept to the
    middle of the cell would be close to every other one that does, and their genes would truly co-localise.
    """
    angle, area, height = rng.random((3, n_cells, n_spots))
    distance = np.sqrt(area)
    return np.stack([distance * np.cos(2 * np.pi * angle), distance * np.sin(2 * np.pi * angle), height])


def _folded(place: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return places, shape (3, n), with those that lie outside their cell mirrored at its surface."""
    distance = np.hypot(place[0], place[1])
    inside = np.where(distance > radius, np.maximum(2 * radius - distance, 0.0), distance)
    shrunk = np.divide(inside, distance, out=np.ones_like(distance), where=distance > 0)
    height = np.abs(place[2])
    return np.stack([place[0] * shrunk, place[1] * shrunk, np.minimum(height, 2 * _THICKNESS - height)])
