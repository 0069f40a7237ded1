import gzip
import json

import h5py
import numpy as np
import pandas as pd
import pytest
import shapely
from scipy import io, sparse
from scipy.spatial import cKDTree

from spaf_data import InputError, ReadOptions, read_counts

N_SPOTS = 60
GENES = ["SAMD11", "TBCE", "TBCE", "KRT_5", "VIM"]
IDS = [f"ENSG{i:011d}" for i in range(5)]


@pytest.fixture(scope="module")
def spots():
    """Counts of spots, which of them lie under tissue, and the table of places of all spots of the slide."""
    rng = np.random.default_rng(4)
    counts = rng.poisson(12, (N_SPOTS, len(GENES)))
    barcodes = [f"{i:016b}".translate(str.maketrans("01", "AC")) + "-1" for i in range(2 * N_SPOTS)]
    row, place = np.divmod(np.arange(2 * N_SPOTS), 10)
    column = 2 * place + row % 2  # every second column of a row has a spot
    places = pd.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": (np.arange(2 * N_SPOTS) < N_SPOTS - 5).astype(int),
            "array_row": row,
            "array_col": column,
            # Pixels of half a um: spots of a row 100 um apart, rows 86.6 um.
            "pxl_row_in_fullres": 400 + 100 * 3**0.5 * row,
            "pxl_col_in_fullres": 300 + 100 * column,
        }
    )
    return counts, places


def write_h5(file, counts, barcodes, genes=GENES, genome="GRCh38"):
    matrix = sparse.csr_matrix(counts)
    with h5py.File(file, "w") as store:
        group = store.create_group("matrix")
        group["barcodes"] = np.array(barcodes, dtype="S")
        group["data"] = matrix.data.astype(np.int32)
        group["indices"] = matrix.indices.astype(np.int64)
        group["indptr"] = matrix.indptr.astype(np.int64)
        group["shape"] = np.array([len(genes), len(barcodes)], np.int32)
        features = group.create_group("features")
        features["id"] = np.array(IDS, dtype="S")
        features["name"] = np.array(genes, dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * len(genes), dtype="S")
        features["genome"] = np.array([genome] * len(genes), dtype="S")


def write_mtx(folder, counts, barcodes):
    folder.mkdir()
    with gzip.open(folder / "matrix.mtx.gz", "wb") as stream:
        io.mmwrite(stream, sparse.coo_matrix(counts.T), field="integer")
    with gzip.open(folder / "features.tsv.gz", "wt") as stream:
        stream.writelines(f"{i}\t{name}\tGene Expression\n" for i, name in zip(IDS, GENES, strict=True))
    with gzip.open(folder / "barcodes.tsv.gz", "wt") as stream:
        stream.writelines(f"{barcode}\n" for barcode in barcodes)


def write_visium(folder, spots, *, matrix="h5", header=True):
    counts, places = spots
    (folder / "spatial").mkdir(parents=True)
    barcodes = places["barcode"][:N_SPOTS]
    if matrix == "h5":
        write_h5(folder / "filtered_feature_bc_matrix.h5", counts, barcodes)
    else:
        write_mtx(folder / "filtered_feature_bc_matrix", counts, barcodes)
    name = "tissue_positions.csv" if header else "tissue_positions_list.csv"
    places.sample(frac=1, random_state=0).to_csv(folder / "spatial" / name, index=False, header=header)
    (folder / "spatial" / "scalefactors_json.json").write_text(
        json.dumps({"spot_diameter_fullres": 130.2, "tissue_hires_scalef": 0.17, "fiducial_diameter_fullres": 177.7})
    )
    return folder


def write_hd(folder, spots, size=8):
    counts, places = spots
    bins = folder / "binned_outputs" / f"square_{size:03d}um"
    (bins / "spatial").mkdir(parents=True)
    write_h5(bins / "filtered_feature_bc_matrix.h5", counts, places["barcode"][:N_SPOTS], genome="mm10")
    places.to_parquet(bins / "spatial" / "tissue_positions.parquet", index=False)
    (bins / "spatial" / "scalefactors_json.json").write_text(
        json.dumps({"spot_diameter_fullres": size / 0.04, "bin_size_um": size, "microns_per_pixel": 0.04})
    )
    return bins


