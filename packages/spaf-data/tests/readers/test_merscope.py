import gzip

import h5py
import numpy as np
import pandas as pd
import pytest
import shapely

from spaf_data import InputError, ReadOptions, has_transcripts, read_counts, read_transcripts
from spaf_data.readers import merscope
from spaf_data.readers._chunks import FileRows

FIRST_ID = 2317032900000100001  # as the instrument numbers cells: more digits than a float holds


def cell_names(truth):
    return [str(FIRST_ID + i) for i in range(len(truth.corners))]


def write_transcripts(folder, truth, *, with_cells, **changes):
    table = pd.DataFrame(
        {
            "barcode_id": 1,
            "global_x": truth.x,
            "global_y": truth.y,
            "global_z": truth.plane.astype(float),
            "fov": 0,
            "gene": truth.gene,
        }
    )
    if with_cells:
        table["cell_id"] = np.where(truth.cell > 0, truth.cell - 1 + FIRST_ID, -1)
    for name, values in changes.items():
        table[name] = values
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / "detected_transcripts.csv")  # the vendor's file begins with an unnamed row index
    return folder


def write_parquet(folder, truth):
    squares = truth.squares()
    pd.DataFrame(
        {
            "ID": np.arange(2 * len(squares)),
            "EntityID": np.repeat(FIRST_ID + np.arange(len(squares)), 2),
            "ZIndex": np.tile([0, 1], len(squares)),
            "Geometry": np.repeat(shapely.to_wkb([shapely.MultiPolygon([square]) for square in squares]), 2),
        }
    ).to_parquet(folder / "cell_boundaries.parquet")


def write_planes(folder, truth, sign=1.0, ending=".gz"):
    (folder / "cell_boundaries").mkdir()
    for plane in (0, 1):
        rows = [
            (x, sign * y, name)
            for name, square in zip(cell_names(truth), truth.squares(), strict=True)
            for x, y in square.exterior.coords
        ]
        pd.DataFrame(rows, columns=["x", "y", "poly_ID"]).to_csv(
            folder / "cell_boundaries" / f"z{plane}_polygons{ending}", index=False
        )


def write_hdf5(folder, truth):
    (folder / "cell_boundaries").mkdir()
    for part in (0, 1):
        with h5py.File(folder / "cell_boundaries" / f"feature_data_{part}.hdf5", "w") as store:
            for i, (name, square) in enumerate(zip(cell_names(truth), truth.squares(), strict=True)):
                if i % 2 == part:
                    for plane in (0, 1):
                        ring = np.array(square.exterior.coords)[None]
                        store[f"featuredata/{name}/zIndex_{plane}/p_0/coordinates"] = ring


def assert_is_truth(found, truth):
    counts = truth.counts()
    assert found.cells.tolist() == [cell_names(truth)[cell - 1] for cell in counts.index]
    assert found.genes == counts.columns.tolist()
    seen = np.zeros(counts.shape, int)
    np.add.at(seen, (found.cell, found.gene), 1)
    np.testing.assert_array_equal(seen, counts.to_numpy())
    control = truth.gene == "Blank-7"
    assert found.account.as_dict() == {
        "read": len(truth.x),
        "controls": control.sum(),
        "low_quality": 0,
        "unassigned": (~control & (truth.cell == 0)).sum(),
        "kept": counts.to_numpy().sum(),
    }
    assert not found.nucleus_known
    assert set(found.z.tolist()) == {0.0, 1.5}
    assert found.metadata == {"assay": "MERSCOPE"}


def test_cells_by_column(truth, tmp_path):
    found = read_transcripts(write_transcripts(tmp_path / "run", truth, with_cells=True))
    assert_is_truth(found, truth)
    assert found.areas is None
    assert found.parameters["cells"] == "cell_id"


@pytest.mark.parametrize("write", [write_parquet, write_planes, write_hdf5])
def test_cells_by_polygon(truth, tmp_path, write):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=False)
    write(folder, truth)
    found = read_transcripts(folder)
    assert_is_truth(found, truth)
    np.testing.assert_allclose(found.areas, 100.0)
    assert found.parameters["cells"] == "by polygon"


def test_outlines_with_y_negated(truth, tmp_path):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=False)
    write_planes(folder, truth, sign=-1.0, ending=".csv")
    with pytest.raises(InputError, match=r"no transcript of .* lies in a cell boundary: .*y -70 to -?0.*flip_polygons"):
        read_transcripts(folder)
    assert_is_truth(read_transcripts(folder, options=ReadOptions(flip_polygons=True)), truth)


def test_plane_spacing(truth, tmp_path):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=True)
    assert read_transcripts(folder, options=ReadOptions(plane_spacing=2.0)).z.max() == 2.0


