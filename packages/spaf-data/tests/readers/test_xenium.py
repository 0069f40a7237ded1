import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from spaf_data import (
    InputError,
    ReadOptions,
    bin_transcripts,
    find_bundles,
    has_transcripts,
    read_counts,
    read_transcripts,
)
from spaf_data.readers import xenium
from spaf_data.readers._controls import is_control_name

ARRAYS = ("x", "y", "z", "gene", "qv", "in_nucleus", "offsets", "cells")


def assert_equal(one, other):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.genes == other.genes
    assert one.account == other.account


def slow_twin(table, min_qv=20.0):
    """Do in pandas what the reader does in chunks: return the account and the kept rows in order."""
    control = table.feature_name.str.startswith(("NegControl", "BLANK"))
    low = ~control & ~(table.qv >= min_qv)
    nowhere = ~control & ~low & (table.cell_id == "UNASSIGNED")
    kept = table[~control & ~low & ~nowhere].sort_values(
        ["cell_id", "feature_name", "x_location", "y_location", "z_location", "overlaps_nucleus", "qv"]
    )
    account = {"controls": control.sum(), "low_quality": low.sum(), "unassigned": nowhere.sum(), "kept": len(kept)}
    return {"read": len(table), **account}, kept, sorted(table.feature_name[~control].unique())


def test_agrees_with_pandas(bundle):
    table = pd.read_parquet(bundle / "transcripts.parquet")
    account, kept, genes = slow_twin(table)
    found = read_transcripts(bundle)
    assert found.account.as_dict() == account
    assert min(account.values()) > 0, "the simulation has some of everything"
    assert found.genes == genes
    assert np.array(found.genes)[found.gene].tolist() == kept.feature_name.tolist()
    assert found.cells[found.cell].tolist() == kept.cell_id.tolist()
    for name, column in {"x": "x_location", "y": "y_location", "z": "z_location", "qv": "qv"}.items():
        np.testing.assert_array_equal(getattr(found, name), kept[column].to_numpy(np.float32))
    np.testing.assert_array_equal(found.in_nucleus, kept.overlaps_nucleus.to_numpy(bool))


def test_reads_what_the_bundle_says_of_itself(bundle):
    found = read_transcripts(bundle)
    cells = pd.read_parquet(bundle / "cells.parquet").set_index("cell_id").loc[found.cells]
    np.testing.assert_array_equal(found.centroids, cells[["x_centroid", "y_centroid"]].to_numpy())
    np.testing.assert_array_equal(found.areas, cells.cell_area.to_numpy())
    assert found.metadata["assay"] == "Xenium"
    assert found.metadata["slide"] == "simulation_3"
    panel = json.loads((bundle / "gene_panel.json").read_text())["payload"]["targets"]
    ids = {target["type"]["data"]["name"]: target["type"]["data"]["id"] for target in panel}
    assert found.gene_ids == [ids[gene] for gene in found.genes]


@pytest.mark.parametrize("rows", [1, 37, 4999, 5000, 100000])
@pytest.mark.parametrize("in_memory_bytes", [0, 1 << 30])
def test_neither_chunks_nor_row_order_nor_place_matter(table, write_table, rows, in_memory_bytes):
    if rows == 1:
        table = table.head(300)
    reference = read_transcripts(write_table(table))
    shuffled = write_table(table.sample(frac=1, random_state=1))
    found = xenium.Xenium().read_transcripts(
        shuffled, ReadOptions(), min_qv=20.0, batch_rows=rows, in_memory_bytes=in_memory_bytes
    )
    assert_equal(found, reference)


@pytest.mark.parametrize("name", ["transcripts.csv", "transcripts.csv.gz"])
def test_csv_gives_what_parquet_gives(table, write_table, name):
    reference = read_transcripts(write_table(table))
    folder = write_table(table.reset_index(), name)  # exports of R begin with a column of row numbers
    assert_equal(read_transcripts(folder), reference)
    assert_equal(xenium.Xenium().read_transcripts(folder / name, ReadOptions(), min_qv=20.0, batch_rows=1), reference)


