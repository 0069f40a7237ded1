import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spaf_model import InputError
from spaf_model.spatialformer.published.gene_medians import read_gene_medians

MEDIANS = {"A": 1, "B": 2.5, "C": np.float64(3.5), "D": np.float32(0.5), "E": np.int64(4), "F": np.int32(6)}


class Call:
    """Calls something when unpickled."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def read(content: bytes) -> dict[str, float]:
    return read_gene_medians(content, source="gene_median.pkl")


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_numbers_of_python_and_numpy(protocol: int) -> None:
    medians = read(pickle.dumps(MEDIANS, protocol=protocol))
    assert medians == {gene: float(median) for gene, median in MEDIANS.items()}
    assert {type(median) for median in medians.values()} == {float}


def test_numbers_of_numpy_1_and_of_either_byte_order() -> None:
    content = pickle.dumps({"A": np.float64(3.5)}, protocol=3)
    assert b"numpy._core.multiarray" in content
    assert read(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")) == {"A": 3.5}
    swapped = content.replace(b"X\x01\x00\x00\x00<", b"X\x01\x00\x00\x00>").replace(
        np.float64(3.5).tobytes(), np.float64(3.5).tobytes()[::-1]
    )
    assert swapped != content
    assert read(swapped) == {"A": 3.5}


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    content = pickle.dumps({"A": 1.0, "B": Call(os.mkdir, str(made))}, protocol=protocol)
    with pytest.raises(InputError, match=r"gene_median\.pkl asks for (posix|nt)\.mkdir") as error:
        read(content)
    assert len(str(error.value).splitlines()) == 1
    assert not made.exists()
    pickle.loads(content)  # noqa: S301
    assert made.exists()  # so the pickle does what it is feared for


@pytest.mark.parametrize(
    ("content", "asked_for"),
    [
        (pickle.dumps(Call(eval, "1")), "eval"),
        (pickle.dumps({"A": np.array([1.0])}), "_reconstruct"),
        (pickle.dumps(OrderedDict(A=1.0)), "OrderedDict"),
        (pickle.dumps({"A": np.complex128(1)}), "'c16'"),
        (pickle.dumps({"A": Call(np.dtype, "O")}), "'O'"),
        # A dotted name must not reach through an allowed one.
        (b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.", "dtype.__init__"),
        # An attribute set on a number.
        (pickle.dumps({"A": np.float64(1)}, protocol=3).replace(b"q\nRq\x0b", b"q\nR}b"), "a number with a state"),
    ],
)
def test_anything_but_numbers_is_refused(content: bytes, asked_for: str) -> None:
    with pytest.raises(InputError, match=r"gene_median\.pkl asks for .* must be a dictionary of numbers") as error:
        read(content)
    assert asked_for in str(error.value)


def test_every_truncation_is_one_sentence() -> None:
    content = pickle.dumps(MEDIANS, protocol=4)
    for length in range(len(content)):
        with pytest.raises(InputError, match=r"gene_median\.pkl") as error:
            read(content[:length])
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("medians", "message"),
    [
        ([1.0], "must hold a dictionary"),
        ({}, "must hold a dictionary"),
        ({1: 1.0}, "the key 1 where a gene"),
        ({"A": "high"}, "a str where the median of 'A'"),
        ({"A": True}, "a bool where the median of 'A'"),
        ({"A": 0}, "'A' the median 0;"),
        ({"A": -1.0}, "'A' the median -1.0;"),
        ({"A": np.float64("nan")}, "'A' the median nan;"),
        ({"A": float("inf")}, "'A' the median inf;"),
    ],
)
def test_content_that_is_not_medians(medians: object, message: str) -> None:
    with pytest.raises(InputError, match="gene_median.pkl") as error:
        read(pickle.dumps(medians))
    assert message in str(error.value)
