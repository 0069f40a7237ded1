import errno
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from spaf_data import Distances, InputError
from spaf_data.corpus import Corpus, write_corpus
from spaf_data.pairs import positive_pairs

MakeSlide = Callable[..., ad.AnnData]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n_cells=st.integers(20, 150), block_cells=st.integers(5, 200), seed=st.integers(0, 100))
def test_a_corpus_holds_its_slide_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, make_slide: MakeSlide, n_cells: int, block_cells: int, seed: int
) -> None:
    adata = make_slide(n_cells=n_cells, seed=seed)
    path = tmp_path_factory.mktemp("property") / "corpus"
    corpus = write_corpus([adata], path, block_cells=block_cells, shard_blocks=3, positive_radius=25.0)
    assert corpus.genes == adata.var_names.tolist()
    dense = pd.DataFrame(adata.X.toarray(), index=adata.obs_names, columns=adata.var_names)
    gene_pairs = adata.uns["colocalization"]["pairs"]
    colocalized = adata.obsm["colocalization"].toarray()
    row_of = {name: row for row, name in enumerate(adata.obs_names)}

    owned: list[str] = []
    pairs: list[tuple[str, str]] = []
    for ref in corpus.block_refs():
        block = corpus.read(ref)
        owned += block.cell_ids[: block.n_owned].tolist()
        pairs += [tuple(sorted(block.cell_ids[pair])) for pair in block.positive_pairs]
        for cell, name in enumerate(block.cell_ids):
            row = row_of[name]
            assert adata.obs["split"].iloc[row] == block.split
            np.testing.assert_array_equal(block.coordinates[cell], adata.obsm["spatial"][row].astype(np.float32))
            entries = slice(block.indptr[cell], block.indptr[cell + 1])
            counts = dict(zip(block.genes[entries].tolist(), block.counts[entries].tolist(), strict=True))
            expected = dense.loc[name]
            assert counts == {corpus.genes.index(g): c for g, c in expected[expected > 0].items()}
            edges = block.colocalized[block.colocalized_indptr[cell] : block.colocalized_indptr[cell + 1]]
            assert (edges[:, 0] < edges[:, 1]).all()
            names = {frozenset(np.array(corpus.genes)[edge].tolist()) for edge in edges}
            assert len(names) == len(edges)
            assert names == {frozenset(pair) for pair in gene_pairs[colocalized[row] > 0].to_numpy().tolist()}

    kept = adata[adata.obs["split"] != "gap"]
    assert sorted(owned) == sorted(kept.obs_names)
    expected_pairs = kept.obs_names.to_numpy(dtype=str)[
        positive_pairs(kept.obsm["spatial"].astype(np.float32), radius=25.0)
    ]
    assert sorted(pairs) == sorted(tuple(sorted(pair)) for pair in expected_pairs.tolist())
    assert corpus.manifest.totals()["all"]["pairs"] == len(pairs)


def test_bytes_do_not_depend_on_rows_or_files(tmp_path: Path, make_slide: MakeSlide) -> None:
    adata = make_slide("Rep 1/α", n_cells=200)
    shuffled = adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()
    shuffled.X = shuffled.X.astype(np.float32)
    shuffled.write_h5ad(tmp_path / "slide.h5ad")
    write_corpus([adata], tmp_path / "one", block_cells=40)
    write_corpus([tmp_path / "slide.h5ad"], tmp_path / "two", block_cells=40)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert {name.split("-")[0] for name in contents(tmp_path / "one")} == {"Rep_1_", "manifest.json"}


