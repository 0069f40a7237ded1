"""The transcripts of the cells of a table, as the co-localisation kernels read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spaf_data.errors import InputError

if TYPE_CHECKING:
    from spaf_data.transcripts import Transcripts


@dataclass(frozen=True, kw_only=True)
class CellTranscripts:
    """Columns of transcripts and, for each cell of a table, its slice ``starts[i]:stops[i]`` of them."""

    x: np.ndarray  # float32 (n_transcripts), um
    y: np.ndarray
    z: np.ndarray  # 0 everywhere in two dimensions
    gene: np.ndarray  # int32 (n_transcripts)
    starts: np.ndarray  # int64 (n_cells)
    stops: np.ndarray  # int64 (n_cells)
    compartment: np.ndarray  # uint8 (n_transcripts): 1 in the nucleus, 0 outside or where that is not known
    n_genes: int
    n_known: int  # the first genes, those of the table; only their pairs are reported
    done: Callable[[slice], None] | None = None  # told the cells that a method which goes through all has dealt with

    @property
    def n_transcripts(self) -> np.ndarray:
        """Transcripts of each cell, shape (n_cells,)."""
        n: np.ndarray = self.stops - self.starts
        return n

    def rows(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the transcripts of some cells, cell after cell, and where among them each cell begins.

        The second has one entry more than there are cells: where the last ends.
        """
        n = self.n_transcripts[cells]
        first = np.concatenate(([0], np.cumsum(n)))
        return np.repeat(self.starts[cells] - first[:-1], n) + np.arange(first[-1]), first


def choose_dimensions(transcripts: Transcripts, dimensions: int | None) -> int:
    """Return 2 or 3: as asked, else 3 where z varies and is finite everywhere.

    Raises
    ------
    InputError
        If `dimensions` is another number, or 3 is asked for and z is not finite.
    """
    if dimensions not in (None, 2, 3):
        raise InputError(f"dimensions is {dimensions}; the choices are 2, 3 and None (3 where z varies)")
    if dimensions == 2 or transcripts.n_transcripts == 0:
        return 2
    lowest, highest = float(transcripts.z.min()), float(transcripts.z.max())  # NaN if there is any
    finite = bool(np.isfinite(lowest) and np.isfinite(highest))
    if dimensions == 3 and not finite:
        raise InputError("transcripts have z coordinates that are NaN or infinite; use dimensions=2")
    transcripts.release()
    return 3 if dimensions == 3 or (finite and lowest < highest) else 2


def select_cells(
    transcripts: Transcripts, *, cells: np.ndarray, genes: pd.Index, dimensions: int | None = None
) -> CellTranscripts:
    """Match the cells and genes of a table to transcripts, by name.

    Parameters
    ----------
    transcripts
        All transcripts of the slide.
    cells
        Ids of the table's cells.
    genes
        Names of the table's genes. Genes of the transcripts that are not among them get codes from ``len(genes)``
        on: their transcripts stay neighbours of the others.
    dimensions
        2 or 3; 3 where z varies if None.

    Raises
    ------
    InputError
        If a cell is not among the transcripts' cells, no gene is shared, or x or y is not finite.
    """
    rows = pd.Index(transcripts.cells).get_indexer(pd.Index(np.asarray(cells, dtype=object).astype(str)))
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise InputError(
            f"{len(missing)} of {len(cells)} cells have no transcripts, the first is {str(cells[missing[0]])!r}; "
            f"the transcripts' first cell is {str(transcripts.cells[0]) if transcripts.n_cells else None!r}"
        )
    code = genes.get_indexer(pd.Index(transcripts.genes)).astype(np.int32)
    absent = code < 0
    if absent.all():
        raise InputError(
            f"the table and the transcripts share no gene: the table has {', '.join(map(str, genes[:3]))}, "
            f"the transcripts have {', '.join(transcripts.genes[:3])}"
        )
    code[absent] = len(genes) + np.arange(absent.sum())
    for name in ("x", "y"):
        extremes = getattr(transcripts, name)
        if len(extremes) and not np.isfinite([extremes.min(), extremes.max()]).all():
            raise InputError(f"transcripts have {name} coordinates that are NaN or infinite")
        transcripts.release()
    same_genes = len(absent) == len(genes) and bool((code == np.arange(len(genes))).all())
    flat = choose_dimensions(transcripts, dimensions) == 2
    return CellTranscripts(
        x=transcripts.x,
        y=transcripts.y,
        # Of zeros that are only read the system keeps one page.
        z=np.zeros(transcripts.n_transcripts, np.float32) if flat else transcripts.z,
        gene=transcripts.gene if same_genes else code[transcripts.gene],
        starts=transcripts.offsets[rows],
        stops=transcripts.offsets[rows + 1],
        compartment=transcripts.in_nucleus.view(np.uint8),
        n_genes=len(genes) + int(absent.sum()),
        n_known=len(genes),
    )