def write_cells(folder, truth, **changes):
    middle = truth.corners + 5.0
    table = pd.DataFrame({"EntityID": cell_names(truth), "fov": 0, "center_x": middle[:, 0], "center_y": middle[:, 1]})
    for name, values in changes.items():
        table[name] = values
    table.iloc[::-1].to_csv(folder / "cell_metadata.csv", index=False)
    return middle


def test_centroids_are_joined_by_id(truth, tmp_path):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=True)
    middle = write_cells(folder, truth)
    found = read_transcripts(folder)
    np.testing.assert_allclose(found.centroids, middle[truth.counts().index - 1])


def test_transcripts_of_few_of_the_listed_cells_are_said(truth, tmp_path, caplog):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=True)
    write_cells(folder, truth)
    read_transcripts(folder)
    assert not caplog.messages
    cells = pd.read_csv(folder / "cell_metadata.csv", index_col=0)
    more = pd.concat(
        [cells, cells.set_axis([f"more{i}" for i in range(len(cells))]), cells.set_axis(range(len(cells)))]
    )
    more.rename_axis(cells.index.name).to_csv(folder / "cell_metadata.csv")
    (folder / "cell_by_gene.csv").write_text("cell,VIM\n")
    read_transcripts(folder)
    (said,) = caplog.messages
    assert "has transcripts in only 36 of the 108 cells that cell_metadata.csv lists (33.3 %)" in said
    assert said.endswith("without its file of transcripts the counts of cell_by_gene.csv are read")


def write_counts(folder, truth):
    counts = truth.counts().reindex(range(1, len(truth.corners) + 1), fill_value=0)
    counts.index = pd.Index(cell_names(truth), name="cell")
    counts["Blank-1"] = 2
    counts.to_csv(folder / "cell_by_gene.csv")
    return counts


def test_counts(truth, tmp_path):
    counts = write_counts(tmp_path, truth)
    middle = write_cells(tmp_path, truth)
    slide = read_counts(tmp_path, min_transcripts=1, tissue="Liver")
    genes = [gene for gene in counts if gene != "Blank-1"]
    assert slide.var_names.tolist() == genes
    np.testing.assert_array_equal(slide.X.toarray(), counts[genes].to_numpy())
    np.testing.assert_allclose(slide.obsm["spatial"], middle)
    account = slide.uns["spaf"]["account"]
    assert account["controls"] == 2 * len(counts)
    assert account["read"] == counts.to_numpy().sum() == account["kept"] + account["controls"]
    assert slide.obs["tissue"].unique().tolist() == ["Liver"]
    assert slide.obs["assay"].unique().tolist() == ["MERSCOPE"]


def test_counts_need_places(truth, tmp_path):
    write_counts(tmp_path, truth)
    with pytest.raises(InputError, match=r"has no cell_metadata.csv"):
        read_counts(tmp_path)


def test_two_genes_with_one_name(truth, tmp_path):
    write_cells(tmp_path, truth)
    counts = write_counts(tmp_path, truth)
    counts.rename(columns={"VIM": "KRT5"}).to_csv(tmp_path / "cell_by_gene.csv")
    with pytest.raises(InputError, match=r"cell_by_gene.csv has two genes named 'KRT5'"):
        read_counts(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"EntityID": str(FIRST_ID)}, f"two rows for cell '{FIRST_ID}'"),
        ({"center_x": np.nan}, "centroid that is not finite"),
    ],
)
def test_bad_table_of_cells(truth, tmp_path, change, sentence):
    write_counts(tmp_path, truth)
    write_cells(tmp_path, truth, **change)
    with pytest.raises(InputError, match=rf"cell_metadata.csv has .*{sentence}"):
        read_counts(tmp_path)


def test_cell_without_a_row(truth, tmp_path):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=True)
    write_cells(folder, truth, EntityID=[f"other{i}" for i in range(len(truth.corners))])
    with pytest.raises(InputError, match=r"cell_metadata.csv has no row for 36 of the 36 cells"):
        read_transcripts(folder)


def test_negative_cell(truth, tmp_path):
    cells = np.where(truth.cell > 0, truth.cell, -1)
    cells[17] = -12
    folder = write_transcripts(tmp_path / "run", truth, with_cells=True, cell_id=cells)
    with pytest.raises(InputError, match=r"detected_transcripts.csv has the cell_id -12; .*cannot be negative"):
        read_transcripts(folder)


def test_missing_column(truth, tmp_path):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=True)
    table = pd.read_csv(folder / "detected_transcripts.csv").rename(columns={"gene": "target"})
    table.to_csv(folder / "detected_transcripts.csv", index=False)
    with pytest.raises(InputError, match=r"detected_transcripts.csv has no column 'gene'; it has: .*target"):
        read_transcripts(folder)


def test_nothing_to_assign_by(truth, tmp_path):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=False)
    with pytest.raises(InputError, match=r"no column 'cell_id', and beside it are no cell boundaries"):
        read_transcripts(folder / "detected_transcripts.csv", platform="merscope")


