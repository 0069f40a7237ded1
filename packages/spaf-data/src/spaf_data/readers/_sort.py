"""External counting sort of transcripts by cell.

The table is read twice in chunks. The first pass learns the names of genes and cells and counts the kept
transcripts of each cell, which fixes the slice of every cell; the second pass puts each transcript into the slice
of its cell. Beside the result, memory holds one chunk and some bytes a cell. A large result lies in memory-mapped
temporary files that vanish with the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from spaf_data._batches import map_batches
from spaf_data._memory import mapped_array, release
from spaf_data.errors import InputError
from spaf_data.ordering import order_rows
from spaf_data.readers import _kernels
from spaf_data.transcripts import Account, cell_ranges

# Above this many bytes the sorted columns become files: a slide of 6 million transcripts fits below.
IN_MEMORY_BYTES = 1 << 27


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some rows of a run: codes into the names of this chunk, and columns of equal length."""

    gene: np.ndarray  # codes into gene_names
    gene_names: list[str]
    cell: np.ndarray  # codes into cell_names; -1 where there is none
    cell_names: list[str | None]  # None: what the instrument writes for no cell
    qv: np.ndarray | None  # float32; None where the run has none
    positions: tuple[np.ndarray, np.ndarray, np.ndarray] | None  # x, y, z in um, float32; None in the first pass
    in_nucleus: np.ndarray | None  # bool


ChunkSource = Callable[[bool], Iterator[Chunk]]


@dataclass(frozen=True, kw_only=True)
class SortedColumns:
    """The kept transcripts of a run, sorted by cell; see `spaf_data.Transcripts` for the fields."""

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