def test_integer_cell_ids_of_xoa_1(table, write_table):
    numbers = [-1 if cell == "UNASSIGNED" else xenium.decode_cell_id(cell)[0] for cell in table.cell_id]
    reference = read_transcripts(write_table(table))
    found = read_transcripts(write_table(table.assign(cell_id=numbers)))
    assert found.account == reference.account
    assert [int(cell) for cell in found.cells] == sorted(int(cell) for cell in found.cells)
    assert {xenium.encode_cell_id(int(cell)) for cell in found.cells} == set(reference.cells)
    assert_equal(read_transcripts(write_table(table.assign(cell_id=numbers), "transcripts.csv")), found)


def test_bytes_of_the_first_parquet_files(table, write_table):
    reference = read_transcripts(write_table(table))
    as_bytes = table.assign(
        cell_id=table.cell_id.str.encode("utf-8"), feature_name=table.feature_name.str.encode("utf-8")
    )
    assert_equal(read_transcripts(write_table(as_bytes)), reference)


def test_categories_that_do_not_occur_are_no_genes(table, write_table):
    reference = read_transcripts(write_table(table))
    names = pd.Categorical(table.feature_name, categories=["NOT THERE", *sorted(table.feature_name.unique())])
    assert_equal(read_transcripts(write_table(table.assign(feature_name=names))), reference)