def assert_is_truth(slide, spots, pixel):
    counts, places = spots
    n = N_SPOTS - 5
    assert slide.obs_names.tolist() == places["barcode"][:n].tolist()
    # Two genes share a symbol, so they go by their ids.
    assert slide.var_names.tolist() == ["SAMD11", IDS[1], IDS[2], "KRT_5", "VIM"]
    assert slide.var["gene_ids"].tolist() == IDS
    np.testing.assert_array_equal(slide.X.toarray(), counts[:n])
    xy = places[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()[:n] * pixel
    np.testing.assert_allclose(slide.obsm["spatial"], xy, rtol=1e-9)
    account = slide.uns["spaf"]["account"]
    assert account["read"] == counts.sum()
    assert account["unassigned"] == counts[n:].sum() > 0
    assert account["kept"] == counts[:n].sum()
    assert slide.obs["nucleus_fraction"].isna().all()


@pytest.mark.parametrize("matrix", ["h5", "mtx"])
@pytest.mark.parametrize("header", [True, False])
def test_visium(spots, tmp_path, matrix, header):
    slide = read_counts(write_visium(tmp_path / "outs", spots, matrix=matrix, header=header), min_transcripts=1)
    assert_is_truth(slide, spots, 0.5)
    assert slide.uns["spaf"]["parameters"]["pixel_size_from"] == "the lattice"
    assert slide.obs["assay"].unique().tolist() == ["Visium"]
    assert slide.obs["species"].unique().tolist() == ["Human" if matrix == "h5" else "unknown"]


def test_visium_hd(spots, tmp_path):
    bins = write_hd(tmp_path / "outs", spots)
    write_hd(tmp_path / "outs", (spots[0] * 0 + 1, spots[1]), size=16)
    for source in (tmp_path / "outs", bins):
        slide = read_counts(source, min_transcripts=1)
        assert_is_truth(slide, spots, 0.04)
        assert slide.obs["assay"].unique().tolist() == ["Visium HD"]
        assert slide.obs["species"].unique().tolist() == ["Mouse"]
    larger = read_counts(tmp_path / "outs", min_transcripts=1, options=ReadOptions(bin_size=16))
    assert larger.X.sum() == 5 * (N_SPOTS - 5)
    with pytest.raises(InputError, match=r"binned_outputs has no bins of 2 um \(bin_size\); it has: 8 um, 16 um"):
        read_counts(tmp_path / "outs", options=ReadOptions(bin_size=2))


def test_pixel_size_that_is_given(spots, tmp_path):
    folder = write_visium(tmp_path / "outs", spots)
    (folder / "spatial" / "scalefactors_json.json").unlink()
    assert_is_truth(read_counts(folder), spots, 0.5)
    assert_is_truth(read_counts(folder, options=ReadOptions(pixel_size=0.3)), spots, 0.3)


def turned(places, degrees, mirror):
    """The places of a slide that was laid on the scanner otherwise."""
    angle = np.deg2rad(degrees)
    xy = places[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy() * [-1 if mirror else 1, 1]
    xy = xy @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]] + 9_000
    return places.assign(pxl_col_in_fullres=xy[:, 0].round(), pxl_row_in_fullres=xy[:, 1].round())


@pytest.mark.parametrize("degrees", [0, 3, 90, 200])
@pytest.mark.parametrize("mirror", [True, False])
def test_neighbouring_spots_are_100_um_apart_however_the_slide_lies(spots, tmp_path, degrees, mirror):
    counts, places = spots
    slide = read_counts(write_visium(tmp_path / "outs", (counts, turned(places, degrees, mirror))), min_transcripts=1)
    nearest = cKDTree(slide.obsm["spatial"]).query(slide.obsm["spatial"], k=2)[0][:, 1]
    np.testing.assert_allclose(nearest, 100.0, rtol=0.02)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda places: places.head(2), "has too few spots to measure the lattice"),
        (lambda places: places.assign(array_row=3), "has too few spots to measure the lattice"),
        (lambda places: places.assign(array_row=places["array_row"] * 2), "lie on no lattice of 50 and 86.6 um"),
        (lambda places: places.assign(pxl_row_in_fullres=7, pxl_col_in_fullres=7), "all spots at one place"),
    ],
)
def test_a_lattice_that_cannot_be_measured_is_asked_about(spots, tmp_path, spoil, sentence):
    _, places = spots
    folder = write_visium(tmp_path / "outs", spots)
    spoil(places).to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    with pytest.raises(InputError, match=rf"{sentence}.*give pixel_size \(--pixel-size\)"):
        read_counts(folder)


