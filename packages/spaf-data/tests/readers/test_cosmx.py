import numpy as np
import pandas as pd
import pytest

from spaf_data import InputError, ReadOptions, find_bundles, read_transcripts, slide_sources
from spaf_data.readers import cosmx
from spaf_data.readers._chunks import FileRows

PIXEL = 0.120280945


def write_run(folder, truth, *, pixel=PIXEL, **changes):
    """Write the truth as a slide of two fields of view, in each of which cells are numbered from 1."""
    view = 1 + (truth.x >= 36).astype(int)
    number = np.where(truth.cell > 0, (truth.cell - 1) // 6 * 3 + (truth.cell - 1) % 3 + 1, 0)
    table = pd.DataFrame(
        {
            "fov": view,
            "cell_ID": number,
            "x_global_px": truth.x / pixel,
            "y_global_px": truth.y / pixel,
            "x_local_px": truth.x / pixel - 300 * (view - 1),
            "y_local_px": truth.y / pixel,
            "z": truth.plane,
            "target": np.where(truth.gene == "Blank-7", "NegPrb7", truth.gene),
            "CellComp": np.where(truth.cell == 0, "0", np.where(truth.plane == 0, "Nuclear", "Cytoplasm")),
        }
    )
    for name, values in changes.items():
        table[name] = values
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / "Run1_tx_file.csv", index=False)
    return folder


def name_of(cell):
    row, column = divmod(cell - 1, 6)
    return f"{1 + column // 3}_{row * 3 + column % 3 + 1}"


def test_agrees_with_the_truth(truth, tmp_path):
    found = read_transcripts(write_run(tmp_path / "run", truth))
    counts = truth.counts()
    counts.index = [name_of(cell) for cell in counts.index]
    counts = counts.sort_index()
    assert found.cells.tolist() == counts.index.tolist()
    seen = np.zeros(counts.shape, int)
    np.add.at(seen, (found.cell, found.gene), 1)
    np.testing.assert_array_equal(seen, counts.to_numpy())
    assert found.account.read == len(truth.x)
    assert found.account.controls == (truth.gene == "Blank-7").sum()
    assert found.account.kept == counts.to_numpy().sum()
    # um, to the rounding of float32
    kept = (truth.cell > 0) & (truth.gene != "Blank-7")
    np.testing.assert_allclose(np.sort(found.x), np.sort(truth.x[kept]), atol=1e-4)
    np.testing.assert_allclose(np.sort(found.y), np.sort(truth.y[kept]), atol=1e-4)
    np.testing.assert_array_equal(found.in_nucleus, found.z == 0)
    assert found.z.max() == np.float32(0.8)
    assert found.metadata == {"assay": "CosMx"}
    assert found.parameters["pixel_size"] == PIXEL


def test_pixel_size_that_is_given(truth, tmp_path):
    folder = write_run(tmp_path / "run", truth, pixel=0.5)
    found = read_transcripts(folder, options=ReadOptions(pixel_size=0.5, plane_spacing=3.0))
    assert 69 < found.x.max() < 70
    assert found.z.max() == 3.0


def test_pixel_size_of_the_prototype_by_its_larger_field(truth, tmp_path):
    folder = write_run(tmp_path / "run", truth, x_local_px=np.linspace(0, 5471, len(truth.x)))
    found = read_transcripts(folder)
    assert found.parameters["pixel_size"] == 0.18
    assert "4256" in found.parameters["pixel_size_from"]


def test_pixel_size_from_the_fields_of_view(truth, tmp_path):
    folder = write_run(tmp_path / "run", truth, pixel=0.25)
    pd.DataFrame(
        {"FOV": [1, 2], "x_global_px": [0.0, 4256.0], "y_global_px": 0.0, "X_global_mm": [0.0, 1.064], "Y_mm": 0.0}
    ).to_csv(folder / "Run1_fov_positions_file.csv", index=False)
    found = read_transcripts(folder)
    assert found.parameters["pixel_size"] == pytest.approx(0.25)
    assert found.parameters["pixel_size_from"] == "Run1_fov_positions_file.csv"


def test_table_of_cells(truth, tmp_path):
    folder = write_run(tmp_path / "run", truth, pixel=0.5)
    names = [name_of(cell).split("_") for cell in range(1, 37)]
    middle = truth.corners + 5.0
    pd.DataFrame(
        {
            "fov": [name[0] for name in names],
            "cell_ID": [name[1] for name in names],
            "Area": 400,
            "CenterX_global_px": middle[:, 0] / 0.5,
            "CenterY_global_px": middle[:, 1] / 0.5,
        }
    ).to_csv(folder / "Run1_metadata_file.csv", index=False)
    found = read_transcripts(folder, options=ReadOptions(pixel_size=0.5))
    place = {name_of(cell): middle[cell - 1] for cell in range(1, 37)}
    np.testing.assert_allclose(found.centroids, [place[cell] for cell in found.cells])
    np.testing.assert_allclose(found.areas, 100.0)


