"""Stream the columns of a table of transcripts (parquet, csv, csv.gz) as record batches.

Everything that a damaged or wrong file can raise leaves here as an `InputError` that names the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from spaf_data.errors import InputError

Progress = Callable[[float], None]

ROWS_PER_BATCH = 1 << 20

# Endings of text with tabs between columns; other text has commas.
_TABBED = (".tsv", ".txt")

# Bytes of each column read from the disk at a time.
_READ_BYTES = 1 << 20


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises on a damaged file into one sentence that names the file."""
    try:
        yield
    except (pa.ArrowException, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {_first_line(error)}") from error
    except OSError as error:
        if error.errno is not None:  # of the file system (permission, missing, disk), which says it well enough
            raise
        raise InputError(f"{path} cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(error).__name__


def is_parquet(path: Path) -> bool:
    """Whether the name says that this is a parquet file; anything else is read as text."""
    return path.suffix == ".parquet"


def is_table(path: Path) -> bool:
    """Whether the name is that of a table that can be streamed."""
    return is_parquet(path) or path.name.removesuffix(".gz").endswith((".csv", *_TABBED))


def _parse_options(path: Path) -> pa.csv.ParseOptions:
    return pa.csv.ParseOptions(delimiter="\t" if path.name.removesuffix(".gz").endswith(_TABBED) else ",")


def column_names(path: Path) -> list[str]:
    """Return the names of the columns of a table.

    Raises
    ------
    InputError
        If the file is damaged or empty.
    """
    with explained(path):
        if is_parquet(path):
            return list(pa.parquet.read_schema(path).names)
        # The first column of some exports is an unnamed row index, and the header is all that is wanted here.
        with _open_csv(path) as stream, pa.csv.open_csv(stream, parse_options=_parse_options(path)) as reader:
            return list(reader.schema.names)


def require_columns(path: str | Path, required: list[str], present: list[str]) -> None:
    """Raise an `InputError` naming the first required column that a table does not have."""
    for name in required:
        if name not in present:
            raise InputError(f"{path} has no column {name!r}; it has: {', '.join(present)}")


def stream_columns(
    path: Path,
    types: Mapping[str, pa.DataType],
    *,
    batch_rows: int = ROWS_PER_BATCH,
    progress: Progress | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the named columns of a table in batches of about `batch_rows` rows.

    Parameters
    ----------
    path
        A parquet, csv or csv.gz file.
    types
        Type wanted for each column when the file is csv; parquet columns keep the type of the file.
    batch_rows
        Rows in memory at a time.
    progress
        Called with the fraction of the file that was read, from 0 to 1.
    """
    with explained(path):
        if is_parquet(path):
            yield from _stream_parquet(path, list(types), batch_rows, progress)
        else:
            yield from _stream_csv(path, types, batch_rows, progress)


def _stream_parquet(
    path: Path, columns: list[str], batch_rows: int, progress: Progress | None
) -> Iterator[pa.RecordBatch]:
    schema = pa.parquet.read_schema(path)
    text = [name for name in columns if _is_text(schema.field(name).type)]
    with pa.parquet.ParquetFile(
        path,
        read_dictionary=text,
        page_checksum_verification=True,
        # Read page by page; the default keeps the columns of every row group until the end of the file.
        pre_buffer=False,
        buffer_size=_READ_BYTES,
    ) as file:
        done = 0
        for batch in file.iter_batches(batch_size=batch_rows, columns=columns):
            yield batch
            done += batch.num_rows
            if progress is not None:
                progress(done / file.metadata.num_rows)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _stream_csv(
    path: Path, types: Mapping[str, pa.DataType], batch_rows: int, progress: Progress | None
) -> Iterator[pa.RecordBatch]:
    convert = pa.csv.ConvertOptions(include_columns=list(types), column_types=dict(types))
    # A row of a Xenium csv is about 100 bytes long.
    read = pa.csv.ReadOptions(block_size=max(1 << 16, 100 * batch_rows))
    size = max(1, path.stat().st_size)
    with pa.OSFile(str(path)) as raw:
        stream = pa.CompressedInputStream(raw, "gzip") if path.suffix == ".gz" else raw
        parse = _parse_options(path)
        with pa.csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert) as reader:
            for batch in reader:
                yield batch
                if progress is not None and not raw.closed:
                    progress(min(1.0, raw.tell() / size))


def _open_csv(path: Path) -> pa.NativeFile:
    raw = pa.OSFile(str(path))
    return pa.CompressedInputStream(raw, "gzip") if path.suffix == ".gz" else raw