def write_segmented(folder, spots, lose=()):
    counts, places = spots
    cells = folder / "segmented_outputs"
    (cells / "spatial").mkdir(parents=True)
    names = [f"cellid_{i + 1:09d}-1" for i in range(N_SPOTS)]
    write_h5(cells / "filtered_feature_cell_matrix.h5", counts, names)
    xy = places[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
    features = [
        {
            "type": "Feature",
            "properties": {"cell_id": i + 1},
            "geometry": shapely.geometry.mapping(shapely.box(*(xy[i] - 10), *(xy[i] + 10))),
        }
        for i in range(N_SPOTS)
        if i not in lose
    ]
    (cells / "cell_segmentations.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    (cells / "spatial" / "scalefactors_json.json").write_text(json.dumps({"microns_per_pixel": 0.25}))
    return xy


def test_segmented_cells(spots, tmp_path):
    xy = write_segmented(tmp_path / "outs", spots)
    for source in (tmp_path / "outs", tmp_path / "outs" / "segmented_outputs"):
        slide = read_counts(source, min_transcripts=1)
        np.testing.assert_array_equal(slide.X.toarray(), spots[0])
        np.testing.assert_allclose(slide.obsm["spatial"], xy[:N_SPOTS] * 0.25)
        np.testing.assert_allclose(slide.obs["area"], 25.0)
    write_hd(tmp_path / "outs", spots)
    assert read_counts(tmp_path / "outs", min_transcripts=1).uns["spaf"]["parameters"]["bins"] == "square_008um"
    chosen = read_counts(tmp_path / "outs", min_transcripts=1, options=ReadOptions(segmented=True))
    assert chosen.uns["spaf"]["parameters"]["bins"] == "segmented cells"


def test_segmented_cells_without_outlines(spots, tmp_path):
    write_segmented(tmp_path / "outs", spots, lose=(0, 3))
    with pytest.raises(
        InputError, match=r"geojson has no row for 2 of the 60 cells, the first is '1'.*--drop-unlisted"
    ):
        read_counts(tmp_path / "outs")
    slide = read_counts(tmp_path / "outs", min_transcripts=1, options=ReadOptions(drop_unlisted=True))
    assert slide.n_obs == N_SPOTS - 2
    assert slide.uns["spaf"]["account"]["unlisted"] == spots[0][[0, 3]].sum()
    (tmp_path / "outs" / "segmented_outputs" / "cell_segmentations.geojson").write_text('{"features": [{}]}')
    with pytest.raises(InputError, match=r"cell_segmentations.geojson is no GeoJSON of cells"):
        read_counts(tmp_path / "outs")
    with pytest.raises(InputError, match=r"has no segmented_outputs; bins are read without segmented"):
        read_counts(write_visium(tmp_path / "spots", spots), options=ReadOptions(segmented=True))


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"microns_per_pixel": 0}'])
def test_bad_scalefactors(spots, tmp_path, content):
    bins = write_hd(tmp_path / "outs", spots)
    (bins / "spatial" / "scalefactors_json.json").write_text(content)
    with pytest.raises(InputError, match=r"scalefactors_json.json is not valid JSON|lie on no lattice of 8 and 8 um"):
        read_counts(tmp_path / "outs")


def test_barcode_without_a_place(spots, tmp_path):
    _, places = spots
    folder = write_visium(tmp_path / "outs", spots)
    places.iloc[1:].to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    with pytest.raises(InputError, match=rf"no row for 1 of the 60 barcodes .* the first is '{places.barcode[0]}'"):
        read_counts(folder)


def test_barcode_with_two_places(spots, tmp_path):
    folder = write_visium(tmp_path / "outs", spots)
    pd.concat([spots[1], spots[1].tail(1)]).to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    with pytest.raises(InputError, match=r"tissue_positions.csv has two rows for barcode"):
        read_counts(folder)


def test_missing_column(spots, tmp_path):
    folder = write_visium(tmp_path / "outs", spots)
    spots[1].drop(columns="in_tissue").to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    with pytest.raises(InputError, match=r"tissue_positions.csv has no column 'in_tissue'; it has: barcode, array_row"):
        read_counts(folder)


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_truncated_h5(spots, tmp_path, keep):
    folder = write_visium(tmp_path / "outs", spots)
    file = folder / "filtered_feature_bc_matrix.h5"
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    with pytest.raises(InputError, match=r"filtered_feature_bc_matrix.h5 cannot be read as a 10x"):
        read_counts(folder)


@pytest.mark.parametrize("name", ["matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"])
def test_truncated_and_missing_mtx(spots, tmp_path, name):
    folder = write_visium(tmp_path / "outs", spots, matrix="mtx")
    file = folder / "filtered_feature_bc_matrix" / name
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"filtered_feature_bc_matrix cannot be read as a 10x"):
        read_counts(folder)
    file.unlink()
    with pytest.raises(InputError, match=rf"filtered_feature_bc_matrix has no {name}"):
        read_counts(folder)


def test_matrix_of_other_features(spots, tmp_path):
    folder = write_visium(tmp_path / "outs", spots)
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "a") as store:
        del store["matrix/features/feature_type"]
        store["matrix/features/feature_type"] = np.array(["Antibody Capture"] * 5, dtype="S")
    with pytest.raises(InputError, match=r"has no feature of the type 'Gene Expression'"):
        read_counts(folder)
