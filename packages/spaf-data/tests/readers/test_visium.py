import gzip
import json

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

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
    row, column = np.divmod(np.arange(2 * N_SPOTS), 10)
    places = pd.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": (np.arange(2 * N_SPOTS) < N_SPOTS - 5).astype(int),
            "array_row": row,
            "array_col": column,
            "pxl_row_in_fullres": 400 + 200 * row,
            "pxl_col_in_fullres": 300 + 200 * column,
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
        json.dumps({"spot_diameter_fullres": 110.0, "tissue_hires_scalef": 0.17, "fiducial_diameter_fullres": 177.7})
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
    np.testing.assert_allclose(slide.obsm["spatial"], xy)
    account = slide.uns["spaf"]["account"]
    assert account["read"] == counts.sum()
    assert account["unassigned"] == counts[n:].sum() > 0
    assert account["kept"] == counts[:n].sum()
    assert slide.obs["nucleus_fraction"].isna().all()


@pytest.mark.parametrize("matrix", ["h5", "mtx"])
@pytest.mark.parametrize("header", [True, False])
def test_visium(spots, tmp_path, matrix, header):
    slide = read_counts(write_visium(tmp_path / "outs", spots, matrix=matrix, header=header), min_transcripts=1)
    assert_is_truth(slide, spots, 55 / 110)
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
    with pytest.raises(InputError, match=r"there is no .*scalefactors_json.json .* give pixel_size"):
        read_counts(folder)
    assert_is_truth(read_counts(folder, options=ReadOptions(pixel_size=0.3)), spots, 0.3)


@pytest.mark.parametrize("content", ["{", "{}", '{"spot_diameter_fullres": 0}', "[]"])
def test_bad_scalefactors(spots, tmp_path, content):
    folder = write_visium(tmp_path / "outs", spots)
    (folder / "spatial" / "scalefactors_json.json").write_text(content)
    with pytest.raises(InputError, match=r"scalefactors_json.json (is not valid JSON|has neither microns_per_pixel)"):
        read_counts(folder)


def test_barcode_without_a_place(spots, tmp_path):
    counts, places = spots
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