def test_cells_table_with_the_other_spelling_of_ids(bundle, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    reference = read_transcripts(bundle)
    cells = pd.read_parquet(folder / "cells.parquet")
    cells["cell_id"] = [xenium.decode_cell_id(cell)[0] for cell in cells.cell_id]
    cells.sample(frac=1, random_state=0).to_parquet(folder / "cells.parquet", index=False)
    np.testing.assert_array_equal(read_transcripts(folder).centroids, reference.centroids)


def test_optional_columns_may_be_missing(table, write_table):
    found = read_transcripts(write_table(table.drop(columns=["qv", "overlaps_nucleus", "z_location"])))
    assert found.account.low_quality == 0
    assert np.isnan(found.qv).all()
    assert (found.z == 0).all()
    assert not found.nucleus_known
    assert "no column qv" in found.parameters["min_qv"]


def test_is_gene_marks_controls_with_any_name(table, write_table):
    gene = table.feature_name.iloc[0]
    before = read_transcripts(write_table(table))
    marked = read_transcripts(write_table(table.assign(is_gene=table.feature_name != gene)))
    assert gene in before.genes
    assert gene not in marked.genes
    assert marked.account.controls == before.account.controls + (table.feature_name == gene).sum()


def test_codeword_category_marks_controls_where_is_gene_is_missing(table, write_table):
    """Prime 5k panels tell kinds of codewords apart in a column of their own."""
    gene = table.feature_name.iloc[0]
    category = np.where(table.feature_name == gene, "genomic_control_probe", "predesigned_gene")
    marked = read_transcripts(write_table(table.assign(codeword_category=category)))
    assert gene not in marked.genes
    assert_equal(marked, read_transcripts(write_table(table.assign(is_gene=table.feature_name != gene))))
    # is_gene speaks of features, the category of codewords: the former is believed.
    both = read_transcripts(write_table(table.assign(codeword_category=category, is_gene=True)))
    assert_equal(both, read_transcripts(write_table(table)))


def write_boundaries(folder, cells, **columns):
    """Write an outline of 3 by i + 1 um for cell i, open as the instrument's vertices may be."""
    corners = np.array([[0, 0], [3, 0], [3, 1], [0, 1]], float)
    vertices = pd.DataFrame(
        {
            "cell_id": np.repeat(cells, 4),
            "vertex_x": np.tile(corners[:, 0], len(cells)),
            "vertex_y": np.concatenate([corners[:, 1] * (i + 1) for i in range(len(cells))]),
            **columns,
        }
    )
    vertices.to_csv(folder / "cell_boundaries.csv.gz", index=False)


def test_areas_from_boundaries_without_a_table_of_cells(table, write_table):
    folder = write_table(table)
    cells = read_transcripts(folder).cells
    write_boundaries(folder, cells[1:])
    found = read_transcripts(folder)
    np.testing.assert_array_equal(found.areas, [np.nan, *(3.0 * np.arange(1, len(cells)))])
    assert found.centroids is None
    # Ids in the other spelling, and two outlines of one cell.
    write_boundaries(folder, [xenium.decode_cell_id(cell)[0] for cell in cells])
    assert read_transcripts(folder).areas[0] == 3.0
    write_boundaries(folder, [cells[0], cells[0]], label_id=np.repeat([1, 2], 4))
    assert read_transcripts(folder).areas[0] == 9.0


def test_cell_with_two_rows_in_the_table_of_cells(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    cells = pd.read_parquet(bundle / "cells.parquet")
    cells.loc[1, "cell_id"] = cells.cell_id[0]
    cells.to_parquet(tmp_path / "bundle" / "cells.parquet")
    with pytest.raises(InputError, match=f"cells.parquet has two rows for cell '{cells.cell_id[0]}'"):
        read_transcripts(tmp_path / "bundle")


def test_gene_names_with_underscores(table, write_table):
    genes = read_transcripts(write_table(table)).genes
    renamed = table.assign(
        feature_name=table.feature_name.where(~table.feature_name.isin(genes), "A_" + table.feature_name)
    )
    assert read_transcripts(write_table(renamed)).genes == [f"A_{gene}" for gene in genes]


def test_what_is_not_said_is_unknown(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "experiment.xenium").write_text('{"panel_tissue_type": "N/A", "panel_organism": "Human"}')
    metadata = read_transcripts(tmp_path / "bundle").metadata
    assert metadata == {"assay": "Xenium", "species": "Human"}


@pytest.mark.parametrize(
    ("name", "control"),
    [
        ("NegControlProbe_00042", True),
        ("NegControlCodeword_0500", True),
        ("antisense_LYZ", True),
        ("BLANK_0006", True),
        ("UnassignedCodeword_0001", True),
        ("DeprecatedCodeword_0321", True),
        ("Intergenic_Region_1234", True),
        ("Blank-81", True),
        ("NegPrb12", True),
        ("SystemControl4", True),
        ("notarget003", True),
        ("BLNK", False),
        ("Negr1", False),
        ("NEGR1", False),
    ],
)
def test_control_names(name, control):
    assert is_control_name(name) is control


def test_min_qv_is_a_threshold_that_keeps_its_own_value(table, write_table):
    folder = write_table(table.assign(qv=20.0))
    assert read_transcripts(folder).account.low_quality == 0
    assert read_transcripts(folder, min_qv=0).account == read_transcripts(folder).account
    with pytest.raises(InputError, match="below quality 20.1"):
        read_transcripts(folder, min_qv=20.1)


@pytest.mark.parametrize(("number", "cell"), [(0, "aaaaaaaa-1"), (1437536272, "ffkpbaba-1"), (2**32 - 1, "pppppppp-1")])
def test_cell_id_codec(number, cell):
    assert xenium.encode_cell_id(number) == cell
    assert xenium.decode_cell_id(cell) == (number, 1)


@pytest.mark.parametrize("cell", ["UNASSIGNED", "ffkpbaba", "ffkpbabz-1", "12"])
def test_what_is_no_cell_id(cell):
    with pytest.raises(InputError, match="not a Xenium cell id"):
        xenium.decode_cell_id(cell)


def test_null_cells_are_unassigned(table, write_table):
    reference = read_transcripts(write_table(table))
    table["cell_id"] = table.cell_id.where(table.cell_id != "UNASSIGNED", None)
    assert_equal(read_transcripts(write_table(table)), reference)
    assert_equal(read_transcripts(write_table(table, "transcripts.csv")), reference)


def test_numbers_of_cells_beside_missing_ones(table, write_table):
    """Pandas writes integers beside missing values as floats."""
    numbers = [-1 if cell == "UNASSIGNED" else xenium.decode_cell_id(cell)[0] for cell in table.cell_id]
    reference = read_transcripts(write_table(table.assign(cell_id=numbers)))
    floats = np.where(np.array(numbers) < 0, np.nan, numbers)
    assert_equal(read_transcripts(write_table(table.assign(cell_id=floats))), reference)


def test_a_control_that_stands_twice_in_the_panel_is_no_conflict(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    file = tmp_path / "bundle" / "gene_panel.json"
    panel = json.loads(file.read_text())
    for number in (1, 2):
        control = {"descriptor": "control", "data": {"name": "NegControlProbe_00001", "id": f"id{number}"}}
        panel["payload"]["targets"].append({"type": control})
    file.write_text(json.dumps(panel))
    assert read_transcripts(tmp_path / "bundle").gene_ids == read_transcripts(bundle).gene_ids
    gene = next(t["type"] for t in panel["payload"]["targets"] if t["type"].get("descriptor", "gene") == "gene")
    panel["payload"]["targets"].append({"type": {**gene, "data": {**gene["data"], "id": "ENSG9"}}})
    file.write_text(json.dumps(panel))
    with pytest.raises(InputError, match=r"two ids for the gene"):
        read_transcripts(tmp_path / "bundle")


def test_what_is_no_bundle(tmp_path):
    with pytest.raises(InputError, match=r"looked for transcripts.parquet, transcripts.csv.gz, transcripts.csv"):
        read_transcripts(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_transcripts(tmp_path / "nowhere")
    with pytest.raises(InputError, match="choose from auto, xenium, merscope, cosmx, spatialdata"):
        read_transcripts(tmp_path, platform="visium")


def test_find_bundles(bundle, tmp_path):
    for name in ("b", "a"):
        shutil.copytree(bundle, tmp_path / name)
    (tmp_path / "notes").mkdir()
    assert find_bundles(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert find_bundles(bundle) == [bundle]
    with pytest.raises(InputError, match="looked for"):
        find_bundles(tmp_path / "notes")


def test_progress_goes_from_0_to_1(bundle, table, write_table):
    for folder in (bundle, write_table(table, "transcripts.csv.gz")):
        seen = []
        read_transcripts(folder, progress=seen.append)
        assert seen == sorted(seen)
        assert 0 < seen[0] < 1
        assert seen[-1] == 1


@pytest.fixture
def counted(bundle, tmp_path):
    """The bundle without its transcripts and with the vendor's counts of all of them, controls included."""
    table = pd.read_parquet(bundle / "transcripts.parquet")
    table = table[(table.cell_id != "UNASSIGNED") & (table.qv >= 20)]
    counts = pd.crosstab(table.cell_id, table.feature_name).iloc[::-1]  # in another order than the table of cells
    control = counts.columns.str.startswith(("NegControl", "BLANK"))
    matrix = csr_matrix(counts.to_numpy())
    folder = tmp_path / "counted"
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("transcripts.parquet"))
    with h5py.File(folder / "cell_feature_matrix.h5", "w") as store:
        group = store.create_group("matrix")
        group["barcodes"] = counts.index.to_numpy(dtype="S")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = matrix.shape[::-1]
        group["features/id"] = np.array([f"id-{name}" for name in counts.columns], dtype="S")
        group["features/name"] = counts.columns.to_numpy(dtype="S")
        group["features/feature_type"] = np.where(control, b"Negative Control Probe", b"Gene Expression")
        group["features/genome"] = np.full(len(control), b"Unknown")
    return folder


def test_counts_of_a_bundle_without_transcripts(bundle, counted):
    assert not has_transcripts(counted)
    slide = read_counts(counted, min_transcripts=1)
    twin = bin_transcripts(read_transcripts(bundle), min_transcripts=1)[slide.obs_names]
    assert slide.n_obs == twin.n_obs == 400
    assert slide.var_names.tolist() == twin.var_names.tolist()
    assert (slide.X != twin.X).nnz == 0
    np.testing.assert_array_equal(slide.obsm["spatial"], twin.obsm["spatial"])
    np.testing.assert_array_equal(slide.obs["area"], twin.obs["area"])
    assert slide.var["gene_ids"].tolist() == [f"id-{gene}" for gene in slide.var_names]
    account = slide.uns["spaf"]["account"]
    assert account["controls"] > 0
    assert account["kept"] == twin.uns["spaf"]["account"]["kept"]
    assert slide.obs["tissue"].iloc[0] == "Simulated"
    assert slide.uns["spaf"]["parameters"]["platform"] == "xenium"


def test_counts_need_places_of_cells(counted):
    (counted / "cells.parquet").unlink()
    with pytest.raises(
        InputError, match=r"has none of cells\.parquet, .* where the cells of cell_feature_matrix\.h5 are"
    ):
        read_counts(counted)


def test_truncated_counts(counted):
    file = counted / "cell_feature_matrix.h5"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cell_feature_matrix\.h5 cannot be read as a 10x feature-barcode matrix"):
        read_counts(counted)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["x_location", "y_location", "z_location"])
def test_position_that_is_not_finite(table, write_table, bad, column):
    kept = slow_twin(table)[1].index[7]
    table.loc[kept, column] = bad
    with pytest.raises(InputError, match=rf"not finite \(NaN or infinite\) in row {kept}$"):
        read_transcripts(write_table(table))
