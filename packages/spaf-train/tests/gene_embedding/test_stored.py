import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from spaf_model import InputError
from spaf_train import GeneEmbeddings
from spaf_train.gene_embedding import content_hash


@pytest.fixture
def made() -> GeneEmbeddings:
    genes = pd.DataFrame(
        {
            "gene": ["ACTB", "NA", "1", 'T, "x"'],  # names that a reader of tables may take for something else
            "gene_id": ["ENSG1", "", "", "ENSG4"],
            "n_transcripts": [30, 4, 50, 60],
            "embedded": [True, False, True, True],
        }
    )
    vectors = np.array([[2.0, 1.0], [0.0, 0.0], [1.0, -1.0], [0.5, 0.0]], np.float32)
    return GeneEmbeddings(
        genes=genes, vectors=vectors, weights=np.array([3.0, -1.0], np.float32), record={"method": "m"}
    )


def test_what_is_saved_is_loaded(made, tmp_path):
    made.save(tmp_path / "deep" / "genes")
    found = GeneEmbeddings.load(tmp_path / "deep" / "genes")
    pd.testing.assert_frame_equal(found.genes, made.genes, check_dtype=False)
    np.testing.assert_array_equal(found.vectors, made.vectors)
    np.testing.assert_array_equal(found.weights, made.weights)
    assert (found.record, found.dimensions) == ({"method": "m"}, 2)
    assert found.association()[0, 2] == pytest.approx(2.0 * 1.0 - 1.0 * -1.0)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["genes"]
    modes = {path.stat().st_mode for path in (tmp_path / "deep" / "genes").iterdir()}
    assert len(modes) == 1


def test_the_hash_is_that_of_genes_and_vectors(made, tmp_path):
    made.save(tmp_path / "one")
    made.record["method"] = "other"
    made.save(tmp_path / "two")
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "two")
    made.vectors[0, 0] += 1
    made.save(tmp_path / "two")
    assert content_hash(tmp_path / "one") != content_hash(tmp_path / "two")


def test_only_its_own_kind_is_replaced(made, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    made.save(other)  # empty
    made.save(other)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years")
    (tmp_path / "file").write_text("")
    for name in ("thesis", "file"):
        with pytest.raises(InputError, match=f"{name} exists and is no folder of gene embeddings"):
            made.save(tmp_path / name)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years"


def test_a_write_that_fails_leaves_the_former(made, tmp_path, monkeypatch):
    made.save(tmp_path / "genes")
    before = content_hash(tmp_path / "genes")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spaf_train.gene_embedding.stored.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        made.save(tmp_path / "genes")
    assert content_hash(tmp_path / "genes") == before
    assert [path.name for path in tmp_path.iterdir()] == ["genes"]


def damage(folder, name, change):
    path = folder / name
    path.chmod(0o644)
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        (
            "embeddings.safetensors",
            lambda data: data[: len(data) // 2],
            "embeddings.safetensors is damaged or truncated",
        ),
        ("embeddings.safetensors", lambda data: b"", "embeddings.safetensors is damaged or truncated"),
        (
            "genes.csv",
            lambda data: data.replace(b"gene_id", b"id"),
            "genes.csv has no column 'gene_id'; it has: gene, id",
        ),
        ("genes.csv", lambda data: b"\n".join(data.splitlines()[:-1]), "for the 3 genes of genes.csv"),
        ("genes.csv", lambda data: data.replace(b"NA,", b"ACTB,"), "genes.csv has the gene 'ACTB' twice"),
        ("genes.csv", lambda data: b"", "genes.csv cannot be read as CSV"),
        ("genes.csv", lambda data: b"\xff\xfe" + data, "genes.csv cannot be read as CSV"),
        ("gene_embeddings.json", lambda data: data[:5], "gene_embeddings.json is not valid JSON"),
        ("gene_embeddings.json", lambda data: b"[]", "gene_embeddings.json has no format_version"),
        ("gene_embeddings.json", lambda data: b'{"format_version": 9}', "has format version 9"),
    ],
)
def test_damaged_files_are_named(made, tmp_path, name, change, sentence):
    made.save(tmp_path / "genes")
    damage(tmp_path / "genes", name, change)
    with pytest.raises(InputError, match=sentence):
        GeneEmbeddings.load(tmp_path / "genes")


def test_other_contents_are_named(made, tmp_path):
    folder = tmp_path / "genes"
    made.save(folder)
    for tensors, sentence in [
        ({"vectors": made.vectors}, "has no float32 tensor 'weights'; it has: vectors"),
        ({"vectors": made.vectors.astype(np.float64), "weights": made.weights}, "has no float32 tensor 'vectors'"),
        ({"vectors": made.vectors[0], "weights": made.weights}, r"has vectors of shape \(2,\)"),
        ({"vectors": made.vectors, "weights": made.weights[:1]}, "1 weights, for the 4 genes"),
        ({"vectors": made.vectors + np.float32("nan"), "weights": made.weights}, "holds NaN"),
    ]:
        save_file(tensors, folder / "embeddings.safetensors")
        with pytest.raises(InputError, match=sentence):
            GeneEmbeddings.load(folder)
    (folder / "genes.csv").unlink()
    with pytest.raises(InputError, match="it has no genes.csv"):
        GeneEmbeddings.load(folder)
    with pytest.raises(InputError, match="there is no such folder"):
        GeneEmbeddings.load(tmp_path / "nowhere")


def test_the_record_is_json(made, tmp_path):
    made.save(tmp_path / "genes")
    assert json.loads((tmp_path / "genes" / "gene_embeddings.json").read_text()) == {"format_version": 1, "method": "m"}
