"""Where the transcripts of each gene lie, in plain numbers: what a baseline is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from spaf_data.transcripts import Transcripts

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def location_summary(transcripts: Transcripts) -> pd.DataFrame:
    """Describe where the transcripts of each gene lie, over all cells.

    Parameters
    ----------
    transcripts
        Of one slide.

    Returns
    -------
    Genes in the order of the panel: ``n_transcripts``, ``nucleus_fraction`` (NaN where the run does not say) and the
    quantiles ``distance_10`` to ``distance_90`` of the distance from the centre of the cell's own transcripts, in
    units of the root of its mean square in that cell. NaN for a gene without transcripts.
    """
    cell, n = transcripts.cell, transcripts.n_cells
    of_cell = np.maximum(np.diff(transcripts.offsets), 1)

    def mean(values: np.ndarray) -> np.ndarray:
        of_all: np.ndarray = (np.bincount(cell, weights=values, minlength=n) / of_cell)[cell]
        return of_all

    x, y = np.asarray(transcripts.x, np.float64), np.asarray(transcripts.y, np.float64)
    squared = (x - mean(x)) ** 2 + (y - mean(y)) ** 2
    usual = mean(squared)
    distance = np.sqrt(np.divide(squared, usual, out=np.zeros_like(squared), where=usual > 0))
    frame = pd.DataFrame(
        {"gene": transcripts.gene, "distance": distance, "nuclear": np.asarray(transcripts.in_nucleus, np.float64)}
    )
    by_gene = frame.groupby("gene", sort=True)
    table = by_gene["distance"].quantile(np.array(QUANTILES)).unstack()
    table.columns = [f"distance_{round(100 * q)}" for q in QUANTILES]
    table.insert(0, "n_transcripts", by_gene.size())
    table.insert(1, "nucleus_fraction", by_gene["nuclear"].mean() if transcripts.nucleus_known else np.nan)
    table = table.reindex(range(transcripts.n_genes))
    table["n_transcripts"] = table["n_transcripts"].fillna(0).astype(np.int64)
    table.index = pd.Index(transcripts.genes, name="gene")
    return table