def test_genes_of_slides_are_joined_by_name(tmp_path: Path, make_slide: MakeSlide) -> None:
    first = make_slide("first", 60, genes=["B", "A", "C", "D"])
    second = make_slide("second", 40, genes=["D", "E", "A", "NA"], split="validation")
    first.var["gene_ids"] = ["ENSB", "ENSA", "ENSC", "ENSD"]
    second.obs["tissue"] = "Lung"
    corpus = write_corpus([first, second], tmp_path / "corpus")
    assert corpus.genes == ["B", "A", "C", "D", "E", "NA"]
    assert corpus.gene_ids == ["ENSB", "ENSA", "ENSC", "ENSD", "", ""]
    assert corpus.slides["second"] == {"tissue": "Lung", "condition": "Disease", "species": "Human", "assay": "Xenium"}
    (ref,) = [ref for ref in corpus.block_refs() if ref.slide == "second"]
    block = corpus.read(ref)
    gene_d = block.counts[block.genes == corpus.genes.index("D")].sum()
    assert gene_d == second[:, "D"].X.sum()

    second.var["gene_ids"] = ["ENSD", "ENSE", "OTHER", ""]
    with pytest.raises(InputError, match="'A'.*ENSA in slide first and OTHER in slide second"):
        write_corpus([first, second], tmp_path / "other")


def test_gene_statistics_are_of_the_training_split(tmp_path: Path, make_slide: MakeSlide) -> None:
    slides = [make_slide("a", 100), make_slide("b", 100, seed=1), make_slide("c", 100, seed=2, split="validation")]
    first = slides[0].X.toarray()
    first[:, 0] = 0
    slides[0].X = sparse.csr_matrix(first)
    statistics = Corpus(write_corpus(slides, tmp_path / "corpus").path).gene_statistics
    train = np.concatenate([s.X.toarray()[(s.obs["split"] == "train").to_numpy()] for s in slides[:2]])
    for gene, column in enumerate(train.T):
        row = statistics.loc[f"G{gene}"]
        seen = column[column > 0]
        assert (row["n_cells"], row["n_slides"]) == (len(seen), 1 if gene == 0 else 2)
        assert row["nonzero_mean"] == pytest.approx(seen.mean(), rel=1e-14)
        assert row["nonzero_median"] == np.median(seen)
    assert statistics.dtypes.astype(str).tolist() == ["int64", "int64", "float64", "float64"]


def test_a_slide_without_gene_pairs_is_not_one_without_colocalization(tmp_path: Path, make_slide: MakeSlide) -> None:
    known = write_corpus([make_slide()], tmp_path / "known")
    (slide,) = known.slides
    unknown = write_corpus([make_slide()], tmp_path / "unknown", colocalization_key=None)
    assert known.knows_gene_pairs(slide)
    assert not unknown.knows_gene_pairs(slide)


def test_colocalization_is_thresholded_or_left_out(tmp_path: Path, make_slide: MakeSlide) -> None:
    adata = make_slide(n_cells=50, split="train")
    adata.obsm["colocalization"] = adata.obsm["colocalization"].astype(np.float32) * 1.5
    adata.obsm["colocalization"].data[::2] = -3.0
    n_edges = []
    for number, (key, minimum) in enumerate([("colocalization", 0.0), ("colocalization", 2.0), (None, 0.0)]):
        corpus = write_corpus([adata], tmp_path / str(number), colocalization_key=key, min_colocalization=minimum)
        n_edges.append(sum(len(corpus.read(ref).colocalized) for ref in corpus.block_refs()))
    assert n_edges == [(adata.obsm["colocalization"].data > 0).sum(), 0, 0]
    del adata.obsm["colocalization"]
    with pytest.raises(InputError, match="co-localised gene pairs are missing"):
        write_corpus([adata], tmp_path / "missing")


