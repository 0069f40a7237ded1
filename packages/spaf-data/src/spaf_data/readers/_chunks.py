"""From the rows of a table of transcripts, whichever its columns are called, to the chunks of the counting sort."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spaf_data.errors import InputError
from spaf_data.readers._cell_names import cell_name, is_no_cell
from spaf_data.readers._controls import is_control_name
from spaf_data.readers._sort import Chunk
from spaf_data.readers._table import ROWS_PER_BATCH, Progress, column_names, require_columns, stream_columns

TEXT = pa.dictionary(pa.int32(), pa.string())

# Cell codes of rows from their x, y and z as the file has them, and the names that the codes stand for.
Assign = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Rows(ABC):
    """A table of transcripts that can be streamed more than once."""

    where: str | Path  # for messages
    columns: list[str]

    @abstractmethod
    def stream(self, types: dict[str, pa.DataType], progress: Progress | None) -> Iterator[pa.RecordBatch]:
        """Yield the named columns in batches; the types are those wanted where the table is text."""


class FileRows(Rows):
    """A parquet, csv or csv.gz file."""

    def __init__(self, file: Path, batch_rows: int = ROWS_PER_BATCH) -> None:
        self.where = file
        self.columns = column_names(file)
        self._file = file
        self._batch_rows = batch_rows

    def stream(self, types: dict[str, pa.DataType], progress: Progress | None) -> Iterator[pa.RecordBatch]:
        """Yield the named columns in batches."""
        return stream_columns(self._file, types, batch_rows=self._batch_rows, progress=progress)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which columns hold what; None where the table has none."""

    gene: str
    x: str
    y: str
    z: str | None = None
    cell: str | None = None
    field_of_view: str | None = None  # where cell ids are unique in a field of view only
    qv: str | None = None
    nucleus: str | None = None
    is_gene: str | None = None
    category: str | None = None  # kind of feature: a gene where it ends so
    nuclear_text: frozenset[str] | None = None  # values of `nucleus` that mean nuclear; None: it is true or false
    no_cell: frozenset[str] = frozenset()  # what stands for no cell beside the usual words
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)  # um a unit of x, y, z

    def types(self) -> dict[str, pa.DataType]:
        """Return the columns and the type of each."""
        number = pa.float32() if self.scale == (1.0, 1.0, 1.0) else pa.float64()
        wanted = {
            self.gene: TEXT,
            self.cell: TEXT,
            self.field_of_view: TEXT,
            self.x: number,
            self.y: number,
            self.z: number,
            self.qv: pa.float32(),
            # Text has 1, True and 1.0 for the same; `flags` reads them all.
            self.nucleus: TEXT,
            self.is_gene: TEXT,
            self.category: TEXT,
        }
        return {name: kind for name, kind in wanted.items() if name is not None}


