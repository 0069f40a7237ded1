import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaf_data import InputError
from spaf_data.corpus.arrays import decode_array, encode_array

SHAPES = hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=30)


@given(
    values=st.one_of(
        hnp.arrays(np.int32, SHAPES, elements=st.integers(0, 2**31 - 1)),
        hnp.arrays(np.int64, SHAPES, elements=st.integers(0, 2**63 - 1)),
        hnp.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False)),
    ),
    delta=st.booleans(),
)
def test_numbers_come_back_exactly(values: np.ndarray, delta: bool) -> None:
    record, payload = encode_array(values, delta=delta and values.dtype.kind == "i")
    decoded = decode_array(record, payload)
    assert decoded.dtype == values.dtype
    np.testing.assert_array_equal(decoded, values)


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_strings_come_back_exactly(strings: list[str]) -> None:
    values = np.array(strings, dtype=object)
    record, payload = encode_array(values)
    assert decode_array(record, payload).tolist() == strings


def test_the_narrowest_type_is_stored() -> None:
    for largest, stored in ((255, "|u1"), (256, "<u2"), (65536, "<u4")):
        assert encode_array(np.array([0, largest]))[0]["stored"] == stored


def test_a_name_with_nul_is_refused() -> None:
    with pytest.raises(InputError, match="NUL"):
        encode_array(np.array(["a\0b"], dtype=object))


@pytest.mark.parametrize("change", [{"shape": [11]}, {"shape": [9]}, {"shape": [2**40]}, {"encoding-version": "9.0"}])
def test_a_record_that_lies_is_an_error(change: dict[str, object]) -> None:
    record, payload = encode_array(np.arange(10))
    with pytest.raises(InputError):
        decode_array(record | change, payload)


def test_a_short_or_damaged_payload_is_an_error() -> None:
    record, payload = encode_array(np.arange(1000))
    for damaged in (payload[:-5], b"\0" + payload[1:]):
        with pytest.raises(InputError):
            decode_array(record, damaged)