def test_damaged_boundaries(truth, tmp_path):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=False)
    write_planes(folder, truth)
    file = folder / "cell_boundaries" / "z1_polygons.gz"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"z1_polygons.gz cannot be read"):
        read_transcripts(folder)
    with gzip.open(file, "wt") as stream:
        stream.write("x,y,poly_ID\n0,nan,a\n1,1,a\n0,1,a\n")
    with pytest.raises(InputError, match=r"z1_polygons.gz has a vertex that is not finite"):
        read_transcripts(folder)


def test_damaged_hdf5(truth, tmp_path):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=False)
    write_hdf5(folder, truth)
    file = folder / "cell_boundaries" / "feature_data_1.hdf5"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match=r"feature_data_1.hdf5 cannot be read as a file of cell boundaries"):
        read_transcripts(folder)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_position_that_is_not_finite(truth, tmp_path, bad):
    """Also where cells are told by place: it must not pass for a transcript in no cell."""
    x = truth.x.copy()
    row = int(np.flatnonzero((truth.cell > 0) & (truth.gene == "VIM"))[9])
    x[row] = bad
    for with_cells in (True, False):
        folder = write_transcripts(tmp_path / f"run{with_cells}", truth, with_cells=with_cells, global_x=x)
        if not with_cells:
            write_parquet(folder, truth)
        with pytest.raises(InputError, match=rf"detected_transcripts.csv has a position .* not finite .* row {row}$"):
            read_transcripts(folder)


def test_text_in_the_table_of_counts(truth, tmp_path):
    write_cells(tmp_path, truth)
    write_counts(tmp_path, truth).astype(object).assign(VIM="many").to_csv(tmp_path / "cell_by_gene.csv")
    with pytest.raises(InputError, match=r"cell_by_gene.csv cannot be read: .*many"):
        read_counts(tmp_path)


def test_transcripts_that_cannot_be_put_into_cells_leave_the_counts(truth, tmp_path):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=False)
    write_counts(folder, truth)
    write_cells(folder, truth)
    assert not has_transcripts(folder)
    assert read_counts(folder).n_obs == len(truth.corners)
    write_parquet(folder, truth)
    assert has_transcripts(folder)


def test_neither_chunks_nor_row_order_matter(truth, tmp_path, monkeypatch):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=False)
    write_parquet(folder, truth)
    reference = read_transcripts(folder)
    table = pd.read_csv(folder / "detected_transcripts.csv").sample(frac=1, random_state=5)
    table.to_parquet(folder / "detected_transcripts.parquet", index=False)
    (folder / "detected_transcripts.csv").unlink()
    monkeypatch.setattr(merscope, "FileRows", lambda file: FileRows(file, batch_rows=11))
    found = read_transcripts(folder)
    for name in ("x", "y", "z", "gene", "offsets", "cells"):
        np.testing.assert_array_equal(getattr(found, name), getattr(reference, name), err_msg=name)
    assert found.account == reference.account


def test_ids_that_a_float_has_rounded_are_refused(truth, tmp_path):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=True)
    file = folder / "detected_transcripts.csv"
    table = pd.read_csv(file)
    rounded = 1.1e18 + 64.0 * (np.arange(len(table)) % 200)
    table["cell_id"] = np.where(table["cell_id"].astype(str) == "-1", -1.0, rounded)
    table.to_csv(file, index=False)
    with pytest.raises(InputError, match=r"detected_transcripts.csv has the cell_id .* went through a float"):
        read_transcripts(folder)
    table.to_parquet(folder / "detected_transcripts.parquet")
    file.unlink()
    with pytest.raises(InputError, match=r"has the column 'cell_id' as floats, with numbers above 2\^53"):
        read_transcripts(folder)


def test_one_of_several_segmentations_is_named(truth, tmp_path):
    folder = write_transcripts(tmp_path / "run", truth, with_cells=False)
    for name, side in (("cellpose", 10.0), ("watershed", 4.0)):
        shapes = shapely.to_wkb(np.array(truth.squares(side), dtype=object))
        pd.DataFrame({"EntityID": cell_names(truth), "ZIndex": 0, "Geometry": shapes}).to_parquet(
            folder / f"{name}_micron_space.parquet"
        )
    question = r"2 files of cell outlines, so name one with boundaries \(--boundaries\): cellpose_micron.*, watershed_"
    with pytest.raises(InputError, match=question):
        read_transcripts(folder)
    with pytest.raises(InputError, match=r"has no file 'other.parquet' \(boundaries\); it has: cellpose"):
        read_transcripts(folder, options=ReadOptions(boundaries="other.parquet"))
    kept = [
        read_transcripts(folder, options=ReadOptions(boundaries=f"{name}_micron_space.parquet")).account.kept
        for name in ("cellpose", "watershed")
    ]
    assert kept[1] < 0.4 * kept[0]
