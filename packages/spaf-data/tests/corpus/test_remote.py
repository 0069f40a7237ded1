import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import anndata as ad
import numpy as np
import pytest

from spaf_data import InputError
from spaf_data.corpus import Corpus, decode_block, stream_blocks, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, make_slide: Callable[..., ad.AnnData]) -> Corpus:
    path = tmp_path_factory.mktemp("remote") / "corpus"
    return write_corpus([make_slide(n_cells=100)], path, block_cells=16, shard_blocks=2)


def check_same(corpus: Corpus, urls: str | list[str]) -> None:
    expected = [corpus.read(ref) for ref in corpus.block_refs("train")]
    found = list(stream_blocks(urls))
    assert [block.key for block in found] == [block.key for block in expected]
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left.counts, right.counts)
        np.testing.assert_array_equal(left.positive_pairs, right.positive_pairs)


def train_shards(corpus: Corpus) -> list[str]:
    return [shard.name for shard in corpus.manifest.shards if shard.split == "train"]


def test_blocks_stream_from_files_and_pipes(corpus: Corpus) -> None:
    paths = [str(corpus.path / name) for name in train_shards(corpus)]
    assert len(paths) > 1
    check_same(corpus, paths)
    check_same(corpus, [f"pipe:cat '{path}'" for path in paths])


def test_webdataset_sees_one_sample_a_block(corpus: Corpus) -> None:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    name = train_shards(corpus)[0]
    with (corpus.path / name).open("rb") as stream:
        samples = list(group_by_keys(tar_file_expander([{"url": name, "stream": stream}])))
    refs = [ref for ref in corpus.block_refs() if ref.shard == name]
    assert [sample["__key__"] for sample in samples] == [ref.key for ref in refs]
    assert decode_block(samples[0]["block"]).cell_ids.tolist() == corpus.read(refs[0]).cell_ids.tolist()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_blocks_stream_over_http(corpus: Corpus) -> None:
    with served(corpus.path) as address:
        check_same(corpus, f"{address}/slide-train-{{00000..{len(train_shards(corpus)) - 1:05d}}}.tar")


def test_a_foreign_member_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("no block")
    for name in ("../evil.block", "x.txt"):
        with tarfile.open(tmp_path / "shard.tar", "w") as archive:
            archive.add(tmp_path / "x.txt", arcname=name)
        with pytest.raises(InputError, match="no block"):
            list(stream_blocks(str(tmp_path / "shard.tar")))


def test_the_corpus_is_read_without_webdataset() -> None:
    code = "import sys, spaf_data.corpus; sys.exit('webdataset' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
