"""Transcripts of a slide, sorted by cell, and the account of what a reader dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from spaf_data._memory import TRANSCRIPTS_AT_A_TIME, release


@dataclass(frozen=True, kw_only=True)
class Account:
    """Where every transcript of a run went; ``read`` is the sum of the others.

    A transcript is counted once, under the first of these that holds: control, low quality, unassigned, unlisted, kept.
    """

    read: int  # rows of the file
    controls: int  # control probes and codewords
    low_quality: int  # quality value below the threshold
    unassigned: int  # in no cell
    kept: int
    unlisted: int = 0  # in cells that the run's table of cells lacks, where these are dropped

    def __post_init__(self) -> None:
        assert self.read == self.controls + self.low_quality + self.unassigned + self.unlisted + self.kept, self

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name; that of unlisted transcripts only where there are some."""
        counts = asdict(self)
        if not self.unlisted:
            del counts["unlisted"]
        return counts


def cell_ranges(offsets: np.ndarray, at_a_time: int = TRANSCRIPTS_AT_A_TIME) -> Iterator[slice]:
    """Cut cells into runs of about so many transcripts, or of a single cell that has more."""
    start, n_cells = 0, len(offsets) - 1
    while start < n_cells:
        stop = int(np.searchsorted(offsets, offsets[start] + at_a_time, side="right")) - 1
        yield slice(start, max(stop, start + 1))
        start = max(stop, start + 1)


