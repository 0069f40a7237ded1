"""Simulate a Xenium-shaped bundle of any size, with planted truth.

The tissue is a jittered lattice of cells in domains. A domain has its own composition of cell types, a cell type its
own marker genes, and a domain its own niche genes, expressed by every type there. Inside a cell the transcripts of a
planted pair of genes lie around one small spot, so they are close to each other beyond what their numbers explain; each
spot has its own place, anywhere in the cell, so that genes of different pairs are no closer than chance has it. The
genes of an abundant pair are the most frequent of the panel but spread like any other, so they are often close to each
other and yet not co-localised. Background (controls, low quality, transcripts in no cell) comes at the shares that real
runs show. Genes of a pattern lie in a part of the cell (`spaf_data.simulate.patterns`).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from spaf_data import defaults
from spaf_data.errors import InputError
from spaf_data.folders import claim
from spaf_data.readers.xenium import encode_cell_id
from spaf_data.simulate.recipe import Simulation
from spaf_data.simulate.tissue import Cells, Tissue, make_tissue, place_cells
from spaf_data.simulate.transcripts import make_transcripts

# Cells made at a time. Part of the recipe: each chunk has its own random stream.
_CELLS_PER_CHUNK = 4096
_VERTICES = 25  # of an outline, as XOA writes them: the first comes again at the end


def simulate_bundle(
    path: str | Path,
    *,
    n_cells: int,
    n_genes: int,
    seed: int,
    n_types: int = Simulation.n_types,
    n_colocalized_pairs: int = Simulation.n_colocalized_pairs,
    n_abundant_pairs: int = Simulation.n_abundant_pairs,
    depth: float = defaults.SIMULATED_DEPTH,
    spot_fraction: float = Simulation.spot_fraction,
    n_pattern_genes: int = Simulation.n_pattern_genes,
    pattern_fraction: float = Simulation.pattern_fraction,
    progress: Callable[[float], None] | None = None,
) -> Path:
    """Write a simulated bundle; the same arguments give the same bytes.

    Memory does not grow with the number of cells. The bundle has the files and columns of XOA 2:
    ``transcripts.parquet``, ``cells.parquet``, ``experiment.xenium``, ``gene_panel.json``; beside them
    ``truth.json`` (``colocalized_pairs``, ``abundant_pairs``, ``markers`` of each type, ``niche_genes`` of each domain
    and the full recipe) and ``truth_cells.parquet`` (``cell_id``, ``cell_type``, ``domain``).

    Parameters
    ----------
    path
        Folder to make; must not exist, or be empty.
    n_cells, n_genes
        Size of the slide and of the panel.
    seed
        Of all that is random.
    n_types
        Number of cell types.
    n_colocalized_pairs
        Gene pairs that share a spot of the cell. No gene is in two pairs.
    n_abundant_pairs
        Gene pairs that are merely frequent.
    depth
        Median transcripts of a cell, unassigned and controls aside.
    spot_fraction
        Share of the transcripts of a planted gene that lie in the spot of its pair: how strong the planted truth is.
    n_pattern_genes
        Genes of each of the patterns nuclear, perinuclear, peripheral, central, polarised and punctate. With some,
        ``truth.json`` has ``patterns``, the bundle also has ``cell_boundaries.parquet`` and
        ``nucleus_boundaries.parquet``, and all other genes have the same share of transcripts in the nucleus.
    pattern_fraction
        Share of the transcripts of such a gene that lie where its pattern says.
    progress
        Called with the fraction of the cells written.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the folder is not empty or is being written, or the panel is too small for what is planted.

    Examples
    --------
    >>> import tempfile
    >>> bundle = simulate_bundle(tempfile.mkdtemp(), n_cells=50, n_genes=60, seed=0)
    >>> sorted(file.name for file in bundle.iterdir())  # doctest: +NORMALIZE_WHITESPACE
    ['cells.parquet', 'experiment.xenium', 'gene_panel.json', 'transcripts.parquet', 'truth.json',
     'truth_cells.parquet']
    """
    recipe = Simulation(
        n_cells=n_cells,
        n_genes=n_genes,
        seed=seed,
        n_types=n_types,
        n_colocalized_pairs=n_colocalized_pairs,
        n_abundant_pairs=n_abundant_pairs,
        depth=depth,
        spot_fraction=spot_fraction,
        n_pattern_genes=n_pattern_genes,
        pattern_fraction=pattern_fraction,
    )
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there already; give a new or empty folder")
    with claim(path, "simulate_bundle"):
        unfinished = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        try:
            _write(unfinished, recipe, progress)
            unfinished.chmod(0o755)
            os.replace(unfinished, path)  # what is there is empty
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return path


def _chunks(recipe: Simulation, tissue: Tissue) -> Iterator[dict[str, pa.Table]]:
    for start in range(0, recipe.n_cells, _CELLS_PER_CHUNK):
        rng = np.random.default_rng([recipe.seed, 2, start])
        number = np.arange(start, min(start + _CELLS_PER_CHUNK, recipe.n_cells))
        cells = place_cells(recipe, tissue, rng, number)
        tables = {
            "transcripts.parquet": make_transcripts(recipe, tissue, rng, cells),
            "cells.parquet": _cell_table(cells),
            "truth_cells.parquet": _truth_table(cells),
        }
        if recipe.n_pattern_genes:
            tables["cell_boundaries.parquet"] = _outlines(cells, cells.radius)
            tables["nucleus_boundaries.parquet"] = _outlines(cells, cells.nucleus_radius)
        yield tables


def _cell_table(cells: Cells) -> pa.Table:
    return pa.table(
        {
            "cell_id": [encode_cell_id(int(number) + 1) for number in cells.number],
            "x_centroid": cells.x,
            "y_centroid": cells.y,
            "cell_area": np.pi * cells.radius**2,
            "nucleus_area": np.pi * cells.nucleus_radius**2,
        }
    )


def _truth_table(cells: Cells) -> pa.Table:
    return pa.table(
        {
            "cell_id": [encode_cell_id(int(number) + 1) for number in cells.number],
            "cell_type": [f"type {kind}" for kind in cells.kind],
            "domain": [f"domain {domain}" for domain in cells.domain],
        }
    )


def _outlines(cells: Cells, radius: np.ndarray) -> pa.Table:
    """Return circles as closed polygons, a row for each vertex."""
    angle = np.linspace(0.0, 2 * np.pi, _VERTICES)
    ids = [encode_cell_id(int(number) + 1) for number in cells.number]
    owner = np.repeat(np.arange(len(ids), dtype=np.int32), _VERTICES)
    return pa.table(
        {
            "cell_id": pa.DictionaryArray.from_arrays(owner, pa.array(ids)).cast(pa.string()),
            "vertex_x": (cells.x[:, None] + radius[:, None] * np.cos(angle)).ravel().astype(np.float32),
            "vertex_y": (cells.y[:, None] + radius[:, None] * np.sin(angle)).ravel().astype(np.float32),
        }
    )


def _write(folder: Path, recipe: Simulation, progress: Callable[[float], None] | None) -> None:
    tissue = make_tissue(recipe)
    writers: dict[str, pa.parquet.ParquetWriter] = {}
    done = 0
    try:
        for tables in _chunks(recipe, tissue):
            for name, table in tables.items():
                if name not in writers:
                    writers[name] = pa.parquet.ParquetWriter(folder / name, table.schema)
                writers[name].write_table(table)
            done += tables["cells.parquet"].num_rows
            if progress is not None:
                progress(done / recipe.n_cells)
    finally:
        for writer in writers.values():
            writer.close()
    experiment = {
        "run_name": "simulation",
        "region_name": f"simulation_{recipe.seed}",
        "num_cells": recipe.n_cells,
        "panel_name": "Simulated panel",
        "panel_organism": "Simulated",
        "panel_tissue_type": "Simulated",
        "panel_num_targets_predesigned": recipe.n_genes,
    }
    targets = [
        {"type": {"data": {"id": f"SIMG{i:011d}", "name": gene}, "descriptor": "gene"}}
        for i, gene in enumerate(tissue.genes)
    ]
    for name, content in {
        "experiment.xenium": experiment,
        "gene_panel.json": {"payload": {"targets": targets}},
        "truth.json": {**tissue.truth, "recipe": recipe.as_dict()},
    }.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
