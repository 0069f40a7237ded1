"""Bundles that are damaged, or not what they seem."""

import gzip
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from spaf_data import InputError, read_transcripts
from spaf_data.readers._chunks import TableChunks


def test_negative_cell(table, write_table):
    with pytest.raises(InputError, match=r"transcripts.parquet has the cell_id -7; .* \(-1 is no cell\)"):
        read_transcripts(write_table(table.assign(cell_id=np.where(table.qv > 39, -7, 3))))


def test_text_in_a_parquet_column_of_numbers(table, write_table):
    with pytest.raises(InputError, match=r"has a column 'x_location' that does not hold numbers"):
        read_transcripts(write_table(table.assign(x_location=table.x_location.astype(str))))


def test_missing_column_is_named_with_those_there(table, write_table):
    with pytest.raises(InputError, match=r"transcripts.parquet has no column 'feature_name'; it has: .*gene_name"):
        read_transcripts(write_table(table.rename(columns={"feature_name": "gene_name"})))


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_parquet(bundle, tmp_path, keep):
    content = (bundle / "transcripts.parquet").read_bytes()
    (tmp_path / "transcripts.parquet").write_bytes(content[: int(keep * len(content))])
    with pytest.raises(InputError, match=r"transcripts.parquet cannot be read: "):
        read_transcripts(tmp_path)


@pytest.mark.parametrize("column", ["cell_id", "feature_name", "qv", "y_location"])
def test_damage_inside_a_parquet_column(bundle, tmp_path, column):
    content = bytearray((bundle / "transcripts.parquet").read_bytes())
    group = pyarrow.parquet.read_metadata(bundle / "transcripts.parquet").row_group(0)
    chunk = next(chunk for chunk in map(group.column, range(group.num_columns)) if chunk.path_in_schema == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + 400] = bytes(400)
    (tmp_path / "transcripts.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"transcripts.parquet cannot be read: "):
        read_transcripts(tmp_path)


def test_flipped_byte_in_a_parquet_with_checksums(table, write_table):
    folder = write_table(table, compression=None, write_page_checksum=True)
    file = folder / "transcripts.parquet"
    content = bytearray(file.read_bytes())
    place = content.index(table.x_location.to_numpy().tobytes()[: 4 * 8])
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"transcripts.parquet cannot be read: .*(checksum|CRC)"):
        read_transcripts(folder)


def test_truncated_gzip(table, write_table):
    folder = write_table(table, "transcripts.csv.gz")
    file = folder / "transcripts.csv.gz"
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"transcripts.csv.gz cannot be read: "):
        read_transcripts(folder)


def test_text_in_a_column_of_numbers(table, write_table):
    folder = write_table(table.astype({"x_location": object}).assign(x_location="left"), "transcripts.csv")
    with pytest.raises(InputError, match=r"transcripts.csv cannot be read: .*left"):
        read_transcripts(folder)


def test_empty_csv(tmp_path):
    with gzip.open(tmp_path / "transcripts.csv.gz", "wb"):
        pass
    with pytest.raises(InputError, match="cannot be read"):
        read_transcripts(tmp_path)


def test_nothing_assigned(table, write_table):
    with pytest.raises(InputError, match="no transcript that is assigned to a cell"):
        read_transcripts(write_table(table.assign(cell_id="UNASSIGNED")))
    with pytest.raises(InputError, match="of 0 read"):
        read_transcripts(write_table(table.head(0)))


def test_row_without_a_feature(table, write_table):
    table.loc[11, "feature_name"] = None
    with pytest.raises(InputError, match="row without a feature_name"):
        read_transcripts(write_table(table))


def test_file_that_changes_between_the_passes(table, write_table, monkeypatch):
    folder = write_table(table)
    original = TableChunks.__call__

    def change(self, with_positions):
        if with_positions:
            table.iloc[::-1].head(4000).to_parquet(folder / "transcripts.parquet", index=False)
        yield from original(self, with_positions)

    monkeypatch.setattr(TableChunks, "__call__", change)
    with pytest.raises(InputError, match="changed while it was being read"):
        read_transcripts(folder)


def test_cell_without_a_row_in_the_table_of_cells(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    cells = pd.read_parquet(bundle / "cells.parquet")
    cells.iloc[1:].to_parquet(tmp_path / "bundle" / "cells.parquet")
    with pytest.raises(InputError, match=f"no row for 1 of the .* cells, the first is '{cells.cell_id[0]}'"):
        read_transcripts(tmp_path / "bundle")


@pytest.mark.parametrize("name", ["experiment.xenium", "gene_panel.json"])
def test_damaged_side_files(bundle, tmp_path, name):
    shutil.copytree(bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / name).write_text('{"payload"')
    with pytest.raises(InputError, match=f"{name} is not valid JSON"):
        read_transcripts(tmp_path / "bundle")


def test_panel_of_another_shape(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "gene_panel.json").write_text("{}")
    with pytest.raises(InputError, match=r"no list payload\.targets"):
        read_transcripts(tmp_path / "bundle")
