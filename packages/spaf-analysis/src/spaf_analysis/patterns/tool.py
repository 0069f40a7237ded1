"""Where in the cell each gene lies, of the cells of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import spaf_data
from spaf_analysis.errors import InputError
from spaf_analysis.genes import check_gene_names
from spaf_analysis.keys import PATTERNS
from spaf_analysis.tables import stored_result, table_of
from spaf_data import (
    ReadOptions,
    Transcripts,
    check_patterns,
    read_outlines,
    read_transcripts,
    subcellular_patterns,
)
from spaf_model import check_key

if TYPE_CHECKING:
    from spaf_data import SubcellularPatterns
    from spaf_model import Cells


def patterns(
    adata: Cells,
    bundle: str | Path | None = None,
    *,
    transcripts: Transcripts | None = None,
    patterns: Sequence[str] | None = None,
    radius: float = spaf_data.defaults.PUNCTA_RADIUS,
    min_cells: float = spaf_data.defaults.PATTERN_MIN_CELLS,
    cell_scores: bool = False,
    options: ReadOptions | None = None,
    platform: str = "auto",
    table_key: str | None = None,
    key_added: str = PATTERNS,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Find in which part of the cell each gene lies, in the cells of a table, into `uns[key_added]`.

    What is found, and against what, is said at `spaf_data.subcellular_patterns`.

    Parameters
    ----------
    adata
        Cells of one slide by the names that the run gives them, or a SpatialData, whose own points are read where no
        bundle is given. Of the transcripts only those of cells of the table are used. Written to `uns[key_added]`:
        `table` (`gene`, `pattern`, `n_cells`, `n_transcripts`, `effect`, `z`, `p`, `fdr`; most certain first),
        `missing` (patterns that were not looked for, and what the run lacks for them), `typical` (effects from which
        effects are counted), `n_cells`, `parameters`.
    bundle
        The run with the transcripts; outlines of cells and nuclei are read as far as it has them.
    transcripts
        Of this run, where they are read already.
    patterns
        Those to look for; None: all that the run allows.
    radius
        um within which two transcripts are in one punctum.
    min_cells
        Cells that must say something of a gene.
    cell_scores
        Also write the standard score of each gene of each cell to `layers["<key_added>_<pattern>"]`.
    options, platform
        As for `spaf_data.read_transcripts`.
    table_key
        Table of a SpatialData; may be None where it has only one.
    key_added
        Key of `uns` to write, and what layers begin with.
    progress
        Called with the fraction of the cells done.

    Raises
    ------
    InputError
        If there are no transcripts, none of their cells is in the table, scores are asked for where
        two genes have one name, or as for `subcellular_patterns`.
    """
    check_key(key_added)
    check_patterns(patterns or ())
    table = table_of(adata, table_key)
    if cell_scores:
        check_gene_names(table)
    source: Any = bundle
    if source is None:
        if isinstance(adata, ad.AnnData) and transcripts is None:
            raise InputError("an AnnData holds no transcripts: name the run that has them (bundle), or give them.")
        source = None if isinstance(adata, ad.AnnData) else adata
    if transcripts is None:
        transcripts = read_transcripts(source, platform=platform, options=options)
    rows, cells = cells_of_run(table, transcripts)
    used = transcripts.of_cells(cells)
    outlines = None if source is None else read_outlines(source, used, options=options)
    found = subcellular_patterns(
        used, outlines=outlines, patterns=patterns, radius=radius, min_cells=min_cells, cell_scores=cell_scores,
        progress=progress,
    )  # fmt: skip
    table.uns[key_added] = {
        "table": found.table,
        "missing": found.missing,
        "typical": found.typical,
        "n_cells": used.n_cells,
        "parameters": {"radius": radius, "min_cells": min_cells},
    }
    for name, scores in _layers(found, table, used, rows).items():
        table.layers[f"{key_added}_{name}"] = scores


def stored_patterns(adata: Cells, *, key: str = PATTERNS, table_key: str | None = None) -> dict[str, Any]:
    """Return what `patterns` wrote to `uns[key]`.

    Raises
    ------
    InputError
        If it is not there.
    """
    table = table_of(adata, table_key)
    stored = stored_result(table, key, "patterns inside cells", "tl.patterns writes them")
    return {**stored, "table": pd.DataFrame(stored["table"])}


def cells_of_run(table: ad.AnnData, transcripts: Transcripts) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the table that have transcripts, and where these cells are among those of the transcripts.

    Raises
    ------
    InputError
        If there are none, or two rows are one cell.
    """
    names = table.obs_names
    instance = table.uns.get("spatialdata_attrs", {}).get("instance_key")
    if instance in table.obs:
        names = pd.Index(table.obs[instance].astype(str))
    place = pd.Index(transcripts.cells).get_indexer(names)
    rows = np.flatnonzero(place >= 0)
    if len(rows) == 0:
        raise InputError(
            f"no cell of the table is one of {transcripts.parameters.get('file', 'the transcripts')}: its first is "
            f"{names[0] if len(names) else 'none'!r}, theirs {str(transcripts.cells[0])!r}."
        )
    if len(set(place[rows].tolist())) < len(rows):
        raise InputError("the table has several rows for a cell of the transcripts: give the cells of one slide.")
    order = np.argsort(place[rows], kind="stable")
    return rows[order], place[rows][order]


def _layers(
    found: SubcellularPatterns, table: ad.AnnData, used: Transcripts, rows: np.ndarray
) -> dict[str, sparse.csr_matrix]:
    """Return the scores of cells in the order of the rows and genes of the table."""
    if not found.scores:
        return {}
    column = table.var_names.get_indexer(pd.Index(used.genes))
    layers = {}
    for name, scores in found.scores.items():
        entries = scores.tocoo()
        there = column[entries.col] >= 0
        place = (rows[entries.row[there]], column[entries.col[there]])
        layers[name] = sparse.csr_matrix((entries.data[there], place), shape=table.shape)
    return layers
