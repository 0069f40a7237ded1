from dataclasses import replace

import numpy as np
import pytest

from spaf_data import InputError
from spaf_data.corpus import Block, decode_block, encode_block

FIELDS = (
    "cell_ids coordinates indptr genes counts colocalized_indptr colocalized positive_pairs key slide split n_owned"
).split()


def block() -> Block:
    return Block(
        key="s-train-0000000",
        slide="S 1/ä",
        split="train",
        n_owned=2,
        cell_ids=np.array(["a", "bb", "cé"]),
        coordinates=np.array([[0.5, 1.25], [1e5, 3.0], [7.0, 8.0]], np.float32),
        indptr=np.array([0, 2, 2, 3], np.int64),
        genes=np.array([3, 70_000, 0], np.int32),
        counts=np.array([1, 300, 2], np.int32),
        colocalized_indptr=np.array([0, 1, 1, 1], np.int64),
        colocalized=np.array([[3, 70_000]], np.int32),
        positive_pairs=np.array([[0, 1], [0, 2]], np.int32),
    )


def test_a_block_comes_back_exactly() -> None:
    before = block()
    after = decode_block(encode_block(before))
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        if isinstance(getattr(before, name), np.ndarray):
            assert getattr(after, name).dtype == getattr(before, name).dtype
    assert encode_block(after) == encode_block(before)


def test_an_empty_block_comes_back() -> None:
    empty = Block(
        key="e",
        slide="s",
        split="train",
        n_owned=0,
        cell_ids=np.array([], dtype=str),
        coordinates=np.empty((0, 2), np.float32),
        indptr=np.zeros(1, np.int64),
        genes=np.empty(0, np.int32),
        counts=np.empty(0, np.int32),
        colocalized_indptr=np.zeros(1, np.int64),
        colocalized=np.empty((0, 2), np.int32),
        positive_pairs=np.empty((0, 2), np.int32),
    )
    after = decode_block(encode_block(empty))
    assert (after.n_cells, after.n_pairs, after.colocalized.shape) == (0, 0, (0, 2))


def test_every_truncation_is_an_error() -> None:
    data = encode_block(block())
    for length in range(len(data)):
        with pytest.raises(InputError):
            decode_block(data[:length])
    with pytest.raises(InputError, match="left over"):
        decode_block(data + b"x")


def test_a_newer_version_says_so() -> None:
    data = encode_block(block()).replace(b'"encoding-version":"0.2.0"', b'"encoding-version":"0.9.0"', 1)
    with pytest.raises(InputError, match=r"0\.9\.0, and this version reads 0\.1\.0, 0\.2\.0"):
        decode_block(data)


@pytest.mark.parametrize("pair", [[3, 4], [70_000, 3]])
def test_pairs_that_are_not_of_the_genes_of_the_cell_come_back_as_they_are(pair: list[int]) -> None:
    before = replace(block(), colocalized=np.array([pair], np.int32))
    data = encode_block(before)
    assert b'"encoding-version":"0.1.0"' in data
    after = decode_block(data)
    np.testing.assert_array_equal(after.colocalized, before.colocalized)
    np.testing.assert_array_equal(after.colocalized_indptr, before.colocalized_indptr)


@pytest.mark.parametrize(
    "change",
    [
        {"n_owned": 4},
        {"positive_pairs": np.array([[0, 3]], np.int32)},
        {"indptr": np.array([0, 2, 1, 3], np.int64)},
        {"indptr": np.array([0, 2, 2, 2], np.int64)},
        {"counts": np.array([1], np.int32)},
        {"coordinates": np.zeros((2, 2), np.float32)},
    ],
)
def test_arrays_that_do_not_fit_are_an_error(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="damaged"):
        decode_block(encode_block(replace(block(), **change)))