@dataclass
class _Names:
    """Codes of names in the order in which they were met."""

    codes: dict[str, int] = field(default_factory=dict)

    def lookup(self, names: list[str | None], *, learn: bool) -> np.ndarray:
        """Return the code of each name, -1 for None; unknown names are learnt, or are None if not `learn`."""
        codes = self.codes
        if learn:
            found = [-1 if name is None else codes.setdefault(name, len(codes)) for name in names]
        else:
            found = [-1 if name is None else codes.get(name, -1) for name in names]
        return np.array(found, np.int32)

    def rank(self, keep: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Return the kept names in order and the place of every code in it, -1 for names that are not kept."""
        kept = [name for name, code in self.codes.items() if keep[code]]
        # Cell ids of the first Xenium versions are numbers: 9 comes before 10.
        if all(name.isdecimal() for name in kept):
            kept.sort(key=lambda name: (int(name), name))
        else:
            kept.sort()
        rank = np.full(len(self.codes), -1, np.int32)
        for place, name in enumerate(kept):
            rank[self.codes[name]] = place
        return kept, rank


def sort_by_cell(
    chunks: ChunkSource,
    *,
    path: Path | str,
    is_control: Callable[[str], bool],
    min_qv: float,
    in_memory_bytes: int = IN_MEMORY_BYTES,
) -> SortedColumns:
    """Sort the kept transcripts of a run by cell and account for the others.

    Parameters
    ----------
    chunks
        Called twice, with whether positions are wanted; yields the rows of the run.
    path
        The file, for messages.
    is_control
        Whether a feature name is a control.
    min_qv
        Transcripts below are dropped; not applied where the run has no quality values.
    in_memory_bytes
        Results larger than this lie in temporary files.

    Raises
    ------
    InputError
        If no transcript is kept, a position is not finite, or the file changed between the passes.
    """
    genes, cells = _Names(), _Names()
    seen, control, per_cell, tally = _first_pass(chunks, genes, cells, is_control, min_qv)
    account = Account(
        read=int(tally.sum()),
        controls=int(tally[_kernels.CONTROL]),
        low_quality=int(tally[_kernels.LOW_QUALITY]),
        unassigned=int(tally[_kernels.UNASSIGNED]),
        kept=int(tally[_kernels.KEPT]),
    )
    if account.kept == 0:
        raise InputError(
            f"{path} has no transcript that is assigned to a cell and passes the filters: of {account.read} read, "
            f"{account.controls} are controls, {account.low_quality} are below quality {min_qv:g} and "
            f"{account.unassigned} are in no cell"
        )
    gene_names, gene_rank = genes.rank(seen & ~control)
    cell_names, cell_rank = cells.rank(per_cell > 0)
    offsets = np.zeros(len(cell_names) + 1, np.int64)
    offsets[1 + cell_rank[per_cell > 0]] = per_cell[per_cell > 0]
    np.cumsum(offsets, out=offsets)

    columns = _allocate(account.kept, in_memory_bytes)
    cursor = offsets[:-1].copy()
    first_row = 0
    for chunk in chunks(True):
        gene, cell, qv, threshold = _coded(chunk, genes, cells, min_qv, learn=False)
        if (gene < 0).any():
            break
        assert chunk.positions is not None, "the second pass needs positions"
        x, y, z = chunk.positions
        nucleus = np.zeros(len(gene), bool) if chunk.in_nucleus is None else chunk.in_nucleus
        outcome = _kernels.scatter(
            gene, cell, qv, x, y, z, nucleus, control, threshold, gene_rank, cell_rank, cursor, offsets[1:],
            columns["gene"], columns["qv"], columns["x"], columns["y"], columns["z"], columns["in_nucleus"],
        )  # fmt: skip
        if outcome >= 0:
            raise InputError(f"{path} has a position that is not finite (NaN or infinite) in row {first_row + outcome}")
        if outcome == _kernels.CHANGED:
            break
        first_row += len(gene)
        release(*columns.values())
    if not np.array_equal(cursor, offsets[1:]):
        raise InputError(f"{path} changed while it was being read")
    if chunk.qv is None:
        columns["qv"].fill(np.nan)
    for part in cell_ranges(offsets):
        _sort_within_cells(offsets[part.start : part.stop + 1], columns)
        release(*columns.values())
    return SortedColumns(
        offsets=offsets, genes=gene_names, cells=np.array(cell_names, dtype=str), account=account, **columns
    )


def _sort_within_cells(offsets: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    """Sort the transcripts of each cell by gene, x, y, z, nucleus and quality, in place."""

    def sort(cells: slice) -> None:
        bounds = offsets[cells.start : cells.stop + 1]
        rows = slice(bounds[0], bounds[-1])
        found = {name: column[rows] for name, column in columns.items()}
        gene = found["gene"].astype(np.int64)
        rank = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)) * (gene.max(initial=0) + 1) + gene
        order = order_rows(rank, *(found[name] for name in ("x", "y", "z", "in_nucleus", "qv")))
        for column in found.values():
            column[:] = column[order]

    for _ in map_batches(sort, np.diff(offsets), n_threads=None):
        pass


def _first_pass(
    chunks: ChunkSource, genes: _Names, cells: _Names, is_control: Callable[[str], bool], min_qv: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Learn the names; return for each gene whether it occurs and is a control, kept transcripts a cell, fates."""
    seen = np.zeros(0, bool)
    control = np.zeros(0, bool)
    per_cell = np.zeros(0, np.int64)
    tally = np.zeros(4, np.int64)
    for chunk in chunks(False):
        gene, cell, qv, threshold = _coded(chunk, genes, cells, min_qv, learn=True)
        new = list(genes.codes)[len(control) :]
        control = np.concatenate([control, np.array([is_control(name) for name in new], bool)])
        seen = np.concatenate([seen, np.zeros(len(new), bool)])
        seen[gene] = True
        if len(cells.codes) > len(per_cell):
            grown = np.zeros(len(cells.codes) * 5 // 4, np.int64)
            grown[: len(per_cell)] = per_cell
            per_cell = grown
        _kernels.count(gene, cell, qv, control, threshold, per_cell, tally)
    return seen, control, per_cell[: len(cells.codes)], tally


def _coded(
    chunk: Chunk, genes: _Names, cells: _Names, min_qv: float, *, learn: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return genes and cells of a chunk as codes of the run, qualities, and the threshold that applies to them."""
    gene = genes.lookup(list(chunk.gene_names), learn=learn)[chunk.gene]
    of_name = np.append(cells.lookup(chunk.cell_names, learn=learn), np.int32(-1))
    cell = of_name[chunk.cell]  # a code of -1 takes the last entry, which is no cell
    if chunk.qv is None:
        return gene, cell, np.zeros(len(gene), np.float32), -np.inf
    return gene, cell, chunk.qv, min_qv


def _allocate(n: int, in_memory_bytes: int) -> dict[str, np.ndarray]:
    kinds: dict[str, DTypeLike] = {
        "x": np.float32, "y": np.float32, "z": np.float32, "gene": np.int32, "qv": np.float32, "in_nucleus": np.bool_,
    }  # fmt: skip
    on_disk = n * sum(np.dtype(kind).itemsize for kind in kinds.values()) > in_memory_bytes
    make = mapped_array if on_disk else np.zeros
    return {name: make(n, kind) for name, kind in kinds.items()}
