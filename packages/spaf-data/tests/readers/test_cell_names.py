import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from spaf_data import InputError, ReadOptions, read_transcripts
from spaf_data.readers._cell_names import cell_name, is_no_cell
from spaf_data.readers._chunks import dictionary, flags

WORDS = ["", "NA", "nan", "NaN", "None", "<NA>", "N/A", "null", "-1", "-1.0", "4294967295", "UNASSIGNED", "unassigned"]
N_CELLS, N_EACH = 30, 40


def transcripts(unassigned, *, kind=str, n_unassigned=400):
    """30 cells of 40 transcripts, 20 um apart, and transcripts all over the slide under the name `unassigned`."""
    rng = np.random.default_rng(0)
    cell = np.repeat(np.arange(1, N_CELLS + 1), N_EACH)
    row, column = np.divmod(cell - 1, 6)
    x = np.concatenate([20.0 * column + rng.uniform(0, 8, cell.size), rng.uniform(0, 108, n_unassigned)])
    y = np.concatenate([20.0 * row + rng.uniform(0, 8, cell.size), rng.uniform(0, 88, n_unassigned)])
    ids = [kind(value) for value in cell] + [unassigned] * n_unassigned
    gene = rng.choice(["NA", "nan", "KRT5", "None"], len(x))
    return pd.DataFrame({"cell_id": ids, "feature_name": gene, "x_location": x, "y_location": y, "qv": 40.0})


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_in_no_cell_however_it_is_written(tmp_path, word, ending):
    table = transcripts(word)
    file = tmp_path / f"transcripts.{ending}"
    table.to_parquet(file) if ending == "parquet" else table.to_csv(file, index=False)
    found = read_transcripts(tmp_path)
    assert found.account.unassigned == 400
    assert found.n_cells == N_CELLS
    assert sorted(found.genes) == sorted(["NA", "nan", "KRT5", "None"]), "genes may be called so"


@pytest.mark.parametrize("unassigned", [-1.0, np.nan, 4294967295.0])
def test_numbers_that_went_through_a_float_keep_their_names(tmp_path, unassigned):
    transcripts(unassigned, kind=float).to_parquet(tmp_path / "transcripts.parquet")
    found = read_transcripts(tmp_path)
    assert found.cells.tolist() == [str(number) for number in range(1, N_CELLS + 1)]
    transcripts(unassigned, kind=float).to_csv(tmp_path / "transcripts.csv", index=False)
    (tmp_path / "transcripts.parquet").unlink()
    assert read_transcripts(tmp_path).cells.tolist() == found.cells.tolist()


@pytest.mark.parametrize("word", ["background", "0"])
def test_a_word_nobody_knows_is_asked_about_and_can_be_named(tmp_path, word):
    transcripts(word).to_csv(tmp_path / "transcripts.csv", index=False)
    question = rf"a cell '{word}' of 400 transcripts over .* most of the slide: .* \(--no-cell {word}\)"
    with pytest.raises(InputError, match=question):
        read_transcripts(tmp_path)
    found = read_transcripts(tmp_path, options=ReadOptions(no_cell=(word,)))
    assert (found.account.unassigned, found.n_cells) == (400, N_CELLS)
    assert read_transcripts(tmp_path, options=ReadOptions(check_places=False)).n_cells == N_CELLS + 1


def test_a_cell_of_twenty_times_the_next_is_asked_about(tmp_path):
    table = transcripts("giant", n_unassigned=N_EACH * 20)
    giant = table["cell_id"] == "giant"
    table.loc[giant, ["x_location", "y_location"]] /= 10
    table.to_csv(tmp_path / "transcripts.csv", index=False)
    with pytest.raises(InputError, match="a cell 'giant' of 800 transcripts .* where the next has 40"):
        read_transcripts(tmp_path)


def test_zero_is_a_cell(tmp_path):
    table = transcripts("0", n_unassigned=0)
    table["cell_id"] = (table["cell_id"].astype(int) - 1).astype(str)
    table.to_csv(tmp_path / "transcripts.csv", index=False)
    assert read_transcripts(tmp_path).cells[0] == "0"


def test_names():
    assert not is_no_cell("0")
    assert is_no_cell("0.0", also=["0"])
    assert cell_name("12.0", where="f", column="c") == "12"
    assert cell_name("aaab-1", where="f", column="c") == "aaab-1"
    for rounded in ("1.2345678901234568e+18", "1234567890123456789.0"):
        with pytest.raises(InputError, match=r"f has the c .*went through a float"):
            cell_name(rounded, where="f", column="c")
    assert cell_name("1234567890123456789", where="f", column="c") == "1234567890123456789"
    with pytest.raises(InputError, match=r"f has the c -7; a cell's number cannot be negative"):
        cell_name("-7", where="f", column="c")


def test_floats_that_cannot_tell_cells_apart_are_refused():
    with pytest.raises(InputError, match=r"f has the column 'EntityID' as floats, with numbers above 2\^53"):
        dictionary(pa.array([1.0, 2.0**60]), "f", "EntityID")
    with pytest.raises(InputError, match=r"f has 1.5 in the column 'cell'"):
        dictionary(pa.array([1.0, 1.5]), "f", "cell")


def test_truth_values_however_they_are_written():
    for words in (["True", "False"], ["1.0", "0.0"], ["1", "0"], ["true", ""], ["T", "NA"]):
        assert flags(pa.array(words), "f", "c").tolist() == [True, False]
    assert flags(pa.array([1, 0, None], pa.int8()), "f", "c").tolist() == [True, False, False]
    with pytest.raises(InputError, match="f has 'perhaps' in the column 'c', which holds true or false"):
        flags(pa.array(["perhaps"]), "f", "c")


def test_numbers_that_a_user_names_are_compared_as_numbers():
    assert all(is_no_cell(name, also=[word]) for name in ("0", "0.0", "-0") for word in ("0", "0.0", " 0 "))
    assert not is_no_cell("10", also=["0.0", "cell"])


@pytest.mark.parametrize("name", ["1.000000e+15", "1.23457e+09", "-1.234567e+12"])
def test_numbers_without_their_last_digits_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"f has the cell \S+, a number that was written without its last digits"):
        cell_name(name, where="f", column="cell")
    transcripts(-1).assign(cell_id=lambda table: table["cell_id"].where(table["cell_id"] == -1, name)).to_csv(
        tmp_path / "transcripts.csv", index=False
    )
    with pytest.raises(InputError, match="written without its last digits"):
        read_transcripts(tmp_path)


@pytest.mark.parametrize("name", ["1.000000e+05", "1e+05", "12E5", "1.5e+07"])
def test_numbers_with_all_their_digits_are_kept(name):
    assert cell_name(name, where="f", column="cell") == name


@pytest.mark.parametrize(("kind", "limit"), [(np.float16, 2**11), (np.float32, 2**24), (np.float64, 2**53)])
def test_floats_too_short_for_their_numbers_are_refused(kind, limit):
    values = pa.array(np.array([limit - 1, np.nan], kind))
    assert dictionary(values, "f", "cell")[1] == [str(limit - 1)]
    with pytest.raises(
        InputError, match=rf"f has the column 'cell' as floats, with numbers above 2\^{np.log2(limit):.0f}"
    ):
        dictionary(pa.array(np.array([limit, 1], kind)), "f", "cell")
