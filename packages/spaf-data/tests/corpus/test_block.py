import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spaf_data import InputError
from spaf_data.corpus import Block, decode_block, encode_block
from spaf_data.corpus.sizes import BlockSize

FIELDS = [
    "cell_ids",
    "coordinates",
    "indptr",
    "genes",
    "counts",
    "colocalized_indptr",
    "colocalized",
    "positive_pairs",
    "key",
    "slide",
    "split",
    "n_owned",
]


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


SIZE = BlockSize(n_cells=3, n_pairs=2, n_genes=70_001)


def lying(name: str, change: Callable[[dict[str, Any]], None], payload: bytes | None = None) -> bytes:
    """Return a block of which the record of one array, and its bytes if given, were changed."""
    data = encode_block(block())
    magic, n_header = struct.unpack_from("<8sI", data)
    header = json.loads(data[12 : 12 + n_header])
    parts, start = [], 12 + n_header
    for key, record in header["arrays"].items():
        parts.append(data[start : start + record["nbytes"]])
        start += record["nbytes"]
        if key == name:
            change(record)
            if payload is not None:
                record["nbytes"], parts[-1] = len(payload), payload
    text = json.dumps(header).encode()
    return b"".join([struct.pack("<8sI", magic, len(text)), text, *parts])


def as_large_as(*shape: int) -> Callable[[dict[str, Any]], None]:
    return lambda record: record.update(shape=list(shape))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("cell_ids", as_large_as(1 << 26)),
        ("cell_ids", lambda record: record.update(text_bytes=1 << 26)),
        ("coordinates", as_large_as(1 << 26, 2)),
        ("indptr", as_large_as(1 << 26)),
        ("genes", as_large_as(1 << 26)),
        ("counts", as_large_as(1 << 26)),
        ("colocalized_genes", as_large_as(1 << 26)),
        ("colocalized_bits", as_large_as(1 << 26)),
        ("positive_pairs", as_large_as(1 << 26, 2)),
        ("counts", lambda record: record.update(dtype="<U1000000")),
        ("counts", lambda record: record.update(stored="|V1000000")),
        ("counts", as_large_as(-3)),
    ],
)
def test_a_record_that_lies_is_refused_before_it_fills_the_memory(
    name: str, change: Callable[[dict[str, Any]], None]
) -> None:
    assert decode_block(lying(name, lambda record: None), size=SIZE).n_cells == 3
    data = lying(name, change, zlib.compress(bytes(1 << 26)))
    assert len(data) < 100_000
    tracemalloc.start()
    with pytest.raises(InputError, match=f"block s-train-0000000 is damaged: .*{name}"):
        decode_block(data, size=SIZE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_block_of_another_size_than_the_manifest_says_is_refused() -> None:
    for size in (replace(SIZE, n_cells=4), replace(SIZE, n_pairs=1)):
        with pytest.raises(InputError, match="claims the shape"):
            decode_block(encode_block(block()), size=size)


def test_a_block_without_a_manifest_is_bounded_too() -> None:
    data = lying("positive_pairs", as_large_as(1 << 28, 2))
    with pytest.raises(InputError, match="it claims more than 1024 MB"):
        decode_block(data)