def _set(adata: ad.AnnData, place: tuple[int, int], value: float) -> None:
    matrix = adata.X.astype(np.float32).tolil()
    matrix[place] = value
    adata.X = matrix.tocsr()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a.obs.drop(columns="tissue", inplace=True), "no obs column 'tissue'"),
        (lambda a: a.obs.drop(columns="split", inplace=True), "no obs column 'split'; it has: slide"),
        (lambda a: a.obs.__setitem__("assay", ["X"] * 30 + ["Y"] * 30), "one value in obs column 'assay', not 2"),
        (lambda a: a.obs.__setitem__("split", "in between"), "split 'in between'"),
        (lambda a: a.obs.__setitem__("split", "gap"), "nothing to write"),
        (lambda a: a.obs.__setitem__("split", ["train", "validation"] * 30), "are in two splits"),
        (lambda a: a.obsm.__delitem__("spatial"), "no obsm 'spatial'"),
        (lambda a: a.obsm["spatial"].__setitem__((3, 0), np.nan), "cell 3 are not finite"),
        (lambda a: _set(a, (5, 2), -1), r"has -1\.0 of gene 'G2'"),
        (lambda a: _set(a, (5, 2), 0.5), r"has 0\.5 of gene 'G2'"),
        (lambda a: _set(a, (5, 2), np.nan), "has nan of gene 'G2'"),
        (lambda a: _set(a, (5, 2), 1e12), r"has 1e\+12 of gene 'G2'|has 999999995904.0 of gene 'G2'"),
        (lambda a: setattr(a, "obs_names", ["x", "x", *a.obs_names[2:]]), "two cells named 'x'"),
        (lambda a: setattr(a, "var_names", ["x", "x", *a.var_names[2:]]), "two genes named 'x'"),
        (lambda a: a.uns["colocalization"].update(pairs=a.uns["colocalization"]["pairs"][:5]), "names 5 gene pairs"),
        (lambda a: a.uns["colocalization"]["pairs"].__setitem__("gene_a", "??"), "'\\?\\?', which the slide does not"),
        (lambda a: a.uns["colocalization"]["pairs"].__setitem__("gene_a", "G1"), "twice, or a gene with itself"),
    ],
)
# AnnData itself warns when names are repeated, and that is the point here.
@pytest.mark.filterwarnings("ignore:.*names are not unique:UserWarning")
def test_bad_slides_are_told_in_one_sentence(
    tmp_path: Path, make_slide: MakeSlide, spoil: Callable[[ad.AnnData], None], message: str
) -> None:
    adata = make_slide(n_cells=60)
    spoil(adata)
    with pytest.raises(InputError, match=message) as error:
        write_corpus([adata], tmp_path / "corpus")
    assert "\n" not in str(error.value)
    assert [name for name in contents(tmp_path) if not name.startswith("corpus/.journal")] == []


def test_bad_files_and_options_are_told(tmp_path: Path, make_slide: MakeSlide) -> None:
    (tmp_path / "bad.h5ad").write_bytes(b"not HDF5")
    make_slide(n_cells=60).write_h5ad(tmp_path / "good.h5ad")
    (tmp_path / "short.h5ad").write_bytes((tmp_path / "good.h5ad").read_bytes()[:3000])
    for slides, message in [
        ([tmp_path / "none.h5ad"], "there is no slide"),
        ([tmp_path / "bad.h5ad"], r"bad\.h5ad cannot be read"),
        ([tmp_path / "short.h5ad"], r"short\.h5ad cannot be read"),
        ([make_slide(), make_slide()], "two slides are named 'slide'"),
        ([], "nothing to write"),
    ]:
        with pytest.raises(InputError, match=message):
            write_corpus(slides, tmp_path / "corpus")
    for options in ({"block_cells": 0}, {"shard_blocks": 1.5}, {"positive_radius": -1.0}):
        with pytest.raises(InputError, match=next(iter(options)).split("_")[-1]):
            write_corpus([make_slide()], tmp_path / "corpus", **options)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, make_slide: MakeSlide) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        write_corpus([make_slide(n_cells=60)], tmp_path)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_a_finished_corpus_is_replaced_only_on_request(tmp_path: Path, make_slide: MakeSlide) -> None:
    path = tmp_path / "corpus"
    write_corpus([make_slide("a", 60)], path)
    before = contents(path)
    with pytest.raises(InputError, match="finished corpus"):
        write_corpus([make_slide("b", 60)], path)
    assert contents(path) == before
    write_corpus([make_slide("b", 60)], path, overwrite=True)
    assert {name.split("-")[0] for name in contents(path)} == {"b", "manifest.json"}


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, make_slide: MakeSlide, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "corpus", tmp_path / "whole"
    options = {"block_cells": 20, "shard_blocks": 2}
    write_corpus([make_slide()], whole, **options)
    n_members = 0
    add = tarfile.TarFile.addfile

    def fill_the_disk(self: tarfile.TarFile, *args: object) -> None:
        nonlocal n_members
        n_members += 1
        if n_members == 4:  # the second block of the second shard
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "addfile", fill_the_disk)
        with pytest.raises(OSError, match="No space left"):
            write_corpus([make_slide()], path, **options)
    assert sorted(contents(path)) == [".journal/slide-train-00000.tar.json", "slide-train-00000.tar"]
    write_corpus([make_slide()], path, **options)
    assert contents(path) == contents(whole)


