import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaf_data import Account, Transcripts


def test_account_must_add_up():
    account = Account(read=10, controls=1, low_quality=2, unassigned=3, kept=4)
    assert account.as_dict() == {"read": 10, "controls": 1, "low_quality": 2, "unassigned": 3, "kept": 4}
    with pytest.raises(AssertionError):
        Account(read=10, controls=1, low_quality=2, unassigned=3, kept=5)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), max_size=40))
def test_from_arrays_sorts_by_cell_then_gene_then_place(rows):
    cell, gene, x, y = np.array(rows, int).reshape(-1, 4).T
    made = Transcripts.from_arrays(x=x, y=y, gene=gene, cell=cell, genes=list("abcd"), cells=list("vwxyz"))
    found = list(zip(made.cell.tolist(), made.gene.tolist(), made.x.tolist(), made.y.tolist(), strict=True))
    assert found == sorted(rows)
    for i in range(5):
        assert (made.cell[made.offsets[i] : made.offsets[i + 1]] == i).all()


def test_columns_of_different_length_are_our_mistake(transcripts):
    with pytest.raises(AssertionError, match="differ in length"):
        Transcripts(
            x=np.zeros(2, np.float32),
            y=np.zeros(2, np.float32),
            z=np.zeros(2, np.float32),
            gene=np.zeros(1, np.int32),
            qv=np.zeros(2, np.float32),
            in_nucleus=np.zeros(2, bool),
            offsets=np.array([0, 2]),
            genes=["a"],
            cells=np.array(["c"]),
            account=transcripts.account,
        )
