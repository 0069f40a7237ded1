import mmap
import os
import sys

import numpy as np
import pytest

from spaf_data._memory import mapped_array, release, return_freed
from spaf_data.transcripts import cell_ranges


def resident_pages_of_files():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[2])


def test_released_columns_keep_their_contents(tmp_path):
    column = mapped_array(1000, np.int32)
    column[:] = np.arange(1000)
    own = np.arange(10)
    np.memmap(tmp_path / "file", np.int32, "w+", shape=(1000,))
    changed = np.memmap(tmp_path / "file", np.int32, "c")  # whose changes are in memory only
    changed[:] = 7
    release(column, column[5:20], own, changed)
    assert (changed == 7).all()
    np.testing.assert_array_equal(column, np.arange(1000))
    np.testing.assert_array_equal(own, np.arange(10))


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages as Linux does")
def test_memory_is_given_back():
    n_pages = 5000
    column = mapped_array(n_pages * mmap.PAGESIZE, np.uint8)
    before = resident_pages_of_files()
    column[:] = 1
    assert resident_pages_of_files() - before > 0.9 * n_pages
    release(column[10:])
    assert resident_pages_of_files() - before < 0.1 * n_pages
    return_freed()
    assert column.all()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system reserves no room on the disk")
def test_a_full_disk_is_told_before_anything_is_written(monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        mapped_array(10, np.float32)


@pytest.mark.parametrize(
    ("sizes", "ranges"),
    [([], []), ([3], [(0, 1)]), ([0, 0], [(0, 2)]), ([4, 4, 3, 20, 1, 0, 2], [(0, 2), (2, 3), (3, 4), (4, 7)])],
)
def test_cells_are_cut_into_runs_of_about_so_many_transcripts(sizes, ranges):
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    assert [(part.start, part.stop) for part in cell_ranges(offsets, 10)] == ranges
