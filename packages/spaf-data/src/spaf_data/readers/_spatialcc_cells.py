"""Counts and co-localised gene pairs of the rows of a SpatialCC data set, added up some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import sparse

from spaf_data.errors import InputError
from spaf_data.readers._nested import numbers_of, row_lists
from spaf_data.readers._shards import texts_of

_LARGEST_COUNT = np.iinfo(np.int32).max
_GENES = 1 << 31  # more than there are, so that two of them make one number


class Names:
    """Texts numbered in the order in which they are met."""

    def __init__(self) -> None:
        self.known: list[str] = []
        self._number: dict[str, int] = {}

    def codes(self, column: pa.Array) -> np.ndarray:
        """Return the number of each text, int32, -1 where null."""
        encoded = texts_of(column).dictionary_encode()
        numbers = np.empty(len(encoded.dictionary) + 1, np.int32)
        numbers[-1] = -1
        for place, text in enumerate(encoded.dictionary.to_pylist()):
            if text not in self._number:
                self._number[text] = len(self.known)
                self.known.append(text)
            numbers[place] = self._number[text]
        found: np.ndarray = numbers[encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)]
        return found

    def categorical(self, codes: np.ndarray) -> pd.Categorical:
        """Return texts of their numbers."""
        return pd.Categorical.from_codes(codes, categories=pd.Index(self.known, dtype=object))


class Cells:
    """Cells of rows as far as they were added.

    Parameters
    ----------
    columns
        Names of the columns by what they hold: ``expression``, ``gene`` and ``cell``; with gene pairs ``ranked`` and
        either ``matrix`` or ``rows``, ``cols``, ``data`` and ``shape``.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._genes = Names()
        self.names: list[str] = []
        self._n_entries: list[np.ndarray] = []
        self._entries: list[tuple[np.ndarray, np.ndarray]] = []  # genes and counts
        self._n_pairs: list[np.ndarray] = []
        self._pairs: list[np.ndarray] = []  # two genes in one number
        self._counted = np.zeros(0, bool)  # genes that have a number in some cell
        self._missing = np.zeros(0, bool)  # genes that are NaN in some cell
        self._n_listed = np.zeros(0, np.int64)  # cells that list a gene
        self._lists_zeros = False  # whether lists are panels, which name genes without counts too

    def add(self, batch: pa.RecordBatch, shard: Path) -> None:
        """Add the cells of some rows.

        Raises
        ------
        InputError
            If lists do not fit each other, a gene occurs twice in a cell, a value is no count, or is NaN for a gene
            that other cells have counted. The sentence names the shard and the cell.
        """
        ids = texts_of(batch.column(self._columns["cell"]))
        if ids.null_count:
            raise InputError(f"{shard} has {ids.null_count} rows without a value in column {self._columns['cell']!r}")
        rows = _Rows(batch, shard, self._columns, ids.to_pylist())
        gene_length, gene = rows.texts("gene")
        length, values = rows.numbers("expression")
        rows.refuse(
            length != gene_length,
            lambda cell: f"{length[cell]} values of Expression and {gene_length[cell]} names in Gene",
        )
        codes = self._genes.codes(gene)
        cell = np.repeat(np.arange(len(length)), length)
        rows.refuse(cell[codes < 0], lambda cell: "a gene without a name in Gene")
        panel = _Panel(cell, codes, length)
        rows.refuse(panel.repeated, lambda cell: "a gene twice in Gene")
        self._check_missing(rows, cell, codes, np.isnan(values))
        bad = ~(np.isnan(values) | ((values >= 0) & (values == np.floor(values)) & (values <= _LARGEST_COUNT)))
        if bad.any():
            entry = int(np.argmax(bad))
            raise InputError(
                f"{shard} has {values[entry]:g} of gene {self._genes.known[codes[entry]]!r} in Expression of cell "
                f"{rows.names[cell[entry]]!r}, which is no count (a whole number of at least 0): values that were "
                "normalised cannot be read, take the data set with counts"
            )
        listed = np.bincount(codes, minlength=len(self._genes.known))
        self._n_listed = np.pad(self._n_listed, (0, len(listed) - len(self._n_listed))) + listed
        self._lists_zeros |= bool((values == 0).any())
        found = np.flatnonzero(values > 0)
        self._n_entries.append(np.bincount(cell[found], minlength=len(length)))
        self._entries.append((codes[found], values[found].astype(np.int32)))
        if "ranked" in self._columns:
            self._add_pairs(rows, panel)
        self.names.extend(rows.names)

    def _check_missing(self, rows: _Rows, cell: np.ndarray, codes: np.ndarray, missing: np.ndarray) -> None:
        """Refuse a gene that is NaN, which stands for genes that a panel lacks, in some cells and counted in others."""
        new = len(self._genes.known) - len(self._counted)
        self._counted, self._missing = (np.pad(known, (0, new)) for known in (self._counted, self._missing))
        if not missing.any() and not self._missing.any():
            self._counted[codes] = True
            return
        self._counted[codes[~missing]] = True
        self._missing[codes[missing]] = True
        both = (self._counted & self._missing)[codes]
        if both.any():
            entry = int(np.argmax(both))
            raise InputError(
                f"{rows.shard} has {'NaN' if missing[entry] else 'a number'} for gene "
                f"{self._genes.known[codes[entry]]!r} in Expression of cell {rows.names[cell[entry]]!r}, where other "
                f"cells have {'a number' if missing[entry] else 'NaN'}: NaN stands for a gene that the panel of a "
                "sample lacks, so samples of several panels are read one by one (spaf-data build)"
            )

    def _add_pairs(self, rows: _Rows, panel: _Panel) -> None:
        length, ranked = rows.texts("ranked")
        codes = self._genes.codes(ranked)
        owner = np.repeat(np.arange(len(length)), length)
        rows.refuse(
            owner[~panel.has(owner, codes)],
            lambda cell: "a gene in Ranked_Gene_Names that Gene lacks",
        )
        cell, row, column = _matrix(rows, length) if "matrix" in self._columns else _coordinates(rows, length)
        first = np.concatenate([[0], np.cumsum(length)])[:-1]
        a, b = (codes[first[cell] + place].astype(np.int64) for place in (row, column))
        apart = a != b
        pair = (np.minimum(a, b) * _GENES + np.maximum(a, b))[apart]
        cell = cell[apart]
        order = np.lexsort((pair, cell))
        cell, pair = cell[order], pair[order]
        new = np.ones(len(pair), bool)
        new[1:] = (cell[1:] != cell[:-1]) | (pair[1:] != pair[:-1])
        self._n_pairs.append(np.bincount(cell[new], minlength=len(length)))
        self._pairs.append(pair[new])

    @property
    def n_missing(self) -> int:
        """Number of genes that are NaN in all cells."""
        return int(self._missing.sum())

    def check_panel(self, where: str) -> None:
        """Refuse genes that only some cells list, where lists name genes without counts too.

        Where no list holds a 0, lists are sparse, and a gene that a cell does not list was not seen there.

        Raises
        ------
        InputError
            If there are such genes; the sentence says how many, and names one.
        """
        partly = np.flatnonzero((self._n_listed < len(self.names)) & ~self._missing[: len(self._n_listed)])
        if self._lists_zeros and len(partly):
            gene = int(partly[0])
            raise InputError(
                f"{where} has {len(partly)} of {len(self._genes.known)} genes that only some cells list in Gene "
                f"({self._genes.known[gene]!r}: {self._n_listed[gene]} of {len(self.names)} cells): lists that hold 0 "
                "are the panel of a sample, so all cells must list the same genes, and samples of several panels are "
                "read one by one (spaf-data build)"
            )

    def counts(self) -> tuple[sparse.csr_matrix, list[str], np.ndarray]:
        """Return counts of the genes that were measured, int32 CSR, their names, and their place by number or -1."""
        measured = np.flatnonzero(~self._missing)
        place = np.full(len(self._genes.known), -1, np.int32)
        place[measured] = np.arange(len(measured))
        genes = np.concatenate([np.empty(0, np.int32), *(genes for genes, _ in self._entries)])
        counts = np.concatenate([np.empty(0, np.int32), *(counts for _, counts in self._entries)])
        self._entries.clear()
        matrix = sparse.csr_matrix(
            (counts, place[genes], _pointers(self._n_entries)), shape=(len(self.names), len(measured))
        )
        matrix.sort_indices()
        return matrix, [self._genes.known[gene] for gene in measured], place

    def gene_pairs(self, place: np.ndarray) -> tuple[np.ndarray, sparse.csr_matrix]:
        """Return gene pairs as places of genes, a < b and sorted, and which cell has which, int8 CSR."""
        found = np.concatenate([np.empty(0, np.int64), *self._pairs])
        self._pairs.clear()
        seen, column = np.unique(found, return_inverse=True)
        genes = np.sort(place[np.stack(np.divmod(seen, _GENES), axis=1)].astype(np.int64), axis=1)
        order = np.lexsort((genes[:, 1], genes[:, 0]))
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order))
        matrix = sparse.csr_matrix(
            (np.ones(len(found), np.int8), rank[column.reshape(-1)], _pointers(self._n_pairs)),
            shape=(len(self.names), len(seen)),
        )
        matrix.sort_indices()
        return genes[order], matrix


