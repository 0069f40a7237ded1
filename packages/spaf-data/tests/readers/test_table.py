import numpy as np
import pandas as pd
import pytest

from spaf_data import (
    InputError,
    ReadOptions,
    build_corpus,
    find_bundles,
    has_transcripts,
    parse_columns,
    read_transcripts,
)
from spaf_data.options import SlideSource

COLUMNS = {"gene": "feat", "x": "xpos", "y": "ypos", "cell": "owner"}


@pytest.fixture
def molecules(truth):
    """The transcripts of the truth that are in cells, under names of no instrument, in units of 0.1 um."""
    kept = truth.cell > 0
    return pd.DataFrame(
        {
            "owner": truth.cell[kept] - 1,  # 0 is a cell like any other
            "feat": truth.gene[kept],
            "xpos": 10 * truth.x[kept],
            "ypos": 10 * truth.y[kept],
            "plane": truth.plane[kept],
            "quality": np.where(np.arange(kept.sum()) % 10 == 0, 5.0, 30.0),
        }
    )


def write(molecules, file):
    if file.suffix == ".parquet":
        molecules.to_parquet(file, index=False)
    else:
        molecules.to_csv(file, index=False, sep="," if ".csv" in file.suffixes else "\t")
    return file


@pytest.mark.parametrize("name", ["m.txt", "m.tsv.gz", "m.csv", "m.parquet"])
def test_agrees_with_the_truth(truth, molecules, tmp_path, name):
    file = write(molecules, tmp_path / name)
    options = ReadOptions(columns={**COLUMNS, "z": "plane"}, pixel_size=0.1, plane_spacing=1.5)
    found = read_transcripts(file, platform="table", options=options)
    counts = truth.counts()
    assert found.cells.tolist() == [str(number - 1) for number in counts.index]
    assert found.genes == counts.columns.tolist()
    table = np.zeros(counts.shape, int)
    np.add.at(table, (found.cell, found.gene), 1)
    np.testing.assert_array_equal(table, counts)
    assert sorted(np.unique(found.z)) == [0.0, 1.5]
    assert found.x.max() == pytest.approx(truth.x[truth.cell > 0].max(), rel=1e-5)
    assert found.account.controls == truth.gene[truth.cell > 0].tolist().count("Blank-7")
    assert not found.nucleus_known


def test_qualities(molecules, tmp_path):
    file = write(molecules, tmp_path / "m.tsv")
    with_quality = ReadOptions(columns={**COLUMNS, "qv": "quality"})
    assert read_transcripts(file, platform="table", options=with_quality).account.low_quality > 0
    found = read_transcripts(file, platform="table", options=ReadOptions(columns=COLUMNS))
    assert found.account.low_quality == 0
    assert found.parameters["min_qv"].startswith("not applied")


def test_a_table_is_only_one_when_it_is_named(molecules, tmp_path):
    file = write(molecules, tmp_path / "m.tsv")
    assert find_bundles(file, platform="table") == [file]
    assert has_transcripts(file, platform="table")
    with pytest.raises(InputError, match="is not a run with transcripts"):
        find_bundles(file)
    with pytest.raises(InputError, match=r"can be read when its columns are named: columns \(--columns\)"):
        read_transcripts(file, platform="table")


def test_column_that_is_not_there(molecules, tmp_path):
    file = write(molecules, tmp_path / "m.tsv")
    with pytest.raises(InputError, match=r"m\.tsv has no column 'gene'; it has: owner, feat, xpos"):
        read_transcripts(file, platform="table", options=ReadOptions(columns={**COLUMNS, "gene": "gene"}))


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"gene": "a", "x": "b", "y": "c"}, "columns must name cell; it names gene, x, y"),
        ({**COLUMNS, "colour": "red"}, "columns names 'colour'; the choices are gene, x, y, cell, z, qv, nucleus"),
    ],
)
def test_columns_that_cannot_be(columns, sentence):
    with pytest.raises(InputError, match=sentence):
        ReadOptions(columns=columns)


def test_columns_of_the_command_line():
    assert parse_columns("gene=feat,x=xpos, y = ypos ,cell=owner") == COLUMNS
    with pytest.raises(InputError, match="--columns has 'x' without a column"):
        parse_columns("gene=feat,x")


def test_build(molecules, tmp_path):
    file = write(molecules, tmp_path / "m.tsv")
    source = SlideSource(
        path=file, slide="m", platform="table", reading=ReadOptions(columns=COLUMNS, pixel_size=0.1), split="train"
    )
    assert build_corpus([source], tmp_path / "out")["n_cells"] == 36
