import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaf_data.ordering import order_rows

# Few different values, so that rows agree in some columns; neighbours in double precision that are one in single.
VALUES = st.sampled_from([-1e9, -1.5, -0.0, 0.0, 1.0, 1.0 + 1e-12, 1.0 - 1e-12, 3e8])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), VALUES, st.integers(0, 2), st.sampled_from([0.5, 2.0])), max_size=30))
def test_agrees_with_lexsort(dtype, rows):
    columns = np.array(rows, np.float64).reshape(-1, 4)
    rank, value = columns[:, 0].astype(np.int64), columns[:, 1].astype(dtype)
    for scale in (1, 1 << 33):  # ranks beyond 32 bits too
        order = order_rows(rank * scale, value, columns[:, 2], columns[:, 3])
        expected = np.lexsort((columns[:, 3], columns[:, 2], value, rank))
        found = np.column_stack([rank, value, columns[:, 2:]])
        assert sorted(order) == list(range(len(rows)))
        assert np.array_equal(found[order], found[expected])