def test_negative_cell(truth, tmp_path):
    with pytest.raises(InputError, match=r"Run1_tx_file.csv has the cell_ID -3; a cell's number cannot be negative"):
        read_transcripts(write_run(tmp_path / "run", truth, cell_ID=np.where(truth.cell == 5, -3, truth.cell)))


def test_missing_column(truth, tmp_path):
    folder = write_run(tmp_path / "run", truth)
    table = pd.read_csv(folder / "Run1_tx_file.csv")
    table.drop(columns="target").to_csv(folder / "Run1_tx_file.csv", index=False)
    with pytest.raises(InputError, match=r"Run1_tx_file.csv has no column 'target'; it has: fov, cell_ID"):
        read_transcripts(folder)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_position_that_is_not_finite(truth, tmp_path, bad):
    x = truth.x.copy()
    row = int(np.flatnonzero((truth.cell > 0) & (truth.gene == "VIM"))[4])
    x[row] = bad
    with pytest.raises(InputError, match=rf"not finite \(NaN or infinite\) in row {row}$"):
        read_transcripts(write_run(tmp_path / "run", truth, x_global_px=x))


def test_nothing_assigned(truth, tmp_path):
    with pytest.raises(InputError, match=r"no transcript that is assigned to a cell"):
        read_transcripts(write_run(tmp_path / "run", truth, cell_ID=0))


@pytest.mark.parametrize("size", [0.0, -1.0, float("inf")])
def test_pixel_size_that_is_none(size):
    with pytest.raises(InputError, match="pixel_size must be above 0 um"):
        ReadOptions(pixel_size=size)


def test_neither_chunks_nor_row_order_matter(truth, tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", truth)
    reference = read_transcripts(folder)
    table = pd.read_csv(folder / "Run1_tx_file.csv", keep_default_na=False).sample(frac=1, random_state=5)
    (folder / "Run1_tx_file.csv").unlink()
    table.to_parquet(folder / "Run1_tx_file.parquet", index=False)
    monkeypatch.setattr(cosmx, "FileRows", lambda file: FileRows(file, batch_rows=7))
    found = read_transcripts(folder)
    for name in ("x", "y", "z", "gene", "in_nucleus", "offsets", "cells"):
        np.testing.assert_array_equal(getattr(found, name), getattr(reference, name), err_msg=name)
    assert found.account == reference.account


def write_two_slides(folder, truth):
    """Two slides in one folder, the second mirrored, each with its own table of cells and size of pixels."""
    write_run(folder, truth)
    (folder / "Run1_tx_file.csv").rename(folder / "b_tx_file.csv")
    table = pd.read_csv(folder / "b_tx_file.csv")
    table.assign(x_global_px=table["x_global_px"].max() - table["x_global_px"]).to_csv(
        folder / "a_tx_file.csv", index=False
    )
    for name, pixel in (("a", 0.18), ("b", PIXEL)):
        cells = table[["fov", "cell_ID"]].drop_duplicates()
        cells = cells[cells["cell_ID"] > 0].assign(
            CenterX_global_px={"a": 10.0, "b": 20.0}[name], CenterY_global_px=1.0
        )
        cells.to_csv(folder / f"{name}_metadata_file.csv", index=False)
        pd.DataFrame({"x_global_px": [0.0, 1000.0], "x_global_mm": [0.0, pixel]}).to_csv(
            folder / f"{name}_fov_positions_file.csv", index=False
        )


def test_files_of_one_slide_belong_together(truth, tmp_path):
    write_two_slides(tmp_path / "run", truth)
    with pytest.raises(InputError, match=r"holds 2 slides; read one of: a_tx_file.csv, b_tx_file.csv"):
        read_transcripts(tmp_path / "run")
    files = find_bundles(tmp_path / "run")
    assert [file.name for file in files] == ["a_tx_file.csv", "b_tx_file.csv"]
    for file, pixel, centre in zip(files, (0.18, PIXEL), (10.0, 20.0), strict=True):
        found = read_transcripts(file)
        assert found.parameters["pixel_size"] == pytest.approx(pixel)
        np.testing.assert_allclose(found.centroids[:, 0], centre * pixel)
    sources = slide_sources(inputs=[tmp_path / "run"])
    assert [source.slide for source in sources] == ["a", "b"]


def test_a_table_of_cells_of_another_slide_is_not_taken(truth, tmp_path):
    write_two_slides(tmp_path / "run", truth)
    (tmp_path / "run" / "a_metadata_file.csv").unlink()
    assert read_transcripts(tmp_path / "run" / "a_tx_file.csv").centroids is None


@pytest.mark.parametrize("spelling", ["0.0", "NA", ""])
def test_in_no_cell_as_other_software_writes_it(truth, tmp_path, spelling):
    folder = write_run(tmp_path / "run", truth)
    expected = read_transcripts(folder).account
    table = pd.read_csv(folder / "Run1_tx_file.csv", dtype={"cell_ID": object})
    table.loc[table["cell_ID"] == "0", "cell_ID"] = spelling
    table.to_csv(folder / "Run1_tx_file.csv", index=False)
    assert read_transcripts(folder).account == expected
