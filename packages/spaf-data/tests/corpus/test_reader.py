import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from spaf_data import Distances, InputError
from spaf_data.corpus import Corpus, write_corpus
from spaf_data.corpus import manifest as manifest_module


@pytest.fixture
def corpus(tmp_path: Path, make_slide: Callable[..., ad.AnnData]) -> Corpus:
    return write_corpus([make_slide("a", 120), make_slide("b", 60, seed=1)], tmp_path / "corpus", block_cells=32)


def test_refs_describe_their_blocks(corpus: Corpus) -> None:
    refs = corpus.block_refs()
    assert corpus.splits == ["train", "validation"]
    assert sorted(corpus.block_refs("train") + corpus.block_refs("validation"), key=refs.index) == refs
    for ref in refs:
        block = corpus.read(ref)
        assert (block.key, block.n_cells, block.n_pairs) == (ref.key, ref.n_cells, ref.n_pairs)
    with pytest.raises(InputError, match="it has: train, validation"):
        corpus.block_refs("test")


def test_a_corpus_can_be_sent_to_another_process(corpus: Corpus) -> None:
    copy = pickle.loads(pickle.dumps(corpus))  # noqa: S301
    ref = corpus.block_refs()[3]
    np.testing.assert_array_equal(copy.read(ref).counts, corpus.read(ref).counts)


def test_verify_finds_any_flipped_byte_and_names_the_shard(corpus: Corpus) -> None:
    corpus.verify()
    rng = np.random.default_rng(0)
    for shard in corpus.manifest.shards:
        path = corpus.path / shard.name
        good = path.read_bytes()
        for place in [0, 156, len(good) - 1, *rng.integers(0, len(good), 10).tolist()]:
            path.write_bytes(good[:place] + bytes([good[place] ^ 1 << int(rng.integers(8))]) + good[place + 1 :])
            with pytest.raises(InputError, match=shard.name):
                corpus.verify()
        path.write_bytes(good)
    corpus.verify()


def test_a_damaged_block_is_found_when_it_is_read(corpus: Corpus) -> None:
    ref = corpus.block_refs()[1]
    path = corpus.path / ref.shard
    data = bytearray(path.read_bytes())
    data[ref.offset + ref.size // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{ref.key} in shard {ref.shard} is damaged"):
        corpus.read(ref)
    corpus.read(corpus.block_refs()[0])


def test_a_member_that_leads_elsewhere_is_refused(corpus: Corpus) -> None:
    ref = corpus.block_refs()[0]
    path = corpus.path / ref.shard
    with tarfile.open(path) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    members[0][0].name = "../" + "x" * (len(members[0][0].name) - 3)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(InputError, match=r"holds a member '\.\./"):
        corpus.read(ref)
    # Even if the manifest was changed to fit the bytes.
    shard = replace(corpus.manifest.shards[0], sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    corpus.manifest = replace(corpus.manifest, shards=(shard, *corpus.manifest.shards[1:]))
    with pytest.raises(InputError, match=rf"{shard.name} holds '\.\./"):
        corpus.verify()


def test_a_missing_or_short_shard_is_named(corpus: Corpus) -> None:
    name = corpus.manifest.shards[-1].name
    path = corpus.path / name
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(InputError, match=name):
        Corpus(corpus.path)
    path.unlink()
    with pytest.raises(InputError, match=f"lacks the shard {name}"):
        Corpus(corpus.path)


def test_bad_shards_are_listed_and_the_others_can_be_read(corpus: Corpus) -> None:
    assert corpus.bad_shards() == {}
    cut, flipped, good = (shard.name for shard in corpus.manifest.shards[:3])
    (corpus.path / cut).write_bytes((corpus.path / cut).read_bytes()[:-512])
    data = bytearray((corpus.path / flipped).read_bytes())
    data[700] ^= 1
    (corpus.path / flipped).write_bytes(data)
    opened = Corpus(corpus.path, check=False)
    bad = opened.bad_shards()
    assert list(bad) == [cut, flipped]
    assert "bytes, but the manifest says" in bad[cut]
    assert "SHA-256" in bad[flipped]
    for ref in opened.block_refs():
        if ref.shard == good:
            opened.read(ref)
    (corpus.path / cut).unlink()
    assert f"lacks the shard {cut}" in opened.bad_shards()[cut]


def rewrite(corpus: Corpus, change: Callable[[dict], None], *, fit_checksum: bool = True) -> None:
    path = corpus.path / "manifest.json"
    contents = json.loads(path.read_text())
    del contents["checksum"]
    good = manifest_module._checksum(contents)
    change(contents)
    contents["checksum"] = manifest_module._checksum(contents) if fit_checksum else good
    path.write_text(json.dumps(contents))


def test_a_newer_format_version_says_so(corpus: Corpus) -> None:
    rewrite(corpus, lambda contents: contents.update(format_version=2))
    with pytest.raises(InputError, match="format version 2.*install a newer one"):
        Corpus(corpus.path)


def test_a_changed_manifest_is_found(corpus: Corpus) -> None:
    rewrite(corpus, lambda contents: contents["genes"]["symbol"].reverse(), fit_checksum=False)
    with pytest.raises(InputError, match="checksum"):
        Corpus(corpus.path)


@pytest.mark.parametrize("name", ["../secret.tar", "/etc/passwd", "a/b.tar", "a.txt"])
def test_a_manifest_cannot_name_files_elsewhere(corpus: Corpus, name: str) -> None:
    rewrite(corpus, lambda contents: contents["shards"][0].update(name=name))
    with pytest.raises(InputError, match="not a name that a corpus uses"):
        Corpus(corpus.path)


def test_no_manifest_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json"):
        Corpus(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "spaf-')
    with pytest.raises(InputError, match="not valid JSON"):
        Corpus(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(InputError, match="not the manifest"):
        Corpus(tmp_path)


def test_distances_are_stored_and_manifests_without_them_read_with_those_of_before(corpus: Corpus) -> None:
    assert corpus.distances == Distances()

    def forget(contents: dict) -> None:
        assert contents.pop("distances") == {"positive": 30.0, "hard_min": 80.0, "hard_max": 150.0, "easy_min": 150.0}

    rewrite(corpus, forget)
    assert Corpus(corpus.path).distances == Distances()