def _pointers(lengths: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.concatenate([np.empty(0, np.int64), *lengths]))])


class _Panel:
    """Which genes each of some cells names: most name the same ones, which are then looked at once."""

    def __init__(self, cell: np.ndarray, codes: np.ndarray, length: np.ndarray) -> None:
        n = int(length[0]) if len(length) else 0
        self._shared = np.empty(0, bool)
        self.repeated = np.empty(0, np.int64)  # cells that name a gene twice
        if n and (length == n).all() and (codes.reshape(-1, n) == codes[:n]).all():
            times = np.bincount(codes[:n])
            self._shared = times > 0
            self.repeated = np.zeros(int((times > 1).any()), np.int64)
            return
        self._keys = np.sort(cell * _GENES + codes)
        self.repeated = self._keys[1:][self._keys[1:] == self._keys[:-1]] // _GENES

    def has(self, cell: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Whether each cell names a gene."""
        if len(self._shared):
            known = np.pad(self._shared, (0, max(0, int(codes.max(initial=-1)) + 1 - len(self._shared))))
            named: np.ndarray = (codes >= 0) & known[codes]
            return named
        if not len(self._keys):
            return np.zeros(len(codes), bool)
        keys = cell * _GENES + codes
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found: np.ndarray = (codes >= 0) & (self._keys[place] == keys)
        return found


class _Rows:
    """Columns of some rows, and what is said of them."""

    def __init__(self, batch: pa.RecordBatch, shard: Path, columns: Mapping[str, str], names: list[str]) -> None:
        self.shard = shard
        self.names = names
        self._batch = batch
        self._columns = columns

    def texts(self, what: str) -> tuple[np.ndarray, pa.Array]:
        """Return lengths and values of lists of text."""
        (length,), values = self._lists(what, 1)
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type) or not len(values)):
            raise self._holds(what, str(values.type), "lists of names")
        return length, values.cast(pa.string())

    def numbers(self, what: str, depth: int = 1) -> tuple[np.ndarray, ...]:
        """Return lengths and values of lists of numbers."""
        lengths, values = self._lists(what, depth)
        try:
            return (*lengths, numbers_of(values))
        except TypeError as error:
            raise self._holds(what, str(error), "numbers") from error
        except InputError as error:
            raise InputError(f"{self.shard}, column {self._columns[what]!r}: {error}") from error

    def _lists(self, what: str, depth: int) -> tuple[list[np.ndarray], pa.Array]:
        try:
            return row_lists(self._batch.column(self._columns[what]), depth)
        except TypeError as error:
            raise self._holds(what, str(error), "lists" if depth == 1 else "matrices as lists of lists") from error

    def _holds(self, what: str, found: str, wanted: str) -> InputError:
        return InputError(f"{self.shard} holds {found} in column {self._columns[what]!r}, where {wanted} are wanted")

    def refuse(self, bad: np.ndarray, what: Callable[[int], str]) -> None:
        """Raise an `InputError` of the first bad cell: of flags by cell, or of numbers of cells."""
        cells = np.flatnonzero(bad) if bad.dtype == bool else bad
        if len(cells):
            cell = int(cells[0])
            raise InputError(f"{self.shard} has {what(cell)} for cell {self.names[cell]!r}")


def _matrix(rows: _Rows, length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cell, row and column of the entries of whole matrices that are not 0."""
    n_rows, n_columns, values = rows.numbers("matrix", 2)
    owner = np.repeat(np.arange(len(n_rows)), n_rows)

    def shape(cell: int) -> str:
        wide = n_columns[owner == cell]
        columns = str(wide[0]) if len(set(wide.tolist())) == 1 else "columns of several lengths" if len(wide) else "0"
        return f"a Gene_Gene_Matrix of {n_rows[cell]} x {columns} and {length[cell]} genes in Ranked_Gene_Names"

    rows.refuse(n_rows != length, shape)
    rows.refuse(owner[n_columns != length[owner]], shape)
    first = np.concatenate([[0], np.cumsum(length**2)])
    entries = np.flatnonzero(values)
    cell = np.searchsorted(first, entries, side="right") - 1
    rows.refuse(cell[~np.isfinite(values[entries])], lambda cell: "a Gene_Gene_Matrix that is not finite")
    row, column = np.divmod(entries - first[cell], np.maximum(length[cell], 1))
    return cell, row, column


def _coordinates(rows: _Rows, length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cell, row and column of the entries of matrices that are kept as coordinates."""
    (n_row, row), (n_column, column), (n_data, data), (n_shape, shape) = (
        rows.numbers(what) for what in ("rows", "cols", "data", "shape")
    )
    rows.refuse(
        (n_row != n_column) | (n_row != n_data),
        lambda cell: f"{n_row[cell]} Rows, {n_column[cell]} Cols and {n_data[cell]} Data",
    )
    rows.refuse(n_shape != 2, lambda cell: f"{n_shape[cell]} numbers in Shape")
    sides = shape.reshape(-1, 2)
    rows.refuse(
        (sides != length[:, None]).any(axis=1),
        lambda cell: (
            f"a gene matrix of {sides[cell, 0]:g} x {sides[cell, 1]:g} (Shape) and {length[cell]} genes in "
            "Ranked_Gene_Names"
        ),
    )
    cell = np.repeat(np.arange(len(n_row)), n_row)
    inside = [(place >= 0) & (place < length[cell]) & (place == np.floor(place)) for place in (row, column)]
    rows.refuse(
        cell[~(inside[0] & inside[1])], lambda cell: f"Rows or Cols that are no places among its {length[cell]} genes"
    )
    rows.refuse(cell[~np.isfinite(data)], lambda cell: "Data that are not finite")
    kept = data != 0
    return cell[kept], row[kept].astype(np.int64), column[kept].astype(np.int64)
