"""Published SpatialCC data sets: shards of the ``datasets`` library with a row for each cell.

A row has the counts of a cell (``Expression``) of the genes that are named beside them (``Gene``), its id, its sample,
its centroid, what the sample is, and which of its genes are co-localised: a matrix of genes by genes in the order of
``Ranked_Gene_Names``, whole (``Gene_Gene_Matrix``) or as coordinates (``Rows``, ``Cols``, ``Data``, ``Shape``). Genes
that the panel of a sample lacks may be NaN. Labels and whatever else has one value a cell go to ``obs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from spaf_data import keys
from spaf_data.errors import InputError
from spaf_data.readers._context import OURS, context_of
from spaf_data.readers._counts import CellCounts, GenePairs
from spaf_data.readers._nested import numbers_of
from spaf_data.readers._platform import ReadsCounts
from spaf_data.readers._shards import check_shards, find_shards, shard_schema, stream_shard
from spaf_data.readers._spatialcc_cells import Cells, Names
from spaf_data.slides import check_slides_apart, without_slide

if TYPE_CHECKING:
    from spaf_data.options import ReadOptions

# How columns are spelt, the usual name first; capitals do not matter.
_SPELT = {
    "expression": ("Expression",),
    "gene": ("Gene", "Genes"),
    "cell": ("Cell_id", "Cell_ids"),
    "sample": ("Sample_Names", "Sample_Name"),
    "x": ("centroid_x", "x_centroid"),
    "y": ("centroid_y", "y_centroid"),
    "ranked": ("Ranked_Gene_Names",),
    "matrix": ("Gene_Gene_Matrix",),
    "rows": ("Rows", "Row"),
    "cols": ("Cols", "Col"),
    "data": ("Data",),
    "shape": ("Shape",),
    keys.TISSUE: ("Tissues", "Tissue"),
    keys.CONDITION: ("Conditions", "Condition"),
    keys.SPECIES: ("Species",),
    keys.ASSAY: ("Assay", "Assays"),
}
_MARKS = ("expression", "gene", "cell")
_REQUIRED = (*_MARKS, "x", "y")
_COORDINATES = ("rows", "cols", "data", "shape")
_PLACES = ("x", "y")
_INDEX = "__index_level_"  # columns that pandas leaves behind


class SpatialCC(ReadsCounts[Path]):
    """Data sets of cells with their genes, pairs of genes and centroids, many samples in one."""

    name = "spatialcc"
    options = ("pixel_size", "slide_key", "one_slide", "only_slide", "check_places")
    counts_wanted = "*.arrow or *.parquet with the columns Expression, Gene and Cell_id"
    knows_unit = False

    def has_counts(self, path: Path) -> bool:
        """Whether a shard, or some shard of a folder, has the columns of cells."""
        return any(_is_of_cells(shard) for shard in find_shards(path))

    def read_counts(self, path: Path, options: ReadOptions) -> CellCounts:
        """Read the cells of one sample, or of all; see `spaf_data.read_counts`."""
        shards = find_shards(path)
        check_shards(path, shards)
        columns, further = _columns(shards, options)
        only = None
        if options.only_slide is not None:
            only = (columns["sample"], options.only_slide[1])
        where = str(path) if only is None else f"sample {only[1]!r} of {path}"
        cells, table = Cells(columns), _Table(columns, further)
        for shard in shards:
            for batch in stream_shard(shard, table.columns, only=only):
                cells.add(batch, shard)
                table.add(batch, shard)
        cells.check_panel(where)
        counts, genes, place = cells.counts()
        obs = table.obs()
        of_cell = None if options.one_slide else _slides(obs, columns["sample"], where)
        centroids = table.centroids() * (options.pixel_size or 1.0)
        several = of_cell is not None and len(np.unique(of_cell)) > 1
        metadata, differing = context_of(obs, of_cell if several else None, where)
        if options.check_places and several and options.slide_key is None and np.isfinite(centroids).all():
            check_slides_apart(centroids, of_cell, obs, where=where)
        if of_cell is not None and not several and len(of_cell):
            metadata[keys.SLIDE] = str(of_cell[0])
        return CellCounts(
            where=where,
            counts=counts,
            cells=np.array(cells.names, dtype=str),
            genes=genes,
            centroids=centroids,
            obs={
                str(name): obs[name].array for name in obs if name not in OURS and (of_cell is None or name in further)
            },
            metadata=metadata,
            of_cell=differing,
            gene_pairs=_gene_pairs(cells, columns, place),
            parameters={
                "platform": self.name,
                "file": path.name,
                "n_shards": len(shards),
                "genes_not_measured": cells.n_missing,
                **({} if of_cell is None else {"slide_key": columns["sample"]}),
                **({} if options.pixel_size is None else {"pixel_size": options.pixel_size}),
            },
        )

    def read_obs(self, path: Path, options: ReadOptions) -> tuple[pd.DataFrame, str | None] | None:
        """Return a row for each sample: of many millions of cells no more is wanted."""
        shards = find_shards(path)
        check_shards(path, shards)
        sample = _columns(shards, options)[0]["sample"]
        names = Names()
        for shard in shards:
            for batch in stream_shard(shard, [sample]):
                if (names.codes(batch.column(0)) < 0).any():
                    raise InputError(f"{shard} has cells without a sample in column {sample!r}")
        found = pd.DataFrame({sample: names.known})
        _check_names(found[sample], sample, str(path))
        return found, sample


def _is_of_cells(shard: Path) -> bool:
    if not shard.is_file():
        return False
    try:
        names = {name.casefold() for name in shard_schema(shard).names}
    except (InputError, OSError):
        return False  # another shard may say it; reading this one says what is wrong
    return all(any(name.casefold() in names for name in _SPELT[what]) for what in _MARKS)


def _columns(shards: list[Path], options: ReadOptions) -> tuple[dict[str, str], dict[str, bool]]:
    """Return the columns by what they hold, and whether those of further values of cells are text.

    Raises
    ------
    InputError
        If a shard lacks one.
    """
    schema = shard_schema(shards[0])
    columns = _found(schema, shards[0], options)
    wanted = [*columns.values()]
    further = {
        name: not _is_number(kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
        if name not in wanted
        and not name.startswith(_INDEX)
        and name not in OURS
        and (_is_number(kind) or _is_text(kind))
    }
    for shard in shards[1:]:
        present = shard_schema(shard).names
        for name in (*wanted, *further):
            if name not in present:
                raise InputError(
                    f"{shard} has no column {name!r}, which {shards[0].name} has; it has: {', '.join(present)}"
                )
    return columns, further


def _found(schema: pa.Schema, shard: Path, options: ReadOptions) -> dict[str, str]:
    called = {name.casefold(): name for name in reversed(schema.names)}
    found = {
        what: next(called[name.casefold()] for name in names if name.casefold() in called)
        for what, names in _SPELT.items()
        if any(name.casefold() in called for name in names)
    }
    if options.only_slide is not None or options.slide_key is not None:
        key = options.only_slide[0] if options.only_slide is not None else str(options.slide_key)
        if key not in schema.names:
            raise InputError(
                f"{shard} has no column {key!r} (slide_key, --slide-key); it has: {', '.join(schema.names)}"
            )
        found["sample"] = key
    in_coordinates = [what for what in _COORDINATES if what in found]
    needed = [*_REQUIRED, *([] if options.one_slide else ["sample"])]
    if in_coordinates and "matrix" not in found:
        needed += [*_COORDINATES, "ranked"]
    elif "matrix" in found:
        needed.append("ranked")
    for what in needed:
        if what not in found:
            hint = "; if all cells are of one slide, say so with one_slide=True (--one-slide)" * (what == "sample")
            raise InputError(
                f"{shard} has no column {_SPELT[what][0]!r}; it has: {', '.join(schema.names) or 'none'}{hint}"
            )
    # The coordinates of a matrix are the same in fewer bytes.
    if len(in_coordinates) == len(_COORDINATES):
        found.pop("matrix", None)
    else:
        for what in in_coordinates:
            del found[what]
        if "matrix" not in found:
            found.pop("ranked", None)
    return found


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _slides(obs: pd.DataFrame, column: str, where: str) -> np.ndarray:
    missing = obs[column].isna()
    if missing.any():
        raise InputError(f"{where} has no sample in column {column!r} for {int(missing.sum())} of its {len(obs)} cells")
    _check_names(pd.Series(obs[column].unique()), column, where)
    return np.char.strip(obs[column].astype(str).to_numpy(dtype=str))


def _check_names(names: pd.Series, column: str, where: str) -> None:
    """Refuse samples whose name is a word for none beside samples that have names."""
    no_name = without_slide(names)
    if no_name.any():
        raise InputError(
            f"{where} has a sample named {str(names[no_name].iloc[0])!r} in column {column!r}, a word for no sample, "
            "beside others: give it another name, name another column (slide_key, --slide-key), or say that all cells "
            "are of one slide (one_slide=True, --one-slide)"
        )


def _gene_pairs(cells: Cells, columns: Mapping[str, str], place: np.ndarray) -> GenePairs | None:
    if "ranked" not in columns:
        return None
    genes, of_cell = cells.gene_pairs(place)
    parts = ("matrix",) if "matrix" in columns else _COORDINATES
    return GenePairs(genes=genes, of_cell=of_cell, parameters={"columns": ", ".join(columns[part] for part in parts)})


class _Table:
    """What rows say of a cell in one value: context, sample, centroid and labels."""

    def __init__(self, columns: Mapping[str, str], further: Mapping[str, bool]) -> None:
        texts = {what: columns[what] for what in keys.CONTEXT if what in columns}
        if "sample" in columns:
            texts[columns["sample"]] = columns["sample"]
        texts |= {name: name for name, is_text in further.items() if is_text}
        self._texts = {name: (column, Names()) for name, column in texts.items()}
        self._numbers = {name: name for name, is_text in further.items() if not is_text}
        self._numbers |= {axis: columns[axis] for axis in _PLACES}
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in (*self._texts, *self._numbers)}
        self.columns = list(dict.fromkeys([*columns.values(), *further]))

    def add(self, batch: pa.RecordBatch, shard: Path) -> None:
        """Add some rows."""
        for name, (column, names) in self._texts.items():
            self._parts[name].append(names.codes(batch.column(column)))
        for name, column in self._numbers.items():
            try:
                self._parts[name].append(np.array(numbers_of(batch.column(column))))
            except TypeError as error:
                raise InputError(f"{shard} holds {error} in column {column!r}, where numbers are wanted") from error

    def centroids(self) -> np.ndarray:
        """Return centroids as the data set has them, (n_cells, 2)."""
        return np.column_stack([self._column(axis) for axis in _PLACES])

    def obs(self) -> pd.DataFrame:
        """Return what is no centroid as a table of cells; context under the keys of this package."""
        texts = {name: names.categorical(self._column(name)) for name, (_, names) in self._texts.items()}
        numbers = {name: self._column(name) for name in self._numbers if name not in _PLACES}
        return pd.DataFrame({**numbers, **texts})

    def _column(self, name: str) -> np.ndarray:
        kind = np.int32 if name in self._texts else np.float64
        return np.concatenate([np.empty(0, kind), *self._parts[name]])