@dataclass(kw_only=True)
class TableChunks:
    """The rows of a table as `Chunk`; called once per pass."""

    rows: Rows
    layout: Layout
    assign: Assign | None = None  # codes into `assigned_cells` by place, where there is no column of cells
    assigned_cells: list[str] = field(default_factory=list)
    progress: Progress | None = None

    def __post_init__(self) -> None:
        assert (self.layout.cell is None) is (self.assign is not None), "cells come from a column or from polygons"
        require_columns(self.rows.where, list(self.layout.types()), self.rows.columns)
        self._not_genes: set[str] = set()

    def is_control(self, feature: str) -> bool:
        """Whether a feature is a control, by its name or by a column that says so."""
        return feature in self._not_genes or is_control_name(feature)

    def __call__(self, with_positions: bool) -> Iterator[Chunk]:
        layout = self.layout
        types = layout.types()
        if not with_positions:
            unused: set[str | None] = {layout.nucleus}
            if self.assign is None:
                unused |= {layout.x, layout.y, layout.z}
            types = {name: kind for name, kind in types.items() if name not in unused}
        first_row = 0
        for batch in self.rows.stream(types, self._half(second=with_positions)):
            yield self._chunk(batch, with_positions, first_row)
            first_row += batch.num_rows

    def _half(self, *, second: bool) -> Progress | None:
        report = self.progress
        if report is None:
            return None
        return lambda fraction: report((fraction + second) / 2)

    def _chunk(self, batch: pa.RecordBatch, with_positions: bool, first_row: int) -> Chunk:
        layout = self.layout
        gene, gene_names = dictionary(batch.column(layout.gene))
        if (gene < 0).any():
            raise InputError(f"{self.rows.where} has a row without a {layout.gene}")
        self._learn_controls(batch, gene, gene_names)
        place = None
        if with_positions or self.assign is not None:
            x, y = self._numbers(batch, layout.x), self._numbers(batch, layout.y)
            place = (x, y, self._numbers(batch, layout.z) if layout.z else np.zeros_like(x))
        if self.assign is not None and place is not None:
            finite = np.isfinite(place).all(axis=0)
            if not finite.all():  # or it would count as in no cell
                raise InputError(
                    f"{self.rows.where} has a position that is not finite (NaN or infinite) in row "
                    f"{first_row + int(np.argmin(finite))}"
                )
        cell, cell_names = self._cells(batch, place)
        return Chunk(
            gene=gene,
            gene_names=gene_names,
            cell=cell,
            cell_names=cell_names,
            qv=self._numbers(batch, layout.qv).astype(np.float32, copy=False) if layout.qv else None,
            positions=self._in_um(place) if with_positions and place is not None else None,
            in_nucleus=self._nuclear(batch.column(layout.nucleus)) if with_positions and layout.nucleus else None,
        )

    def _numbers(self, batch: pa.RecordBatch, name: str) -> np.ndarray:
        """Return a column of numbers, NaN where null, as float32 if it is float32 and else as float64."""
        column = batch.column(name)
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise InputError(f"{self.rows.where} has a column {name!r} that does not hold numbers")
        return numbers(column)

    def _learn_controls(self, batch: pa.RecordBatch, gene: np.ndarray, gene_names: list[str]) -> None:
        if self.layout.is_gene is not None:
            is_gene = flags(batch.column(self.layout.is_gene), self.rows.where, self.layout.is_gene)
        elif self.layout.category is not None:
            category, names = dictionary(batch.column(self.layout.category))
            is_gene = np.array([*(name.endswith("gene") for name in names), True], bool)[category]
        else:
            return
        self._not_genes.update(gene_names[code] for code in np.unique(gene[~is_gene]))

    def _cells(
        self, batch: pa.RecordBatch, place: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    ) -> tuple[np.ndarray, list[str | None]]:
        layout = self.layout
        if self.assign is not None:
            assert place is not None, "assignment needs positions"
            return self.assign(*place), list(self.assigned_cells)
        assert layout.cell is not None, "cells come from a column or from polygons"
        cell, names = dictionary(batch.column(layout.cell), self.rows.where, layout.cell)
        ids: list[str | None] = [
            None if is_no_cell(name, layout.no_cell) else cell_name(name, where=self.rows.where, column=layout.cell)
            for name in names
        ]
        if layout.field_of_view is None:
            return cell, ids
        view, views = dictionary(batch.column(layout.field_of_view), self.rows.where, layout.field_of_view)
        if (view < 0).any():
            raise InputError(f"{self.rows.where} has a row without a {layout.field_of_view}")
        views = [cell_name(name, where=self.rows.where, column=layout.field_of_view) for name in views]
        # The pairs that occur, each with a code; a cell code of -1 is no cell whatever the field of view.
        pair = np.where(cell < 0, -1, view.astype(np.int64) * max(len(ids), 1) + cell)
        occurring, codes = np.unique(pair, return_inverse=True)
        joined: list[str | None] = []
        for code in occurring:
            cell_id = ids[code % len(ids)] if code >= 0 else None
            joined.append(None if cell_id is None else f"{views[code // len(ids)]}_{cell_id}")
        return codes.astype(np.int32), joined

    def _in_um(self, place: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, y, z = (
            (values if scale == 1.0 else values * scale).astype(np.float32, copy=False)
            for values, scale in zip(place, self.layout.scale, strict=True)
        )
        return x, y, z

    def _nuclear(self, column: pa.Array) -> np.ndarray:
        if self.layout.nuclear_text is None:
            return flags(column, self.rows.where, self.layout.nucleus)
        codes, names = dictionary(column)
        return np.take([*(name in self.layout.nuclear_text for name in names), False], codes)


def dictionary(column: pa.Array, where: object = "", name: str | None = "") -> tuple[np.ndarray, list[str]]:
    """Return codes (-1 where null) and names of a column of text, bytes or numbers.

    Raises
    ------
    InputError
        If numbers are no whole ones, or floats too large to have kept whole numbers apart.
    """
    if not pa.types.is_dictionary(column.type):
        if pa.types.is_floating(column.type):  # integers beside missing values, as pandas writes them
            values = column.to_numpy(zero_copy_only=False)
            digits = min(np.finfo(values.dtype).nmant, 52) + 1
            values = values.astype(np.float64)
            finite = values[np.isfinite(values)]
            if (np.abs(finite) >= 2.0**digits).any():
                raise InputError(
                    f"{where} has the column {name!r} as floats, with numbers above 2^{digits}, where a {column.type} "
                    "does not hold every whole number: different cells may have become one; write it anew as integers "
                    "or text"
                )
            if (finite != np.floor(finite)).any():
                odd = finite[finite != np.floor(finite)][0]
                raise InputError(f"{where} has {odd:g} in the column {name!r}, which holds names or whole numbers")
            whole = pc.if_else(pc.is_finite(column), column, None)
            column = whole.cast(pa.int64())
        column = column.dictionary_encode()
    codes = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False)
    names = column.dictionary.to_pylist()
    return codes, [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def numbers(column: pa.Array) -> np.ndarray:
    """Return a column of numbers, NaN where null, as float32 if it is that and else as float64."""
    kind = np.float32 if column.type == pa.float32() else np.float64
    return np.asarray(column.to_numpy(zero_copy_only=False), kind)


_TRUE, _FALSE = frozenset({"1", "1.0", "true", "t", "yes"}), frozenset({"0", "0.0", "false", "f", "no"})


def flags(column: pa.Array, where: object, name: str | None) -> np.ndarray:
    """Return a column of truth values, however they are written; False where null or without a value.

    Raises
    ------
    InputError
        If there is text that is neither true nor false.
    """
    if not (pa.types.is_dictionary(column.type) or pa.types.is_string(column.type)):
        return np.asarray(pc.fill_null(column.cast(pa.bool_()), False).to_numpy(zero_copy_only=False), bool)
    codes, words = dictionary(column)
    for word in words:
        if word.casefold() not in _TRUE | _FALSE and not is_no_cell(word):
            raise InputError(f"{where} has {word!r} in the column {name!r}, which holds true or false")
    return np.take([*(word.casefold() in _TRUE for word in words), False], codes)
