import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import psutil
import pytest
from scipy.spatial import cKDTree

from spaf_data import (
    BuildOptions,
    Corpus,
    InputError,
    SlideSource,
    build,
    build_corpus,
    claim,
    colocalize,
    gene_pair_table,
    read_transcripts,
    simulate_bundle,
    write_corpus,
)


@pytest.fixture(scope="module")
def built(bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "out"
    record = build_corpus([SlideSource(path=bundle, slide="s1", tissue="Skin", condition="Healthy")], out)
    return out, record


def contents(folder):
    """Return the bytes of the files of a build; of slides what HDF5 is given, for it may leave gaps unset."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "build.json")
    return {
        str(file.relative_to(folder)): h5_contents(file) if file.suffix == ".h5ad" else file.read_bytes()
        for file in files
    }


def h5_contents(file):
    found = {}

    def visit(name, item):
        values = np.asarray(item[()]).tolist() if isinstance(item, h5py.Dataset) else None
        found[name] = (values, {key: str(value) for key, value in item.attrs.items()})

    with h5py.File(file) as store:
        store.visititems(visit)
    return str(found)  # in which NaN equals NaN


def test_slide_has_what_the_contract_says(built):
    out, _ = built
    adata = anndata.read_h5ad(out / "slides" / "s1.h5ad")
    columns = ["slide", "tissue", "condition", "species", "assay", "split", "n_transcripts", "nucleus_fraction", "area"]
    assert set(columns) == set(adata.obs.columns)
    assert adata.obs["tissue"].unique().tolist() == ["Skin"]
    assert isinstance(adata.obs["split"].dtype, pd.CategoricalDtype)
    assert set(adata.obsm) == {"spatial", "colocalization"}
    assert set(adata.obsp) == {"spatial_connectivities", "spatial_distances"}
    assert adata.obsm["colocalization"].shape == (adata.n_obs, len(adata.uns["colocalization"]["pairs"]))
    assert {"versions", "parameters", "account"} <= set(adata.uns["spaf"])
    assert adata.uns["spaf"]["parameters"]["gap"] == 60.0


def test_corpus_holds_what_is_enriched_in_single_cells_where_that_is_asked_for(bundle, tmp_path):
    source = SlideSource(path=bundle, slide="s1")
    build_corpus([source], tmp_path / "out", options=BuildOptions(colocalization_method="enrichment"))
    adata = anndata.read_h5ad(tmp_path / "out" / "slides" / "s1.h5ad")
    assert set(adata.obsm) == {"spatial", "colocalization"}
    assert adata.uns["colocalization"]["method"] == "enriched"
    assert set(adata.uns["colocalization"]["parameters"]) >= {"radius", "min_z"}
    scored = adata.copy()
    colocalize(scored, read_transcripts(bundle), method="enrichment", key_added="scores")
    z = gene_pair_table(scored, key="scores")
    enriched = gene_pair_table(adata)
    assert 0 < enriched.X.nnz == (z.X > 2).sum()
    assert (z[:, enriched.var_names].X > 2).nnz == enriched.X.nnz
    corpus = Corpus(tmp_path / "out" / "corpus")
    assert sum(len(corpus.read(ref).colocalized) for ref in corpus.block_refs()) > 0
    with pytest.raises(InputError, match="colocalization_method is 'louvain'; the choices are communities, enrichment"):
        BuildOptions(colocalization_method="louvain")


def test_no_validation_cell_is_near_a_training_cell(built):
    adata = anndata.read_h5ad(built[0] / "slides" / "s1.h5ad")
    place = {split: adata.obsm["spatial"][adata.obs["split"] == split] for split in ("train", "validation")}
    assert min(len(cells) for cells in place.values()) > 50
    nearest, _ = cKDTree(place["train"]).query(place["validation"])
    assert nearest.min() > 60.0


def test_record_agrees_with_the_files(built):
    out, record = built
    assert json.loads((out / "build.json").read_text()) == record
    assert {"command", "versions", "parameters", "seconds", "peak_rss_mb"} <= set(record)
    adata = anndata.read_h5ad(out / "slides" / "s1.h5ad")
    corpus = Corpus(out / "corpus")
    corpus.verify()
    (slide,) = record["slides"]
    assert record["n_cells"] == slide["n_cells"] == adata.n_obs
    assert record["n_transcripts"] == adata.X.sum() == slide["account"]["binned"]
    assert record["n_genes"] == len(corpus.genes)
    assert record["n_gene_pairs"] == adata.obsm["colocalization"].shape[1]
    assert slide["split"] == adata.obs["split"].value_counts().to_dict()
    assert sum(ref.n_owned for ref in corpus.block_refs()) == slide["split"]["train"] + slide["split"]["validation"]


def test_two_slides_and_twice_the_same(bundle, tmp_path):
    other = simulate_bundle(tmp_path / "other", n_cells=300, n_genes=50, seed=9)
    sources = [SlideSource(path=bundle, slide="one"), SlideSource(path=other, slide="two")]
    record = build_corpus(sources, tmp_path / "a")
    build_corpus(sources, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert record["n_genes"] == 50
    assert record["n_cells"] == sum(slide["n_cells"] for slide in record["slides"])
    shared = max(slide["n_gene_pairs"] for slide in record["slides"])
    assert shared <= record["n_gene_pairs"] < sum(slide["n_gene_pairs"] for slide in record["slides"])
    assert set(Corpus(tmp_path / "a" / "corpus").slides) == {"one", "two"}


def test_killed_build_is_taken_up_again(bundle, tmp_path):
    # The second slide never ends, so the process is killed between the first and the third.
    program = """
import sys, time
from pathlib import Path
from spaf_data import SlideSource, build_corpus
sources = [SlideSource(path=Path(sys.argv[1]), slide=f"s{i}") for i in range(3)]
build_corpus(sources, sys.argv[2], progress=lambda slide, *_: time.sleep(600 if slide == "s1" else 0))
"""
    sources = [SlideSource(path=bundle, slide=f"s{i}") for i in range(3)]
    build_corpus(sources, tmp_path / "whole")
    process = subprocess.Popen([sys.executable, "-c", program, str(bundle), str(tmp_path / "killed")])
    unfinished = tmp_path / ".killed.unfinished"
    first = unfinished / "slides" / "s0.json"
    deadline = time.monotonic() + 120
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.exists()
    assert not (tmp_path / "killed").exists()
    steps = []
    build_corpus(sources, tmp_path / "killed", progress=lambda slide, step, fraction: steps.append((slide, step)))
    assert ("s0", "reading transcripts") not in steps
    assert ("s2", "reading transcripts") in steps
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not unfinished.exists()


def test_leftovers_of_another_plan_are_not_used(bundle, tmp_path, monkeypatch):
    source = SlideSource(path=bundle, slide="s")

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "write_corpus", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build_corpus([source], tmp_path / "out")
    assert (tmp_path / ".out.unfinished" / "slides" / "s.json").exists()
    record = build_corpus([source], tmp_path / "out", BuildOptions(min_transcripts=100))
    assert record["slides"][0]["account"]["in_small_cells"] > 0
    adata = anndata.read_h5ad(tmp_path / "out" / "slides" / "s.h5ad")
    assert adata.obs["n_transcripts"].min() >= 100


def disk_is_full(*arguments, **options):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "step",
    ["spaf_data._build_slide.read_transcripts", "spaf_data._build_slide.colocalize", "anndata.AnnData.write_h5ad"],
)
def test_failure_leaves_nothing(bundle, tmp_path, monkeypatch, step):
    monkeypatch.setattr(step, disk_is_full)
    with pytest.raises(OSError, match="No space"):
        build_corpus([SlideSource(path=bundle, slide="s")], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_disk_full_in_the_corpus_keeps_finished_slides(bundle, tmp_path, monkeypatch):
    sources = [SlideSource(path=bundle, slide=name) for name in "ab"]
    with monkeypatch.context() as patch:
        patch.setattr("spaf_data.corpus.shard.tarfile.TarFile.addfile", disk_is_full)
        with pytest.raises(OSError, match="No space") as caught:
            build_corpus(sources, tmp_path / "out")
    assert "takes up 2 finished slides" in caught.value.__notes__[0]
    assert [file.name for file in tmp_path.iterdir()] == [".out.unfinished"]
    assert not list(tmp_path.rglob("*.tar"))
    monkeypatch.setattr("spaf_data._build_slide.read_transcripts", lambda *arguments, **options: 1 / 0)
    build_corpus(sources, tmp_path / "out")
    Corpus(tmp_path / "out" / "corpus").verify()
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_build_killed_at_its_very_end(bundle, tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    sources = [SlideSource(path=bundle, slide=name) for name in "ab"]
    build_corpus(sources[:1], tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(build, "run_record", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build_corpus(sources, tmp_path / "out")
    assert (tmp_path / ".out.unfinished" / "corpus" / "manifest.json").exists()
    # The second slide is no longer wanted.
    build_corpus(sources[:1], tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("where", [{"jobs": 2}, {"scheduler": True}])
def test_where_slides_are_built_changes_nothing(bundle, tmp_path, scheduler, where):
    other = simulate_bundle(tmp_path / "other", n_cells=300, n_genes=50, seed=9)
    sources = [SlideSource(path=bundle, slide="one"), SlideSource(path=other, slide="two", split="validation")]
    record = build_corpus(sources, tmp_path / "here")
    if "scheduler" in where:
        where = {"scheduler": scheduler}
    elsewhere = build_corpus(sources, tmp_path / "elsewhere", **where)
    assert contents(tmp_path / "here") == contents(tmp_path / "elsewhere")
    assert [slide["slide"] for slide in elsewhere["slides"]] == ["one", "two"]
    second = record["slides"][1]
    assert second["split"] == {"train": 0, "validation": second["n_cells"], "gap": 0}
    assert elsewhere["peak_rss_mb"] >= max(slide["peak_rss_mb"] for slide in elsewhere["slides"]) > 50


@pytest.mark.parametrize("jobs", [1, 2])
def test_failed_slide_does_not_lose_the_others(bundle, table, write_table, tmp_path, jobs):
    damaged = write_table(table)
    (damaged / "transcripts.parquet").write_bytes(b"PAR1")
    small = write_table(table.head(40))
    sources = [
        SlideSource(path=path, slide=name)
        for path, name in [(damaged, "d"), (bundle, "a"), (small, "s"), (bundle, "b")]
    ]
    steps = []
    record = build_corpus(
        sources, tmp_path / "out", jobs=jobs, progress=lambda slide, step, fraction: steps.append((slide, step))
    )
    assert [slide["slide"] for slide in record["slides"]] == ["a", "b"]
    assert [failure["slide"] for failure in record["failed"]] == ["d", "s"]
    assert "transcripts.parquet cannot be read" in record["failed"][0]["reason"]
    assert "no cell has 30 transcripts" in record["failed"][1]["reason"]
    assert json.loads((tmp_path / "out" / "build.json").read_text())["failed"] == record["failed"]
    assert set(Corpus(tmp_path / "out" / "corpus").slides) == {"a", "b"}
    assert {file.name for file in (tmp_path / "out" / "slides").iterdir()} == {"a.h5ad", "b.h5ad"}
    assert ("d", "failed") in steps
    assert ("b", "done") in steps


def test_no_slide_can_be_built(bundle, tmp_path):
    sources = [SlideSource(path=bundle, slide=name) for name in "ab"]
    with pytest.raises(InputError, match="none of the 2 slides can be built: a, b: no cell has 9999"):
        build_corpus(sources, tmp_path / "out", BuildOptions(min_transcripts=9999))
    assert not list(tmp_path.iterdir())


def test_killed_build_of_many_processes_is_taken_up_again(bundle, tmp_path):
    program = """
import sys
from pathlib import Path
from spaf_data import SlideSource, build_corpus
if __name__ == "__main__":
    sources = [SlideSource(path=Path(sys.argv[1]), slide=f"s{i}") for i in range(8)]
    build_corpus(sources, sys.argv[2], jobs=2)
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(bundle), str(tmp_path / "killed")])
    slides = tmp_path / ".killed.unfinished" / "slides"
    deadline = time.monotonic() + 120
    while not list(slides.glob("s*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert children
    assert not alive
    finished = {file.stem: (slides / f"{file.stem}.h5ad").stat().st_mtime_ns for file in slides.glob("s*.json")}
    assert 1 <= len(finished) < 8
    sources = [SlideSource(path=bundle, slide=f"s{i}") for i in range(8)]
    build_corpus(sources, tmp_path / "killed")
    build_corpus(sources, tmp_path / "whole")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    for name, written in finished.items():
        assert (tmp_path / "killed" / "slides" / f"{name}.h5ad").stat().st_mtime_ns == written


def test_out_that_is_taken(built, bundle, tmp_path):
    sources = [SlideSource(path=bundle, slide="s")]
    (tmp_path / "mine").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="is not empty and not a build"):
            build_corpus(sources, tmp_path, overwrite=overwrite)
    assert (tmp_path / "mine").read_text() == "x"
    with pytest.raises(InputError, match="holds a build already; replace it with --overwrite"):
        build_corpus(sources, built[0])


def test_overwrite_replaces_a_build_only_when_the_new_one_is_done(bundle, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    build_corpus([SlideSource(path=bundle, slide="old")], out)
    with monkeypatch.context() as patch:
        patch.setattr(build, "write_corpus", lambda *arguments, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_corpus([SlideSource(path=bundle, slide="new")], out, overwrite=True)
    assert (out / "slides" / "old.h5ad").exists()
    build_corpus([SlideSource(path=bundle, slide="new")], out, overwrite=True)
    assert [file.name for file in (out / "slides").iterdir()] == ["new.h5ad"]
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_slides_have_names_of_their_own(bundle, tmp_path):
    with pytest.raises(InputError, match="two bundles are named 's'"):
        build_corpus([SlideSource(path=bundle, slide="s")] * 2, tmp_path / "out")
    with pytest.raises(InputError, match="no slide"):
        build_corpus([], tmp_path / "out")


def test_jobs_and_splits_that_cannot_be(bundle, tmp_path):
    with pytest.raises(InputError, match="jobs must be at least 1"):
        build_corpus([SlideSource(path=bundle, slide="s")], tmp_path / "out", jobs=0)
    with pytest.raises(InputError, match="slide s: split is 'test'"):
        SlideSource(path=bundle, slide="s", split="test")


def test_two_builds_into_one_folder_do_not_meet(bundle, tmp_path):
    source = SlideSource(path=bundle, slide="s")
    seen = []

    def second(slide, step, fraction):
        if not seen:
            with pytest.raises(InputError, match=rf"being written by spaf-data build \(process {os.getpid()} on "):
                build_corpus([source], tmp_path / "out", overwrite=True)
            seen.append(step)

    build_corpus([source], tmp_path / "out", progress=second)
    assert seen
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out"]
    with (
        claim(tmp_path / "corpus", "another build"),
        pytest.raises(InputError, match="corpus is being written by another build"),
    ):
        write_corpus([tmp_path / "out" / "slides" / "s.h5ad"], tmp_path / "corpus")


def test_a_build_interrupted_while_it_is_put_in_place_loses_no_build(bundle, tmp_path, monkeypatch):
    source = SlideSource(path=bundle, slide="s")
    build_corpus([source], tmp_path / "out", BuildOptions(min_transcripts=40))
    before = contents(tmp_path / "out")
    rename = os.replace

    def interrupted(old, new):
        if Path(new) == tmp_path / "out":
            raise KeyboardInterrupt
        rename(old, new)

    with monkeypatch.context() as patched:
        patched.setattr("spaf_data.folders.os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_corpus([source], tmp_path / "out", overwrite=True)
    # As after a kill: not even the way back was open. The finished new one waits beside it.
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="holds a build already"):
        build_corpus([source], tmp_path / "out")
    assert contents(tmp_path / "out") == before
    build_corpus([source], tmp_path / "out", overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out"]


def test_slide_without_transcripts_beside_one_with(bundle, built, tmp_path):
    table = anndata.read_h5ad(built[0] / "slides" / "s1.h5ad")
    counts = anndata.AnnData(table.X, table.obs[["area"]], table.var, obsm={"spatial": table.obsm["spatial"]})
    counts.write_h5ad(tmp_path / "counts.h5ad")
    sources = [
        SlideSource(path=bundle, slide="imaging"),
        SlideSource(path=tmp_path / "counts.h5ad", slide="counts", assay="MERSCOPE"),
    ]
    record = build_corpus(sources, tmp_path / "out")
    assert [slide["n_gene_pairs"] > 0 for slide in record["slides"]] == [True, False]
    slide = anndata.read_h5ad(tmp_path / "out" / "slides" / "counts.h5ad")
    assert slide.uns["colocalization"]["method"] == "none"
    assert slide.obsm["colocalization"].shape == (slide.n_obs, 0)
    np.testing.assert_array_equal(slide.X.toarray(), table.X.toarray())
    corpus = Corpus(tmp_path / "out" / "corpus")
    corpus.verify()
    joined = {"imaging": 0, "counts": 0}
    for ref in corpus.block_refs():
        joined[ref.slide] += len(corpus.read(ref).colocalized)
    assert joined["imaging"] > 0
    assert joined["counts"] == 0
    n_owned = {name: sum(ref.n_owned for ref in corpus.block_refs() if ref.slide == name) for name in joined}
    assert n_owned["imaging"] == n_owned["counts"], "the same cells"


def slide_of_counts(file, genes, gene_ids=None, **columns):
    rng = np.random.default_rng(0)
    row, column = np.divmod(np.arange(225), 15)
    table = anndata.AnnData(rng.poisson(8, (225, len(genes))).astype(np.float32))
    table.obsm["spatial"] = 12.0 * np.stack([row, column], axis=1) + rng.uniform(-3, 3, (225, 2))
    table.obs_names = [f"c{cell}" for cell in range(225)]
    table.var_names = genes
    if gene_ids is not None:
        table.var["gene_ids"] = gene_ids
    for name, value in columns.items():
        table.obs[name] = value
    table.write_h5ad(file)
    return SlideSource(path=file, slide=file.stem)


def test_slides_without_genes_in_common_are_asked_about_before_the_work(tmp_path):
    symbols = [f"G{number}" for number in range(30)]
    ids = [f"ENSG{number:011d}" for number in range(30)]
    left = slide_of_counts(tmp_path / "left.h5ad", symbols)
    right = slide_of_counts(tmp_path / "right.h5ad", [name.lower() for name in symbols])
    steps = []
    with pytest.raises(InputError, match=r"slide left has genes such as G0, G1, G2 and slide right such as g0, g1, g2"):
        build_corpus([left, right], tmp_path / "out", progress=lambda *step: steps.append(step))
    assert not steps
    record = build_corpus([left, right], tmp_path / "out", BuildOptions(allow_other_genes=True))
    assert record["n_genes"] == 60
    assert record["other_genes"][0].startswith("slide left has genes such as")
    by_id = slide_of_counts(tmp_path / "by_id.h5ad", [*ids[:29], "G29"])
    with pytest.raises(InputError, match=r"slide by_id names 29 of its 30 genes by Ensembl id alone"):
        build_corpus([left, by_id], tmp_path / "two", BuildOptions(allow_other_genes=True))
    bridge = slide_of_counts(tmp_path / "bridge.h5ad", symbols, [f" {one.lower()}.4" for one in ids])
    record = build_corpus([left, by_id, bridge], tmp_path / "three")
    assert record["n_genes"] == 30
    assert record["other_genes"] == record["unclear_genes"] == []
    assert [slide["genes"] for slide in record["slides"]] == [
        {"n_genes_shared": 30, "n_genes_renamed": renamed, "genes_added_up": {}} for renamed in (0, 29, 0)
    ]
    conflict = slide_of_counts(tmp_path / "conflict.h5ad", symbols, ids[::-1])
    with pytest.raises(InputError, match=r"slides disagree about gene 'G0'"):
        build_corpus([bridge, conflict], tmp_path / "four", progress=lambda *step: steps.append(step))
    assert not steps


def test_other_species_and_finished_slides_of_a_build_that_was_refused(bundle, tmp_path):
    other = slide_of_counts(tmp_path / "other.h5ad", list("XYZUVW"))
    sources = [SlideSource(path=bundle, slide="s"), other]
    with pytest.raises(InputError, match=r"slide other such as X, Y, Z.*--allow-other-genes") as refused:
        build_corpus(sources, tmp_path / "out")
    assert "takes up 2 finished slides" in refused.value.__notes__[0]
    built = []
    build_corpus(
        sources,
        tmp_path / "out",
        BuildOptions(allow_other_genes=True),
        progress=lambda slide, step, fraction: built.append(step) if step.startswith("reading") else None,
    )
    assert not built, "the slides are those of before"
    human = slide_of_counts(tmp_path / "human.h5ad", list("ABCDEFGH"), species="Human")
    mouse = slide_of_counts(tmp_path / "mouse.h5ad", list("abcdefgh"), species="Mouse")
    assert len(build_corpus([human, mouse], tmp_path / "species")["other_genes"]) == 1
