"""SpatialCC data sets in every form that the datasets library writes, against a slow twin that reads row by row."""

import itertools
import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet
import pytest

from spaf_data import (
    BuildOptions,
    Corpus,
    InputError,
    ReadOptions,
    SlideSource,
    build_corpus,
    find_bundles,
    read_counts,
)
from spaf_data.cli import main
from spaf_data.readers._spatialcc_cells import Cells

GENES = ["KRT5", "VIM", "CD3E", "ACTB", "HLA-A", "Blank-7", "MS4A1"]
CONTEXT = {"Tissues": "Lung", "Conditions": "Disease", "Species": "Human", "Assay": "Xenium"}
FORMS = ("matrix", "coordinates")
KINDS = ("stream", "file", "parquet")


def rows_of(n_cells=60, samples=("s1", "s2"), seed=0):
    """Rows as the published data sets have them: a panel a sample, NaN where the panel of a sample lacks a gene."""
    rng = np.random.default_rng(seed)
    rows = []
    for cell in range(n_cells):
        sample = samples[cell % len(samples)]
        counts = rng.poisson(9.0, len(GENES)).astype(float)
        counts[rng.integers(len(GENES))] = 0.0
        if sample == "s2":
            counts[GENES.index("MS4A1")] = np.nan
        order = [gene for gene in np.argsort(-np.nan_to_num(counts), kind="stable") if counts[gene] > 0]
        together = np.triu(rng.random((len(order), len(order))) < 0.2, 1)
        matrix = (together + together.T).astype(float)
        row, column = np.nonzero(matrix)
        rows.append(
            {
                "Expression": [counts.tolist()],
                "Gene": GENES,
                "Ranked_Gene_Names": [GENES[gene] for gene in order],
                "Cell_id": f"{sample}-{cell}",
                "Sample_Names": sample,
                "centroid_x": float(cell // 2 % 6) * 12.0 + rng.random(),
                "centroid_y": float(cell // 12) * 12.0 + rng.random(),
                **(CONTEXT | {"Tissues": "Lung" if sample == "s1" else "Skin"}),
                "Gene_Gene_Matrix": matrix.tolist(),
                "Rows": row.tolist(),
                "Cols": column.tolist(),
                "Data": matrix[row, column].tolist(),
                "Shape": list(matrix.shape),
                "Annotations": ["T cell", "B cell", None][cell % 3],
                "Niche_Annotations": f"niche {cell % 2}",
                "Full_Tokens": [1, 2, 3],
                "pct": cell / 10,
            }
        )
    return rows


def table_of(rows, form):
    left_out = ("Rows", "Cols", "Data", "Shape") if form == "matrix" else ("Gene_Gene_Matrix",)
    return pa.Table.from_pylist([{name: value for name, value in row.items() if name not in left_out} for row in rows])


def write(path, table, kind, batch_rows=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        pa.parquet.write_table(table, path.with_suffix(".parquet"), row_group_size=batch_rows)
        return path.with_suffix(".parquet")
    make = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with make(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return path


def save(folder, rows, form="coordinates", kind="stream", n_shards=2, **others):
    """Write a data set as `save_to_disk` does, in shards with a record beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    table = table_of(rows, form)
    cuts = np.linspace(0, len(rows), n_shards + 1).astype(int)
    names = [
        write(folder / f"data-{number:05d}-of-{n_shards:05d}.arrow", table.slice(start, stop - start), kind).name
        for number, (start, stop) in enumerate(itertools.pairwise(cuts))
    ]
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], **others}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def slow_twin(rows, sample, min_transcripts):
    """Counts, places, labels and pairs of a sample, by loops over its rows."""
    cells = {}
    for row in rows:
        if row["Sample_Names"] != sample:
            continue
        counts = {
            gene: int(value)
            for gene, value in zip(row["Gene"], row["Expression"][0], strict=True)
            if value > 0 and not gene.startswith("Blank")
        }
        pairs = set()
        for i, left in enumerate(row["Ranked_Gene_Names"]):
            for j, right in enumerate(row["Ranked_Gene_Names"]):
                if row["Gene_Gene_Matrix"][i][j] and "Blank-7" not in (left, right):
                    pairs.add(frozenset((left, right)))
        if sum(counts.values()) >= min_transcripts:
            place = (row["centroid_x"], row["centroid_y"])
            cells[row["Cell_id"]] = (counts, pairs, place, row["Annotations"])
    return cells


def assert_as_twin(slide, twin):
    assert slide.obs_names.tolist() == list(twin)
    pairs = slide.uns["colocalization"]["pairs"]
    for row, (cell, (counts, together, place, label)) in enumerate(twin.items()):
        found = {gene: n for gene, n in zip(slide.var_names, slide.X[row].toarray()[0].tolist(), strict=True) if n}
        assert found == counts, cell
        columns = slide.obsm["colocalization"][row].indices
        named = {frozenset(pair) for pair in pairs.iloc[columns].to_numpy().tolist()}
        assert named == together, cell
        assert slide.obsm["spatial"][row].tolist() == list(place)
        assert slide.obs["Annotations"].iloc[row] == label or (
            label is None and pd.isna(slide.obs["Annotations"].iloc[row])
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_samples_are_as_their_rows_say(tmp_path: Path, form: str, kind: str) -> None:
    rows = rows_of()
    folder = save(tmp_path / "set", rows, form, kind)
    for sample, genes in (("s1", 6), ("s2", 5)):
        options = ReadOptions(only_slide=("Sample_Names", sample))
        slide = read_counts(folder, min_transcripts=40, options=options)
        twin = slow_twin(rows, sample, 40)
        assert 0 < len(twin) < 30, "some cells are small"
        assert_as_twin(slide, twin)
        assert slide.n_vars == genes, "what is NaN in a sample is not measured there"
        assert slide.uns["spaf"]["parameters"]["genes_not_measured"] == 6 - genes
        assert slide.obs["slide"].unique().tolist() == [sample]
        assert slide.obs["tissue"].unique().tolist() == ["Lung" if sample == "s1" else "Skin"]
        assert slide.obs["assay"].unique().tolist() == ["Xenium"]
        assert {"Annotations", "Niche_Annotations", "pct"} <= set(slide.obs.columns)
        assert "Full_Tokens" not in slide.obs
        assert slide.obsm["colocalization"].dtype == np.int8
        assert slide.uns["colocalization"]["method"] == "published"
        account = slide.uns["spaf"]["account"]
        assert account["cells"] == 30
        assert account["kept_cells"] == len(twin)
        assert account["controls"] == sum(int(row["Expression"][0][5]) for row in rows if row["Sample_Names"] == sample)


def test_a_build_makes_a_slide_of_each_sample(tmp_path: Path) -> None:
    rows = rows_of(400)
    folder = save(tmp_path / "set", rows, n_shards=3)
    options = BuildOptions(min_transcripts=30)
    record = build_corpus([SlideSource(path=folder, slide="set", named=False)], tmp_path / "out", options)
    assert [slide["slide"] for slide in record["slides"]] == ["s1", "s2"]
    assert [slide["account"]["cells"] for slide in record["slides"]] == [200, 200]
    assert [slide["tissue"] for slide in record["slides"]] == ["Lung", "Skin"]
    assert [slide["genes"]["n_genes_shared"] for slide in record["slides"]] == [5, 5]
    assert record["n_gene_pairs"] == 15, "all pairs of six genes"
    slide = anndata.read_h5ad(tmp_path / "out" / "slides" / "s1.h5ad")
    assert_as_twin(slide, slow_twin(rows, "s1", 30))
    corpus = Corpus(tmp_path / "out" / "corpus")
    corpus.verify()
    assert corpus.knows_gene_pairs("s1")
    n_pairs = sum(block.colocalized_indptr[block.n_owned] for block in map(corpus.read, corpus.block_refs()))
    kept = slide.obs["split"] != "gap"
    other = anndata.read_h5ad(tmp_path / "out" / "slides" / "s2.h5ad")
    wanted = slide.obsm["colocalization"][kept.to_numpy()].nnz
    wanted += other.obsm["colocalization"][(other.obs["split"] != "gap").to_numpy()].nnz
    assert n_pairs == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_spaces_around_a_sample_lose_no_cells(tmp_path: Path, kind: str) -> None:
    rows = [
        row | {"Sample_Names": f"{row['Sample_Names']}{' ' * (number % 4 < 2)}"}
        for number, row in enumerate(rows_of(400))
    ]
    folder = save(tmp_path / "set", rows, kind=kind)
    record = build_corpus([SlideSource(path=folder, slide="set", named=False)], tmp_path / "out", BuildOptions())
    assert [slide["slide"] for slide in record["slides"]] == ["s1", "s2"]
    assert [slide["account"]["cells"] for slide in record["slides"]] == [200, 200]


def test_all_samples_in_one_table(tmp_path: Path) -> None:
    rows = [row | {"Expression": [np.nan_to_num(row["Expression"]).tolist()[0]]} for row in rows_of()]
    slide = read_counts(save(tmp_path / "set", rows), min_transcripts=1)
    assert slide.obs.groupby("slide", observed=True)["tissue"].unique().map(list).to_dict() == {
        "s1": ["Lung"], "s2": ["Skin"],
    }  # fmt: skip


def test_splits_single_files_and_caches(tmp_path: Path) -> None:
    rows = rows_of(40, samples=("s1",))
    for split, part in (("train", rows[:20]), ("test", rows[20:])):
        save(tmp_path / "dict" / split, part, n_shards=1)
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    write(tmp_path / "hub" / "data" / "train-00000-of-00001-ab12.arrow", table_of(rows, "matrix"), "parquet")
    write(tmp_path / "plain" / "a.arrow", table_of(rows, "matrix"), "stream")
    write(tmp_path / "plain" / "cache-1f.arrow", table_of(rows, "matrix"), "stream")
    found = [read_counts(tmp_path / name, min_transcripts=1) for name in ("dict", "hub", "plain", "plain/a.arrow")]
    assert [slide.n_obs for slide in found] == [40] * 4
    for slide in found[1:]:
        assert (slide.X != found[0].X).nnz == 0
        assert slide.uns["colocalization"]["pairs"].equals(found[0].uns["colocalization"]["pairs"])
    assert find_bundles(tmp_path) == [tmp_path / name for name in ("dict", "hub", "plain")], "a folder of data sets"


def test_other_spellings_and_no_gene_pairs(tmp_path: Path) -> None:
    table = table_of(rows_of(samples=("s1",)), "matrix").drop_columns(["Gene_Gene_Matrix", "Ranked_Gene_Names"])
    spelt = {"centroid_x": "x_centroid", "centroid_y": "Y_Centroid", "Cell_id": "Cell_Ids", "Expression": "expression"}
    table = table.rename_columns([spelt.get(name, name) for name in table.column_names])
    flat = pa.array([row[0] for row in table["expression"].to_pylist()], pa.large_list(pa.int64()))
    table = table.set_column(table.column_names.index("expression"), "expression", flat)
    slide = read_counts(write(tmp_path / "a.arrow", table, "stream"), min_transcripts=1)
    assert slide.n_obs == 60
    assert "colocalization" not in slide.obsm
    slide = read_counts(tmp_path / "a.arrow", min_transcripts=1, options=ReadOptions(one_slide=True, pixel_size=2.0))
    assert slide.obs["Sample_Names"].unique().tolist() == ["s1"]
    assert slide.obsm["spatial"].max() > 100


def _without(row, *names):
    return {name: value for name, value in row.items() if name not in names}


_SPOILT = {
    "no column 'Gene'": (lambda row: _without(row, "Gene") | {"Genome": "x"}, "is not a run with counts"),
    "no x": (lambda row: _without(row, "centroid_x"), r"data-00000.*arrow has no column 'centroid_x'; it has: Expr"),
    "no sample": (lambda row: _without(row, "Sample_Names"), r"no column 'Sample_Names'.*--one-slide"),
    "no ranks": (lambda row: _without(row, "Ranked_Gene_Names"), "has no column 'Ranked_Gene_Names'"),
    "no cols": (lambda row: _without(row, "Cols"), "has no column 'Cols'"),
    "ragged": (lambda row: row | {"Gene": row["Gene"][:-1]}, "7 values of Expression and 6 names in Gene for cell 's1"),
    "twice": (lambda row: row | {"Gene": ["VIM", *row["Gene"][1:]]}, "has a gene twice in Gene for cell 's1-0'"),
    "normalised": (
        lambda row: row | {"Expression": [[value * 1.5 for value in row["Expression"][0]]]},
        r"of gene '.*' in Expression of cell 's1-.*', which is no count .*normalised",
    ),
    "negative": (lambda row: row | {"Expression": [[-1.0] * 7]}, "has -1 of gene 'KRT5'"),
    "unknown rank": (
        lambda row: row | {"Ranked_Gene_Names": ["XIST", *row["Ranked_Gene_Names"][1:]]},
        "has a gene in Ranked_Gene_Names that Gene lacks for cell 's1-0'",
    ),
    "shape": (
        lambda row: row | {"Shape": [3, 3]}, r"has a gene matrix of 3 x 3 \(Shape\) and \d genes in .* for cell 's1-0'"
    ),
    "beyond": (lambda row: row | {"Rows": [99] * len(row["Rows"])}, "Rows or Cols that are no places among its"),
    "fewer": (lambda row: row | {"Data": [*row["Data"], 1.0]}, r"has \d+ Rows, \d+ Cols and \d+ Data for cell"),
    "NaN place": (lambda row: row | {"centroid_x": float("nan")}, "sample 's1' of .* centroid that is not fin.*'s1-0'"),
    "ids": (lambda row: row | {"Cell_id": "same"}, "sample 's1' of .* has two cells named 'same'"),
    "no id": (lambda row: row | {"Cell_id": None}, r"rows without a value in column 'Cell_id'"),
    "words": (lambda row: row | {"Expression": [["a"] * 7]}, "holds string in column 'Expression', where numbers are"),
    "flat": (lambda row: row | {"Expression": 1.0}, "holds double in column 'Expression', where lists are wanted"),
}  # fmt: skip


@pytest.mark.parametrize("spoilt", _SPOILT)
def test_what_cannot_be_read_is_said(tmp_path: Path, spoilt: str) -> None:
    spoil, sentence = _SPOILT[spoilt]
    folder = save(tmp_path / "set", [spoil(row) for row in rows_of()])
    with pytest.raises(InputError, match=sentence):
        read_counts(folder, options=ReadOptions(only_slide=("Sample_Names", "s1") if spoilt != "no sample" else None))


@pytest.mark.parametrize(
    ("matrix", "shape"),
    [([[0.0] * 3] * 3, "3 x 3"), ([[0.0, 1.0], [0.0]], "2 x columns of several lengths"), ([[]], "1 x 0")],
)
def test_matrix_of_another_shape(tmp_path: Path, matrix: list, shape: str) -> None:
    folder = save(tmp_path / "set", [row | {"Gene_Gene_Matrix": matrix} for row in rows_of()], "matrix")
    with pytest.raises(InputError, match=rf"a Gene_Gene_Matrix of {shape} and \d genes in Ranked_.* for cell 's1-0'"):
        read_counts(folder, options=ReadOptions(only_slide=("Sample_Names", "s1")))


def test_a_gene_that_only_some_cells_have_counted(tmp_path: Path) -> None:
    rows = rows_of()
    with pytest.raises(InputError, match="for gene 'MS4A1' in Expression of cell .*, where other cells have"):
        read_counts(save(tmp_path / "set", rows))


NO_PAIRS = {"Rows": [], "Cols": [], "Data": [], "Shape": [0, 0]}


def _without_zeros(row):
    kept = [place for place, value in enumerate(row["Expression"][0]) if value > 0]
    return row | {"Gene": [GENES[place] for place in kept], "Expression": [[row["Expression"][0][i] for i in kept]]}


def test_a_gene_that_only_some_cells_list(tmp_path: Path) -> None:
    rows = rows_of(samples=("s1",))
    whole = read_counts(save(tmp_path / "whole", rows), min_transcripts=1)
    partly = [
        row | {"Gene": GENES[:-1], "Expression": [row["Expression"][0][:-1]]} if cell % 2 else row
        for cell, row in enumerate(row | {"Ranked_Gene_Names": []} | NO_PAIRS for row in rows)
    ]
    with pytest.raises(InputError, match=r"1 of 7 genes that only some cells list in Gene \('MS4A1': 30 of 60 cells\)"):
        read_counts(save(tmp_path / "partly", partly))
    lists = read_counts(save(tmp_path / "lists", [_without_zeros(row) for row in rows]), min_transcripts=1)
    places = [list(lists.var_names).index(gene) for gene in whole.var_names]
    np.testing.assert_array_equal(lists.X.toarray()[:, places], whole.X.toarray())


def test_two_tissues_in_a_slide_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row | {"Tissues": ["Lung", "Skin"][cell % 2]} for cell, row in enumerate(rows_of(samples=("s1",)))]
    slide = read_counts(save(tmp_path / "set", rows), min_transcripts=1, options=ReadOptions(one_slide=True))
    assert "in obs column 'tissue' for one slide: Lung, Skin; its tissue is unknown" in caplog.text
    assert slide.obs["tissue"].unique().tolist() == ["unknown"]


def test_a_sample_with_a_word_for_none_as_name(tmp_path: Path) -> None:
    folder = save(tmp_path / "set", rows_of(samples=("s1", "nan")))
    for read in (
        read_counts,
        lambda path: build_corpus([SlideSource(path=path, slide="set", named=False)], tmp_path / "out", BuildOptions()),
    ):
        with pytest.raises(InputError, match="has a sample named 'nan' in column 'Sample_Names', a word for no sample"):
            read(folder)
    slide = read_counts(folder, min_transcripts=1, options=ReadOptions(only_slide=("Sample_Names", "nan")))
    assert slide.n_obs == 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_that_is_cut_short(tmp_path: Path, kind: str) -> None:
    folder = save(tmp_path / "set", rows_of(), kind=kind)
    shard = sorted(folder.glob("data-00001*"))[0]
    whole = shard.read_bytes()
    for size in (len(whole) - 8, len(whole) // 2, 100):
        shard.write_bytes(whole[:size])
        with pytest.raises(InputError, match="data-00001.* cannot be read"):
            read_counts(folder, options=ReadOptions(only_slide=("Sample_Names", "s1")))
    shard.write_bytes(b"")
    with pytest.raises(InputError, match="data-00001"):
        read_counts(folder)


def test_a_shard_that_is_not_there(tmp_path: Path) -> None:
    folder = save(tmp_path / "set", rows_of(), n_shards=3)
    (folder / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(InputError, match=r"state.json lists the shard data-00001-of-00003.arrow, which is not there"):
        read_counts(folder)
    (folder / "state.json").unlink()
    with pytest.raises(InputError, match="has 2 of the 3 shards data-.*; the first that is missing is number 00001"):
        read_counts(folder)
    chosen = save(tmp_path / "chosen", rows_of(), _indices_data_files=[{"filename": "indices.arrow"}])
    with pytest.raises(InputError, match="is a selection of the rows of its shards"):
        read_counts(chosen)


def test_shards_that_differ(tmp_path: Path) -> None:
    table = table_of(rows_of(), "matrix")
    write(tmp_path / "a.arrow", table, "stream")
    write(tmp_path / "b.arrow", table.drop_columns(["Annotations"]), "stream")
    with pytest.raises(InputError, match=r"b.arrow has no column 'Annotations', which a.arrow has"):
        read_counts(tmp_path)


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path / "set", rows_of(200))
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["spaf-data", "build", str(folder), "--platform", "spatialcc", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert sorted(file.name for file in (out / "slides").iterdir()) == ["s1.h5ad", "s2.h5ad"]
    capsys.readouterr()


def test_a_large_sample_is_read_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genes = [f"G{number}" for number in range(400)]
    rng = np.random.default_rng(0)
    n, at_once, file = 50_000, 5_000, tmp_path / "data-00000-of-00001.arrow"
    schema = None
    for start in range(0, n, at_once):
        counts = rng.poisson(0.2, (at_once, len(genes))).astype(float)
        lists = pa.ListArray.from_arrays(np.arange(at_once + 1) * len(genes), counts.ravel())
        names = pa.ListArray.from_arrays(np.arange(at_once + 1) * len(genes), pa.array(genes * at_once))
        cells = np.arange(start, start + at_once)
        batch = pa.table(
            {
                "Expression": lists, "Gene": names, "Cell_id": cells.astype(str), "Sample_Names": ["s"] * at_once,
                "centroid_x": cells % 250 * 10.0, "centroid_y": cells // 250 * 10.0,
            }
        )  # fmt: skip
        if schema is None:
            schema = batch.schema
            writer = pa.ipc.new_stream(str(file), schema)
        writer.write_table(batch, max_chunksize=1000)
    writer.close()
    del lists, names, batch, counts
    pa.default_memory_pool().release_unused()
    size = file.stat().st_size
    before, seen, add = psutil.Process().memory_info().rss, [], Cells.add

    def watched(self, batch, shard):
        add(self, batch, shard)
        seen.append(psutil.Process().memory_info().rss)

    monkeypatch.setattr(Cells, "add", watched)
    slide = read_counts(tmp_path, min_transcripts=1)
    peak = max(seen) - before
    held = slide.X.data.nbytes + slide.X.indices.nbytes + n * 400
    assert slide.n_obs == n
    assert size > 2 * (held + (64 << 20)), "else it says nothing"
    assert peak < held + (64 << 20), f"{peak / 2**20:.0f} MB for a shard of {size / 2**20:.0f} MB"
