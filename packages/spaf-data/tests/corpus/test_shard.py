import errno
import tarfile
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import pytest

from spaf_data.corpus import write_corpus
from spaf_data.corpus.files import whole_file
from spaf_data.corpus.shard import is_safe_name, safe_name


@pytest.mark.parametrize("name", ["", "..", "a/b", "a.b", "a\\b", "ä", "a" * 91, "-\n"])
def test_names_that_could_lead_elsewhere_are_not_safe(name: str) -> None:
    assert not is_safe_name(name)


def test_a_safe_name_is_safe_and_unique() -> None:
    assert safe_name("Breast_1-a") == "Breast_1-a"
    names: list[str] = []
    for slide in ["../etc", "Rep 1", "Rep/1", "rep_1", "REP_1", "x" * 200, "x" * 201, "", "ä"]:
        names.append(safe_name(slide, names))
    assert len({name.lower() for name in names}) == len(names)
    assert all(is_safe_name(f"{name}-validation-0000000") for name in names)


def test_members_have_no_time_and_no_owner(tmp_path: Path, make_slide: Callable[..., ad.AnnData]) -> None:
    corpus = write_corpus([make_slide(n_cells=100)], tmp_path / "corpus", block_cells=20)
    for shard in corpus.manifest.shards:
        with tarfile.open(tmp_path / "corpus" / shard.name) as archive:
            for member, ref in zip(archive.getmembers(), shard.blocks, strict=True):
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                assert (member.offset_data, member.size) == (ref.offset, ref.size)


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def fill_the_disk() -> None:
        with whole_file(path) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill_the_disk()
    assert list(tmp_path.iterdir()) == []
    with whole_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]