@dataclass(frozen=True, kw_only=True)
class Transcripts:
    """The kept transcripts of one slide, sorted by cell, so that a cell is a slice.

    Cells are in the order of ``cells``; inside a cell transcripts are sorted by gene, x, y and z, so that equal
    input gives equal arrays whatever the order of its rows. Arrays may be memory-mapped files (`read_transcripts`
    decides by size) and must not be written to.

    Parameters
    ----------
    x, y, z
        Position in um, float32, shape (n_transcripts,). ``z`` is 0 where the run has none.
    gene
        Position in `genes`, int32, shape (n_transcripts,).
    qv
        Phred-scaled quality, float32, shape (n_transcripts,); NaN where the run has none.
    in_nucleus
        Whether the transcript lies in the nucleus, bool, shape (n_transcripts,).
    offsets
        Cell ``i`` is the slice ``offsets[i]:offsets[i + 1]``; int64, shape (n_cells + 1,).
    genes
        Names of the panel's genes, without controls, sorted and unique.
    cells
        Ids of the cells with at least one kept transcript, as strings, sorted and unique.
    account
        What was read, dropped and kept.
    gene_ids
        Ensembl ids of `genes`, when known ("" where one gene has none).
    centroids
        Centroids of the segmentation in um, shape (n_cells, 2), when the run has them.
    areas
        Cell areas of the segmentation in um2, shape (n_cells,), when the run has them; NaN for a cell without one.
    nucleus_known
        False where the run does not say which transcripts are nuclear; `in_nucleus` is then all False.
    metadata
        What the run says of itself (``tissue``, ``species``, ``assay``, ``panel``, ``slide``), as far as it does.
    parameters
        How the transcripts were read: platform, file, threshold.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    gene: np.ndarray
    qv: np.ndarray
    in_nucleus: np.ndarray
    offsets: np.ndarray
    genes: list[str]
    cells: np.ndarray
    account: Account
    gene_ids: list[str] | None = None
    centroids: np.ndarray | None = None
    areas: np.ndarray | None = None
    nucleus_known: bool = True
    metadata: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = self.n_transcripts
        assert len(self.offsets) == len(self.cells) + 1, "offsets and cells disagree"
        assert int(self.offsets[0]) == 0, "offsets must begin at 0"
        assert int(self.offsets[-1]) == n, "offsets must end at the number of transcripts"
        columns = (self.x, self.y, self.z, self.gene, self.qv, self.in_nucleus)
        assert all(column.shape == (n,) for column in columns), "columns differ in length"

    @property
    def n_transcripts(self) -> int:
        """Number of kept transcripts."""
        return len(self.x)

    @property
    def n_cells(self) -> int:
        """Number of cells with at least one kept transcript."""
        return len(self.cells)

    @property
    def n_genes(self) -> int:
        """Number of genes of the panel."""
        return len(self.genes)

    @cached_property
    def cell(self) -> np.ndarray:
        """Position in `cells` of every transcript, int32; made from `offsets` at the first call."""
        return np.repeat(np.arange(self.n_cells, dtype=np.int32), np.diff(self.offsets))

    def of_cells(self, cells: np.ndarray) -> Transcripts:
        """Return the transcripts of some cells, by their places in `cells`; the account stays that of all.

        Examples
        --------
        >>> import numpy as np
        >>> transcripts = Transcripts.from_arrays(
        ...     x=np.arange(3.0), y=np.zeros(3), gene=np.array([1, 0, 0]), cell=np.array([1, 0, 1]),
        ...     genes=["ACTB", "KRT5"], cells=["a", "b"],
        ... )
        >>> transcripts.of_cells(np.array([1])).x.tolist()
        [2.0, 0.0]
        """
        size = np.diff(self.offsets)[cells]
        offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][cells] - offsets[:-1], size)
        columns = {name: getattr(self, name)[rows] for name in ("x", "y", "z", "gene", "qv", "in_nucleus")}
        return replace(
            self,
            **columns,
            offsets=offsets,
            cells=self.cells[cells],
            centroids=None if self.centroids is None else self.centroids[cells],
            areas=None if self.areas is None else self.areas[cells],
        )

    def release(self) -> None:
        """Give back the memory of columns that lie in mapped files; they are read again where they are used."""
        release(self.x, self.y, self.z, self.gene, self.qv, self.in_nucleus)

    @classmethod
    def from_arrays(
        cls,
        *,
        x: np.ndarray,
        y: np.ndarray,
        gene: np.ndarray,
        cell: np.ndarray,
        genes: list[str],
        cells: np.ndarray | list[str],
        z: np.ndarray | None = None,
        qv: np.ndarray | None = None,
        in_nucleus: np.ndarray | None = None,
    ) -> Transcripts:
        """Sort the columns of transcripts that are already clean and in memory.

        Parameters
        ----------
        x, y, z
            Position in um, shape (n_transcripts,); ``z`` is 0 when not given.
        gene, cell
            Positions in `genes` and in `cells`, shape (n_transcripts,), in any order of rows.
        genes, cells
            Names; used in the order given.
        qv, in_nucleus
            Quality and place, shape (n_transcripts,).

        Examples
        --------
        >>> import numpy as np
        >>> transcripts = Transcripts.from_arrays(
        ...     x=np.zeros(3), y=np.zeros(3), gene=np.array([1, 0, 0]), cell=np.array([1, 0, 1]),
        ...     genes=["ACTB", "KRT5"], cells=["a", "b"],
        ... )
        >>> transcripts.offsets.tolist(), transcripts.gene.tolist()
        ([0, 1, 3], [0, 0, 1])
        """
        n = len(x)
        z = np.zeros(n, np.float32) if z is None else z
        order = np.lexsort((z, y, x, gene, cell))
        offsets = np.zeros(len(cells) + 1, np.int64)
        np.cumsum(np.bincount(cell, minlength=len(cells)), out=offsets[1:])
        return cls(
            x=np.asarray(x, np.float32)[order],
            y=np.asarray(y, np.float32)[order],
            z=np.asarray(z, np.float32)[order],
            gene=np.asarray(gene, np.int32)[order],
            qv=np.full(n, np.nan, np.float32) if qv is None else np.asarray(qv, np.float32)[order],
            in_nucleus=np.zeros(n, bool) if in_nucleus is None else np.asarray(in_nucleus, bool)[order],
            offsets=offsets,
            genes=list(genes),
            cells=np.asarray(cells, dtype=object).astype(str),
            account=Account(read=n, controls=0, low_quality=0, unassigned=0, kept=n),
            nucleus_known=in_nucleus is not None,
        )
