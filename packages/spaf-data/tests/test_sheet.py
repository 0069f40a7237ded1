import pytest

from spaf_data import InputError, SlideSource, read_sheet


@pytest.fixture
def sheet(tmp_path):
    """Write a sheet beside the folders run-1 and run-2, and return its path."""

    def write(text, encoding="utf-8"):
        for name in ("run-1", "run-2"):
            (tmp_path / name).mkdir(exist_ok=True)
        path = tmp_path / "slides.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_rows_become_sources(sheet, tmp_path):
    # A spreadsheet's byte order mark and line ends, quotes, an empty row and empty values.
    path = sheet(
        "\ufeffslide, input,tissue,condition,split,platform\r\n"
        's1,run-1,"Breast, left",,,\r\n'
        ",,,,,\r\n"
        f"s2 ,{tmp_path / 'run-2'},, Healthy,validation,xenium\r\n"
    )
    first, second = read_sheet(path, defaults={"tissue": "Skin", "species": "Human"})
    assert first == SlideSource(path=tmp_path / "run-1", slide="s1", tissue="Breast, left", species="Human")
    assert second == SlideSource(
        path=tmp_path / "run-2",
        slide="s2",
        tissue="Skin",
        condition="Healthy",
        species="Human",
        split="validation",
        platform="xenium",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "slides.csv has no column 'input'; it has: nothing"),
        ("slide,path\ns,run-1\n", "slides.csv has no column 'input'; it has: slide, path"),
        ("input;slide\nrun-1;s\n", "slides.csv has no column 'input'; it has: input;slide"),
        (
            "input,slide,organ\n",
            "slides.csv has a column 'organ', which means nothing; choose from input, slide",
        ),
        ("input,slide,slide\n", "slides.csv has two columns 'slide'"),
        ("input,slide\n", "slides.csv has no row under its header"),
        ("input,slide\nrun-1\n", "slides.csv, row 2 has 1 values for 2 columns"),
        ("input,slide\n\nrun-1,\n", "slides.csv, row 3, column 'slide': is empty"),
        ("input,slide\nrun-1,a\nrun-3,b\n", "slides.csv, row 3, column 'input': .*run-3 does not exist"),
        ("input,slide\nrun-1,a\nrun-2,a\n", "slides.csv, row 3, column 'slide': 'a' is the slide of row 2 already"),
        ("input,slide\nrun-1,a/b\n", "slides.csv, row 2, column 'slide': .*becomes a file name"),
        ("input,slide,split\nrun-1,a,test\n", "row 2, column 'split': 'test' is none of train, validation or empty"),
        ("input,slide,platform\nrun-1,a,vizgen\n", "row 2, column 'platform': 'vizgen' is none of auto, xenium"),
        ('input,slide\n"run-1,a\n', "slides.csv cannot be read as CSV"),
    ],
)
def test_what_is_wrong_is_named_with_row_and_column(sheet, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_sheet(sheet(text))
    assert "\n" not in str(caught.value)


def test_other_encodings(sheet):
    with pytest.raises(InputError, match=r"slides.csv cannot be read as CSV in UTF-8"):
        read_sheet(sheet("input,slide,tissue\nrun-1,s,Peau légère\n", encoding="latin-1"))
