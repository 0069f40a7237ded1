"""Shards of a data set as the ``datasets`` library writes them: Arrow streams, Arrow files or Parquet.

They are read some rows at a time. Of Arrow, whose bytes are mapped, only columns and batches that are looked at come
into memory, and their pages are given back; of Parquet only row groups with a wanted row are decoded.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from spaf_data.errors import InputError
from spaf_data.readers._table import explained

ENDINGS = (".arrow", ".parquet")
STATE = "state.json"  # beside the shards of `save_to_disk`: their names
_OF_SPLITS = "dataset_dict.json"  # above the folders of the splits
_SPLITS = ("train", "test", "validation", "valid", "data")  # folders of splits where nothing names them
_NUMBERED = re.compile(r"(.*?)-(\d{5})-of-(\d{5})(?=[-.]).*")
_BYTES_AT_A_TIME = 16 << 20
_FILE_MAGIC = b"ARROW1"
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def find_shards(path: Path) -> list[Path]:
    """Return the shards of a data set in order: the file itself, those of a folder or those of the splits in it.

    Empty where there are none. Files that the library keeps for itself (``cache-*.arrow``) are none.
    """
    if not path.is_dir():
        return [path] if path.suffix in ENDINGS and path.is_file() else []
    for folders in ([path], _folders_of_splits(path)):
        found = [file for folder in folders for file in _in_folder(folder)]
        if found:
            return found
    return []


def _folders_of_splits(path: Path) -> list[Path]:
    named = _json(path / _OF_SPLITS).get("splits")
    names = [str(name) for name in named] if isinstance(named, list) else _SPLITS
    return [path / name for name in names if (path / name).is_dir()]


def _in_folder(folder: Path) -> list[Path]:
    listed = _json(folder / STATE).get("_data_files")
    if isinstance(listed, list):
        return [folder / str(entry["filename"]) for entry in listed if isinstance(entry, dict) and "filename" in entry]
    for ending in ENDINGS:
        found = sorted(file for file in folder.glob(f"*{ending}") if not file.name.startswith(("cache-", "tmp")))
        if found:
            return found
    return []


def _json(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check_shards(path: Path, shards: Sequence[Path]) -> None:
    """Refuse a data set of which shards are missing, or that is a selection of the rows in its shards.

    Raises
    ------
    InputError
        The sentence names the first shard that is not there.
    """
    for folder in dict.fromkeys(shard.parent for shard in shards):
        if _json(folder / STATE).get("_indices_data_files"):
            raise InputError(
                f"{folder} is a selection of the rows of its shards, and {STATE} names the file that says which: save "
                "it with its rows alone (flatten_indices) first"
            )
    missing = next((shard for shard in shards if not shard.is_file()), None)
    if missing is not None:
        raise InputError(f"{missing.parent / STATE} lists the shard {missing.name}, which is not there")
    if path.is_file():
        return
    there: dict[tuple[Path, str, int], set[int]] = {}
    for shard in shards:
        found = _NUMBERED.fullmatch(shard.name)
        if found:
            there.setdefault((shard.parent, found[1], int(found[3])), set()).add(int(found[2]))
    for (folder, name, total), numbers in there.items():
        absent = sorted(set(range(total)) - numbers)
        if absent:
            raise InputError(
                f"{folder} has {len(numbers)} of the {total} shards {name}-*-of-{total:05d}; the first that is missing "
                f"is number {absent[0]:05d}"
            )


def shard_schema(shard: Path) -> pa.Schema:
    """Return names and types of the columns of a shard.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    with explained(shard):
        if shard.suffix == ".parquet":
            return pa.parquet.read_schema(shard)
        return _open(_mapped(shard), None).schema


def stream_shard(
    shard: Path, columns: Sequence[str], *, only: tuple[str, str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the named columns of a shard, some megabytes of rows at a time.

    Parameters
    ----------
    shard
        An Arrow stream, an Arrow file or a Parquet file.
    columns
        Names of columns, all of which it has.
    only
        A column among these and the text of it that rows must have; others are left out.

    Raises
    ------
    InputError
        If the file is damaged, or cut short.
    """
    with explained(shard):
        parts = _parquet if shard.suffix == ".parquet" else _ipc
        for batch in parts(shard, list(columns), only):
            batch.validate(full=True)
            yield batch


def _parquet(shard: Path, columns: list[str], only: tuple[str, str] | None) -> Iterator[pa.RecordBatch]:
    with pa.parquet.ParquetFile(shard, page_checksum_verification=True, pre_buffer=False) as file:
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            if group.num_rows == 0:
                continue
            if only is not None and not _has(file.read_row_group(number, columns=[only[0]]).column(0), only[1]):
                continue
            rows = _rows_at_a_time(group.total_byte_size, group.num_rows)
            for batch in file.iter_batches(batch_size=rows, row_groups=[number], columns=columns):
                yield _wanted(batch, only)


def _ipc(shard: Path, columns: list[str], only: tuple[str, str] | None) -> Iterator[pa.RecordBatch]:
    mapped = _mapped(shard)
    names = _open(mapped, None).schema.names
    fields = pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in columns])
    reader = _open(mapped, fields)
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    elif mapped[-len(_END_OF_STREAM) :] != _END_OF_STREAM:
        # What ends between two batches would pass for a shorter shard.
        raise InputError(
            f"{shard} cannot be read: it is cut short, for it lacks the mark at the end of an Arrow stream"
        )
    else:
        batches = iter(reader)
    for batch in batches:
        if batch.num_rows == 0 or (only is not None and not _has(batch.column(only[0]), only[1])):
            continue
        rows = _rows_at_a_time(batch.nbytes, batch.num_rows)
        for start in range(0, batch.num_rows, rows):
            yield _wanted(batch.slice(start, rows), only)
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)  # pages of a file that is only read come again when asked for


def _mapped(shard: Path) -> mmap.mmap:
    with shard.open("rb") as file:
        if shard.stat().st_size == 0:
            raise InputError(f"{shard} is empty")
        # Arrays that were made of it keep it open.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _open(
    mapped: mmap.mmap, options: pa.ipc.IpcReadOptions | None
) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
    buffer = pa.py_buffer(mapped)
    if mapped[: len(_FILE_MAGIC)] == _FILE_MAGIC:
        return pa.ipc.open_file(buffer, options=options)
    return pa.ipc.open_stream(buffer, options=options)


def _rows_at_a_time(n_bytes: int, n_rows: int) -> int:
    return max(1, _BYTES_AT_A_TIME * n_rows // max(n_bytes, 1))


def texts_of(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return the values of a column as text, null where they are."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string())


def _is(column: pa.Array | pa.ChunkedArray, value: str) -> pa.Array | pa.ChunkedArray:
    # Slides are named without the spaces around a sample.
    return pc.equal(pc.utf8_trim_whitespace(texts_of(column)), value)


def _has(column: pa.Array | pa.ChunkedArray, value: str) -> bool:
    return bool(pc.any(_is(column, value)).as_py())


def _wanted(batch: pa.RecordBatch, only: tuple[str, str] | None) -> pa.RecordBatch:
    if only is None:
        return batch
    rows = pc.fill_null(_is(batch.column(only[0]), only[1]), fill_value=False)
    if np.asarray(rows.to_numpy(zero_copy_only=False)).all():
        return batch
    return batch.filter(rows)