_SLOW_BUILD = """
import sys, time
import spaf_data.corpus.shard as shard
from spaf_data.corpus import write_corpus
encode = shard.encode_block
def slowly(block):
    time.sleep(0.05)
    return encode(block)
shard.encode_block = slowly
write_corpus([sys.argv[1]], sys.argv[2], block_cells=10, shard_blocks=4)
"""


def test_a_build_killed_and_resumed_gives_the_same_bytes(tmp_path: Path, make_slide: MakeSlide) -> None:
    make_slide().write_h5ad(tmp_path / "slide.h5ad")
    path, whole = tmp_path / "corpus", tmp_path / "whole"
    write_corpus([tmp_path / "slide.h5ad"], whole, block_cells=10, shard_blocks=4)
    process = subprocess.Popen([sys.executable, "-c", _SLOW_BUILD, tmp_path / "slide.h5ad", path])
    deadline = time.monotonic() + 60
    while not (path / "slide-train-00002.tar.partial").exists():
        assert process.poll() is None, "the build ended before it could be killed"
        assert time.monotonic() < deadline, "the build did not get far enough to be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(InputError, match="no finished corpus"):
        Corpus(path)
    kept = path / "slide-train-00000.tar"
    written = kept.stat().st_mtime_ns
    write_corpus([tmp_path / "slide.h5ad"], path, block_cells=10, shard_blocks=4)
    assert contents(path) == contents(whole)
    assert kept.stat().st_mtime_ns == written


def test_resuming_trusts_neither_other_inputs_nor_damaged_shards(
    tmp_path: Path, make_slide: MakeSlide, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "corpus"

    def stop(self: object, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def unfinished(adata: ad.AnnData, **options: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("spaf_data.corpus.manifest.Manifest.write", stop)
            with pytest.raises(OSError, match="No space left"):
                write_corpus([adata], path, **options)

    unfinished(make_slide(), block_cells=20, shard_blocks=1)
    shard = path / "slide-train-00001.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    unfinished(make_slide(seed=3), block_cells=20, shard_blocks=1)
    (path / "slide-train-00003.tar").write_bytes(b"")
    write_corpus([make_slide(seed=3)], path, block_cells=40)
    write_corpus([make_slide(seed=3)], tmp_path / "whole", block_cells=40)
    assert contents(path) == contents(tmp_path / "whole")


def test_distances_follow_the_radius_or_are_given_and_stored(tmp_path: Path, make_slide: MakeSlide) -> None:
    adata = make_slide(n_cells=60)
    assert write_corpus([adata], tmp_path / "a", positive_radius=25.0).distances == Distances(positive=25.0)
    wide = Distances(positive=25.0, hard_min=40.0, hard_max=60.0, easy_min=90.0)
    corpus = write_corpus([adata], tmp_path / "b", distances=wide)
    assert Corpus(corpus.path).distances == wide
    assert corpus.parameters["positive_radius"] == 25.0
    with pytest.raises(InputError, match="positive_radius is 30 um, but distances has a radius of 25 um"):
        write_corpus([adata], tmp_path / "c", positive_radius=30.0, distances=wide)
