from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spaf_model import InputError
from spaf_model.pairs import read_pair_file
from spaf_model.tables import table_kind, write_array, write_table


@pytest.mark.parametrize(
    "name", ["pairs.csv", "pairs.CSV", "pairs.csv.gz", "pairs.tsv", "pairs.tsv.gz", "pairs.parquet"]
)
def test_names_survive_every_kind_of_file(name: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    # None of these is a number or missing, though it looks so.
    table = pd.DataFrame({"left": ["0012", "1e5", "NA"], "right": ["b,c", "None", "7"]})
    path = tmp_path / "new" / name
    write_table(path, table.assign(other=1.5))
    read = read_pair_file(path)
    assert read.to_numpy().tolist() == table.to_numpy().tolist()
    assert [file.name for file in path.parent.iterdir()] == [name]
    if name.endswith("gz"):
        assert path.read_bytes()[:2] == b"\x1f\x8b"


def test_arrays_keep_their_name(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_array(tmp_path / "embeddings", array)
    np.testing.assert_array_equal(np.load(tmp_path / "embeddings"), array)
    assert [file.name for file in tmp_path.iterdir()] == ["embeddings"]


def test_files_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"pairs\.xlsx must end in one of \.csv, \.csv\.gz"):
        table_kind(tmp_path / "pairs.xlsx")
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist"):
        read_pair_file(tmp_path / "none.csv")
    for name in ("damaged.csv.gz", "damaged.parquet", "binary.csv"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00\x01 no table")
        if name.endswith("parquet"):
            pytest.importorskip("pyarrow")
        with pytest.raises(InputError, match=f"{name} cannot be read as a table"):
            read_pair_file(tmp_path / name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the library pyarrow: pip install pyarrow, or use a .csv file"):
        table_kind(tmp_path / "pairs.parquet")
